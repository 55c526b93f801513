"""Checkpoints: safetensors and JSON with checksums, whole or not there, the last few kept.

checkpoint_dir/
  step-000001200/         step-000001200.1/ for a second one of the same step
    state.safetensors   every tensor
    state.json          format version, checksums, and all else, with references to the tensors
"""

import hashlib
import json
import math
import os
import re
import shutil
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zeroproof._extras import require
from zeroproof._files import folder_in_place, tensors_written
from zeroproof.errors import CheckpointError, DamagedCheckpointError, ZeroProofError
from zeroproof.training._head import heads_of, scale_numerator
from zeroproof.training._keeping import all_state, set_all_state

__all__ = [
    "check_model_state",
    "find_checkpoint",
    "list_checkpoints",
    "load_checkpoint",
    "load_weights",
    "pack",
    "remove_stale",
    "save_checkpoint",
    "unpack",
]

_FORMAT = "zeroproof-checkpoint"
_VERSION = 2
_READ = (1, 2)  # 1 held the generators of a loader by their order
_PLAIN = (bool, int, str, type(None))
_NAME = re.compile(r"step-(\d{9,})(?:\.(\d+))?")
_STALE = re.compile(r"\.step-\d{9,}(\.\d+)?-")  # left by a process that was killed while it wrote


def save_checkpoint(folder: str | Path, step: int, state: Mapping[str, Any], keep: int = 2) -> Path:
    """Write `folder/step-...` under a temporary name, rename it, and remove all but the last ones.

    Args:
        folder: Where checkpoints live; made if it is missing.
        step: Number of the step, part of the name.
        state: Nested dicts, lists and tuples of numbers, strings and tensors.
        keep: How many to keep, this one included.

    Returns:
        The checkpoint's own folder.

    Raises:
        CheckpointError: `state` holds something that is neither number, string nor tensor.
        OSError: The disk is full, the folder cannot be written, ...; older ones are untouched.
    """
    folder = Path(folder)
    tree, tensors = pack(state)
    final = _free_name(folder, step)
    with folder_in_place(final) as fresh:
        with tensors_written() as safetensors:
            safetensors.save_file(tensors, fresh / "state.safetensors")
        record = {
            "format": _FORMAT,
            "version": _VERSION,
            "torch": torch.__version__,
            "checksums": {
                "state.safetensors": _checksum(fresh / "state.safetensors"),
                "state": _digest(tree),
            },
            "state": tree,
        }
        text = json.dumps(record, allow_nan=False, separators=(",", ":"))
        (fresh / "state.json").write_text(text, encoding="utf-8")
        for path in fresh.iterdir():
            _flush(path)
    _flush(folder)
    for old in [path for path in list_checkpoints(folder) if path != final][keep - 1 :]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote; nothing is unpickled.

    Raises:
        DamagedCheckpointError: A file is missing, cut short or altered.
        CheckpointError: It is no checkpoint, or was written in a format that is not read here.
    """
    path = Path(path)
    record = _record(path)
    try:
        return _unaltered(path, record)
    except ZeroProofError:
        raise
    except Exception as error:  # whatever a reader says, the file is not as it was written
        raise DamagedCheckpointError(f"{path} must be whole, but: {error!r}") from error


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


def _record(path: Path) -> dict[str, Any]:
    file = path / "state.json"
    if not path.is_dir():
        raise CheckpointError(f"{path} must be the folder of a checkpoint, got no folder")
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError, MemoryError) as error:
        raise DamagedCheckpointError(f"{file} must be readable JSON: {error!r}") from error
    if not isinstance(record, dict) or record.get("format") != _FORMAT:
        raise DamagedCheckpointError(f"{file} must have the format {_FORMAT!r}, got something else")
    version = record.get("version")
    if type(version) is int and version not in _READ:
        raise CheckpointError(
            f"{file} must have format version {_VERSION} or 1, got {version}: "
            "use the version of zeroproof that wrote it"
        )
    if version not in _READ:
        raise DamagedCheckpointError(f"{file} must have a format version, got {version!r}")
    return record


def _unaltered(path: Path, record: dict[str, Any]) -> dict[str, Any]:
    sums, tree = record["checksums"], record["state"]
    if sums["state"] != _digest(tree):
        raise DamagedCheckpointError(f"{path / 'state.json'} must be as written, but differs")
    file = path / "state.safetensors"
    if sums["state.safetensors"] != _checksum(file):
        raise DamagedCheckpointError(f"{file} must be as written, but differs")
    return unpack(tree, require("safetensors.torch", extra="train").load_file(file))


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(tree: Any) -> str:
    text = json.dumps(tree, allow_nan=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _flush(path: Path) -> None:
    """Have the disk write it now: a rename that survives a power cut must not point to nothing."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# --- state as JSON with tensors beside it, so that nothing is ever pickled;
