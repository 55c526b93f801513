"""Files and folders that are whole or not there: written under a temporary name, then renamed."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import EIO
from pathlib import Path
from typing import Any

from zeroproof._extras import require

__all__ = ["file_in_place", "folder_in_place", "tensors_written", "text_in_place", "write_json"]


@contextmanager
def folder_in_place(folder: Path) -> Iterator[Path]:
    """Yield an empty folder; if the block ends well it becomes `folder`, else no trace is left."""
    folder = folder.resolve()  # a link keeps pointing where it points
    with _beside(folder) as scratch:
        fresh, before = scratch / "fresh", scratch / "before"
        fresh.mkdir()
        yield fresh
        if folder.exists():
            folder.rename(before)  # goes with the scratch folder
        try:
            fresh.rename(folder)
        except BaseException:
            if before.exists():
                before.rename(folder)
            raise


@contextmanager
def tensors_written() -> Iterator[Any]:
    """Yield `safetensors.torch`, whose own error for a full disk becomes the OSError it is not."""
    error_of_its_own = require("safetensors", extra="train").SafetensorError
    try:
        yield require("safetensors.torch", extra="train")
    except error_of_its_own as error:
        raise OSError(EIO, f"tensors could not be written: {error}") from error


@contextmanager
def file_in_place(path: Path) -> Iterator[Path]:
    """Yield the name of a file to write; if the block ends well it becomes `path` in one step."""
    path = path.resolve()
    with _beside(path) as scratch:
        fresh = scratch / path.name
        yield fresh
        fresh.replace(path)


def text_in_place(path: Path, text: str) -> None:
    """Write `text` (UTF-8) to `path`, replacing what was there in one step."""
    with file_in_place(path) as fresh:
        fresh.write_text(text, encoding="utf-8", newline="")


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """Yield a scratch folder beside `path`, whose parents are made; if the block fails, they go.

    An OSError that names nothing, as that of a full disk, or something in the scratch folder, names
    `path` instead.
    """
    made = [parent for parent in path.parents if not parent.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{path.name}-"
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=prefix) as scratch:
            yield Path(scratch)
    except BaseException as error:
        for parent in made:
            with suppress(OSError):  # someone else may have put something there
                parent.rmdir()
        if isinstance(error, OSError) and prefix in str(error.filename or prefix):
            error.filename = str(path)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write strict JSON in one step; a nan in `value` is an error rather than invalid JSON."""
    text_in_place(path, json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n")
