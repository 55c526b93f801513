"""Checkpoints in the one stored form, whole or not there, the last few kept.

checkpoint_dir/
  step-000001200/         step-000001200.1/ for a second one of the same step
    state.safetensors   every tensor
    state.json          all else
"""

import hashlib
import json
import os
import re
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from zeroproof._files import folder_in_place
from zeroproof._record import Stored, load_tensors, pack, unpack
from zeroproof.errors import CheckpointError, DamagedCheckpointError, RangeError
from zeroproof.training._head import heads_of, scale_numerator
from zeroproof.training._keeping import all_state, set_all_state

__all__ = [
    "check_model_state",
    "copied",
    "find_checkpoint",
    "list_checkpoints",
    "load_checkpoint",
    "load_weights",
    "remove_stale",
    "save_checkpoint",
]

_NAME = re.compile(r"step-(\d{9,})(?:\.(\d+))?")
_STALE = re.compile(r"\.step-\d{9,}(\.\d+)?-")  # left by a process that was killed while it wrote


def save_checkpoint(folder: str | Path, step: int, state: Mapping[str, Any], keep: int = 2) -> Path:
    """Write `folder/step-...` under a temporary name, rename it, and remove all but the last.

    Args:
        folder: Where checkpoints live; made if it is missing.
        step: Number of the step, part of the name.
        state: Nested dicts, lists and tuples of numbers, strings and tensors.
        keep: How many steps to keep, this one included; of each its latest checkpoint.

    Returns:
        The checkpoint's own folder.

    Raises:
        CheckpointError: `state` holds something that is neither number, string nor tensor.
        OSError: The disk is full, the folder cannot be written, ...; older ones are untouched.
    """
    folder = Path(folder)
    final = _free_name(folder, step)
    with folder_in_place(final) as fresh:
        try:
            _STORED.write(fresh, {"state": state})
        except RangeError as error:
            raise CheckpointError(str(error)) from error
        for path in fresh.iterdir():
            _flush(path)
    _flush(folder)
    newest = {_age(path)[0]: path for path in [*reversed(list_checkpoints(folder)), final]}
    steps = [step, *(each for each in sorted(newest, reverse=True) if each != step)]
    kept = {newest[each] for each in steps[:keep]}
    for old in list_checkpoints(folder):
        if old not in kept:
            shutil.rmtree(old, ignore_errors=True)
    return final


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote; nothing is unpickled.

    Raises:
        DamagedCheckpointError: A file is missing, cut short or altered.
        CheckpointError: It is no checkpoint, or was written in a format that is not read here.
    """
    path = Path(path)
    if not path.is_dir():
        raise CheckpointError(f"{path} must be the folder of a checkpoint, got no folder")
    state = _STORED.read(path).get("state")
    if not isinstance(state, dict):
        raise DamagedCheckpointError(f"{path} must hold a state, got {type(state).__name__}")
    return state


def copied(state: Any) -> Any:
    """Return a copy of a state as a checkpoint would give it back.

    Raises:
        CheckpointError: It holds something that is neither number, string nor tensor.
    """
    try:
        return unpack(*pack(state))
    except RangeError as error:
        raise CheckpointError(str(error)) from error


def list_checkpoints(folder: str | Path) -> list[Path]:
    """Return the checkpoints in a folder, the newest first; damaged ones are among them."""
    folder = Path(folder)
    if not folder.is_dir():
        return []
    return sorted(
        (path for path in folder.iterdir() if _NAME.fullmatch(path.name) and path.is_dir()),
        key=_age,
        reverse=True,
    )


def find_checkpoint(folder: str | Path) -> tuple[Path, dict[str, Any]] | None:
    """Return the newest whole checkpoint of a folder and its state; `None` if there is none.

    Warns:
        UserWarning: One is damaged; it is named, and the one before it is tried.

    Raises:
        CheckpointError: The newest whole one was written in a format that is not read here.
    """
    for path in list_checkpoints(folder):
        try:
            return path, load_checkpoint(path)
        except DamagedCheckpointError as error:
            warnings.warn(f"a damaged checkpoint is left out: {error}", stacklevel=3)
    return None


def load_weights(path: str | Path, model: nn.Module) -> None:
    """Load the model's parameters and buffers from a checkpoint, and nothing else.

    Args:
        path: A checkpoint, or a folder of them, of which the newest whole one is taken.
        model: A model of the same architecture.

    Raises:
        DamagedCheckpointError: The checkpoint is not as it was written.
        CheckpointError: There is none, or it holds another architecture; nothing was loaded.
    """
    path = Path(path)
    if not _NAME.fullmatch(path.name):
        found = find_checkpoint(path)
        if found is None:
            raise CheckpointError(f"{path} must hold a checkpoint, got none that is whole")
        path, state = found
    else:
        state = load_checkpoint(path)
    check_model_state(model, state["model"], path)
    set_all_state(model, state["model"])
    progress = state.get("progress", {})
    if progress.get("in_head"):  # as when `fit` ends: answers are in the units of y
        (head,) = heads_of(model)
        scale_numerator(head, progress["scale"])


def check_model_state(model: nn.Module, state: Mapping[str, Any], path: Path) -> None:
    """Find out whether a state belongs to a model.

    Raises:
        CheckpointError: It is that of another architecture or precision, or the model has not seen
            the batch from which a lazy module takes its shape.
    """
    if any(isinstance(p, nn.UninitializedParameter) for p in model.parameters()):
        raise CheckpointError(f"{path} needs a model that has run once, got lazy parameters")
    mine = all_state(model)
    for what, names in (("lacks", mine.keys() - state.keys()), ("has", state.keys() - mine.keys())):
        if names:
            shown = ", ".join(sorted(names)[:3]) + (", ..." if len(names) > 3 else "")
            raise CheckpointError(f"{path} must hold this model's parameters, but {what} {shown}")
    for name, value in state.items():
        wanted = mine[name]
        if isinstance(value, Tensor) and value.shape != wanted.shape:
            raise CheckpointError(
                f"{path} must hold {name} of shape {tuple(wanted.shape)}, got {tuple(value.shape)}"
            )
        if isinstance(value, Tensor) and value.dtype != wanted.dtype:
            raise CheckpointError(f"{path} must hold {name} in {wanted.dtype}, got {value.dtype}")


def remove_stale(folder: Path) -> None:
    """Remove what a process left that was killed while it wrote a checkpoint."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if _STALE.match(path.name):
            shutil.rmtree(path, ignore_errors=True)


