"""State as JSON with tensors beside it, so that nothing is ever pickled.

What JSON does not know is written as a dict with one key that begins with `$`.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from zeroproof.errors import CheckpointError

__all__ = ["pack", "unpack"]

_PLAIN = (bool, int, str, type(None))


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
