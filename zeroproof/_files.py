"""Files and folders that are whole or not there: written under a temporary name, then renamed."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["folder_in_place", "text_in_place", "write_json"]


@contextmanager
def folder_in_place(folder: Path) -> Iterator[Path]:
    """Yield an empty folder; if the block ends well it becomes `folder`, else it goes."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
        fresh = Path(scratch) / "fresh"
        fresh.mkdir()
        yield fresh
        if folder.exists():
            folder.rename(Path(scratch) / "before")  # goes with the scratch folder
        fresh.rename(folder)


def text_in_place(path: Path, text: str) -> None:
    """Write `text` (UTF-8) to `path`, replacing what was there in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}-"))
    try:
        fresh = scratch / path.name
        fresh.write_text(text, encoding="utf-8", newline="")
        fresh.replace(path)
    finally:
        shutil.rmtree(scratch)


def write_json(path: Path, value: Any) -> None:
    """Write strict JSON in one step; a nan in `value` is an error rather than invalid JSON."""
    text_in_place(path, json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n")
