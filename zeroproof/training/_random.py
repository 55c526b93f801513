"""The states of all sources of randomness: the global ones, and generators that objects hold."""

import random
from collections import deque
from collections.abc import Iterable, Mapping
from functools import partial
from itertools import chain
from types import CellType, FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from zeroproof._extras import require

__all__ = ["random_state", "same_state", "set_random_state"]

_LEAVES = (str, bytes, int, float, complex, type(None), Tensor, type, ModuleType)
_LISTS = (dict, list, tuple, deque)
_LONGEST = 1000  # a longer list is data, not parts
_MOST = 100_000  # objects that are looked at, so that the search ends


def random_state(roots: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the state of this process, fit for `pack`, and of all generators inside `roots`."""
    version, numbers, gauss = random.getstate()
    kind, keys, *rest = require("numpy", extra="train").random.get_state()
    state = {
        "python": [version, torch.tensor(numbers), gauss],
        "numpy": [kind, torch.from_numpy(keys.astype("int64")), *rest],
        "torch": torch.get_rng_state(),
        "held": {place: _state(held) for place, held in _generators(roots or {}).items()},
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_random_state(state: dict[str, Any], roots: Mapping[str, Any] | None = None) -> list[str]:
    """Set what `random_state` returned; return the places of generators that are not there."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers.tolist()), gauss))
    kind, keys, *rest = state["numpy"]
    require("numpy", extra="train").random.set_state((kind, keys.numpy().astype("uint32"), *rest))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
    there = _generators(roots or {})
    held = state.get("held", {})  # not in version 1
    for place in there.keys() & held.keys():
        _set_state(there[place], held[place])
    return sorted(held.keys() - there.keys())


def _generators(roots: Mapping[str, Any]) -> dict[str, Any]:
    """Return the generators inside objects by their place, such as `train_loader.dataset.rng`.

    The search goes level by level through attributes, lists, dicts, closures and partial functions,
    each object once, so that a place is the shortest one and the same in every process.
    """
    numpy = require("numpy", extra="train").random
    kinds = (torch.Generator, numpy.Generator, numpy.RandomState, random.Random)
    found: dict[str, Any] = {}
    seen, waiting = set[int](), deque(roots.items())
    while waiting and len(seen) < _MOST:
        place, x = waiting.popleft()
        if id(x) in seen:
            continue
        seen.add(id(x))
        if not isinstance(x, kinds):
            parts = ((f"{place}.{name}", part) for name, part in _inside(x))
            waiting.extend((name, part) for name, part in parts if not isinstance(part, _LEAVES))
        elif not isinstance(x, random.SystemRandom):  # which has no state
            found[place] = x
    return found


def _inside(x: Any) -> Iterable[tuple[Any, Any]]:  # noqa: PLR0911 - one for each kind
    """Return the parts of an object with names that are the same in every process."""
    if isinstance(x, _LISTS) and len(x) > _LONGEST:
        return ()
    if isinstance(x, dict):
        keys = (key if isinstance(key, str | int) else i for i, key in enumerate(x))
        return zip(keys, x.values(), strict=True)
    if isinstance(x, _LISTS):
        return enumerate(x)
    if isinstance(x, FunctionType):
        cells = zip(x.__code__.co_freevars, x.__closure__ or (), strict=True)
        return ((name, cell.cell_contents) for name, cell in cells if cell != CellType())
    if isinstance(x, MethodType):
        return [("self", x.__self__)]
    if isinstance(x, partial):
        return chain([("func", x.func)], enumerate(x.args), x.keywords.items())
    return getattr(x, "__dict__", {}).items()


def same_state(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Tell whether nobody drew from the global generators between two states."""
    numbers = (tree_leaves(state) for state in (one, other))
    pairs = zip(*numbers, strict=True)
    return all(torch.equal(a, b) if isinstance(a, Tensor) else a == b for a, b in pairs)


def _state(generator: Any) -> Any:
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    if isinstance(generator, random.Random):
        return generator.getstate()
    if hasattr(generator, "bit_generator"):
        return _plain(generator.bit_generator.state)
    return _plain(generator.get_state(legacy=False))


def _set_state(generator: Any, state: Any) -> None:
    if isinstance(generator, random.Random):
        generator.setstate(state)
    elif hasattr(generator, "bit_generator"):
        generator.bit_generator.state = state
    else:
        generator.set_state(state)


def _plain(value: Any) -> Any:
    """Return lists for arrays, which NumPy takes as well."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value.tolist() if hasattr(value, "tolist") else value