# --- what JSON does not know is a dict with one key that begins with $


def pack(tree: Any) -> tuple[Any, dict[str, Tensor]]:
    """Split nested dicts, lists and tuples into a JSON value and the tensors it refers to.

    Tensors are copied to the CPU: the state may move on while they are written.

    Raises:
        CheckpointError: Something is neither a number, a string, a tensor nor made of those.
    """
    tensors: dict[str, Tensor] = {}
    return _packed(tree, "", tensors), tensors


def unpack(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Put together what `pack` took apart."""
    if isinstance(value, list):
        return [unpack(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    key = next(iter(value), "") if len(value) == 1 else ""
    if key in _MARKS:
        return _MARKS[key](value[key], tensors)
    return {key: unpack(item, tensors) for key, item in value.items()}


_MARKS: dict[str, Callable[[Any, Mapping[str, Tensor]], Any]] = {
    "$tensor": lambda name, tensors: tensors[name],
    "$complex": lambda name, tensors: torch.view_as_complex(tensors[name]),
    "$float": lambda text, _: float(text),
    "$tuple": lambda items, tensors: tuple(unpack(item, tensors) for item in items),
    "$items": lambda items, tensors: {unpack(k, tensors): unpack(v, tensors) for k, v in items},
}


def _packed(tree: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(tree, Tensor):
        return _stored(tree, path, tensors)
    if isinstance(tree, float):
        tree = float(tree)  # a NumPy number is one too
        return tree if math.isfinite(tree) else {"$float": repr(tree)}
    if isinstance(tree, _PLAIN):
        return tree
    if isinstance(tree, Mapping):
        return _packed_items(tree, path, tensors)
    if isinstance(tree, list | tuple):
        items = [_packed(item, f"{path}.{i}", tensors) for i, item in enumerate(tree)]
        return {"$tuple": items} if isinstance(tree, tuple) else items
    if hasattr(tree, "item") and getattr(tree, "ndim", None) == 0:  # a NumPy scalar
        return _packed(tree.item(), path, tensors)
    raise CheckpointError(
        f"{path.lstrip('.')} must be made of numbers, strings and tensors to be stored, "
        f"got {type(tree).__name__}"
    )


def _packed_items(tree: Mapping[Any, Any], path: str, tensors: dict[str, Tensor]) -> Any:
    if all(isinstance(key, str) and not key.startswith("$") for key in tree):
        return {key: _packed(item, f"{path}.{key}", tensors) for key, item in tree.items()}
    return {
        "$items": [
            [_packed(key, path, tensors), _packed(item, f"{path}.{key}", tensors)]
            for key, item in tree.items()
        ]
    }


def _stored(tensor: Tensor, path: str, tensors: dict[str, Tensor]) -> dict[str, str]:
    name, key = path.lstrip(".") or "tensor", "$tensor"
    tensor = tensor.detach()
    if tensor.is_complex():  # safetensors knows none of double precision
        tensor, key = torch.view_as_real(tensor.resolve_conj()), "$complex"
    tensors[name] = tensor.to("cpu", copy=True).contiguous()
    return {key: name}
