"""Edit what is stored as somebody would who also writes the checksum anew."""

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from zeroproof._record import checksum


def edited(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the record of a fit, a run or a checkpoint; also to what strict JSON does not have."""
    names = ("model.json", "run.json", "state.json")
    (path,) = (folder / name for name in names if (folder / name).exists())
    (tensors,) = folder.glob("*.safetensors")
    record = json.loads(path.read_text(encoding="utf-8"))
    change(record)
    with suppress(ValueError):  # of a nan there is no sum
        record["checksum"] = checksum(tensors, record)
    path.write_text(json.dumps(record), encoding="utf-8")