def _age(path: Path) -> tuple[int, ...]:
    """Return the step, and the number among several of one step."""
    return tuple(int(part or 0) for part in _NAME.sub(r"\1.\2", path.name).split("."))


def _free_name(folder: Path, step: int) -> Path:
    """Return a later name than all of this step; replacing one would leave a moment with none."""
    name = f"step-{step:09d}"
    ages = (_age(path) for path in list_checkpoints(folder))
    numbers = [number for at, number in ages if at == step]
    return folder / (f"{name}.{max(numbers) + 1}" if numbers else name)


def _older(record: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return the state of versions 1 and 2 of the former format, which had two checksums."""
    version = record.get("version")
    if type(version) is int and version not in (1, 2):
        raise CheckpointError(
            f"{path / 'state.json'} must have format version 1 or 2, got {version}: "
            "use the version of zeroproof that wrote it"
        )
    sums, tree, file = record["checksums"], record["state"], path / "state.safetensors"
    text = json.dumps(tree, allow_nan=False, separators=(",", ":")).encode()
    with file.open("rb") as data:
        found = {
            "state": hashlib.sha256(text).hexdigest(),
            file.name: hashlib.file_digest(data, "sha256").hexdigest(),
        }
    if found != sums:
        raise RangeError("other contents than were written: a checksum differs")
    return {"state": unpack(tree, load_tensors(file))}


_STORED = Stored(
    "checkpoint", "state.json", "state.safetensors", DamagedCheckpointError,
    foreign=CheckpointError, older={"zeroproof-checkpoint": _older},
)  # fmt: skip


def _flush(path: Path) -> None:
    """Have the disk write it now: a rename that survives a power cut must not point to nothing."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
