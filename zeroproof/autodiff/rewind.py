"""What a forward depends on beside its inputs, and the way back: buffers, random state, mode.

Generators that objects hold are searched for, and known, here alone.
"""

import pickle
import random
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import chain
from types import CellType, FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from zeroproof._extras import require

__all__ = ["Buffers", "Rewind", "in_mode", "random_state", "same_state", "set_random_state"]

_WATCHED = 3  # forwards after which a generator that was not drawn from is taken for unused
_LEAVES = (str, bytes, int, float, complex, type(None), Tensor, type, ModuleType)
_LISTS = (dict, list, tuple, deque)
_LONGEST = 1000  # a longer list is data, not parts
_MOST = 100_000  # objects that are looked at, so that the search ends

Keeper = tuple[Callable[[], Any], Callable[[Any], Any]]  # how to read a state, and to set it


class Buffers:
    """The buffers of a model by their place: one may be assigned anew in any forward.

    Attributes:
        saved: Copies of them, as they were when `save` was called last.
    """

    def __init__(self, model: nn.Module) -> None:
        self._places = [
            (module, name)
            for module in model.modules()
            for name, _ in module.named_buffers(recurse=False)
        ]
        self.saved = [buffer.detach().clone() for buffer in self.now()]
        self._shapes = [buffer.shape for buffer in self.saved]

    def now(self) -> list[Tensor]:
        """Return the buffers there are now."""
        return [getattr(module, name) for module, name in self._places]

    def save(self) -> None:
        """Copy them: no count of writes can be trusted, as normalisation leaves none."""
        if not self._places:
            return
        now = self.now()
        if [x.shape for x in now] == self._shapes:
            for saved, buffer in zip(self.saved, now, strict=True):
                saved.copy_(buffer.detach())
        else:
            self.saved = [buffer.detach().clone() for buffer in now]
            self._shapes = [buffer.shape for buffer in now]

    @torch.no_grad()
    def restore(self) -> None:
        """Write the copies back."""
        self.set(self.saved)

    def set(self, values: list[Tensor]) -> None:
        """Write values into the buffers there are now, or put a copy where the shape differs."""
        for (module, name), value in zip(self._places, values, strict=True):
            buffer = getattr(module, name)
            if buffer.shape == value.shape and buffer.dtype == value.dtype:
                buffer.copy_(value)
            else:
                setattr(module, name, value.clone())


class Rewind:
    """Random state and buffers before a forward, so that a second one sees what the first one saw.

    Torch's generators and those that the model holds are always kept. To read those of Python and
    NumPy takes longer than a small step, so they are kept while forwards draw from them.
    """

    def __init__(self, model: nn.Module) -> None:
        self.buffers = Buffers(model)
        self._keepers: list[Keeper] = [(torch.get_rng_state, torch.set_rng_state)]
        if any(p.is_cuda for p in model.parameters()):
            self._keepers.append((torch.cuda.get_rng_state_all, torch.cuda.set_rng_state_all))
        self._keepers += _generators({"model": model}).values()
        self._host: list[Keeper] = [(random.getstate, random.setstate)]
        if "numpy" in sys.modules:
            numpy = sys.modules["numpy"].random
            self._host.append((numpy.get_state, numpy.set_state))
        self._drawn = [False] * len(self._host)
        self._watch = _WATCHED

    def save(self) -> None:
        """Keep what is there now."""
        self.buffers.save()
        self._states = [get() for get, _ in self._keepers]
        self._host_states = [get() for get, _ in self._host]

    def watch(self) -> None:
        """After a first forward since `save`: notice which of Python and NumPy it drew from."""
        if self._watch <= 0:
            return
        self._watch -= 1
        for i, (get, _) in enumerate(self._host):
            self._drawn[i] |= pickle.dumps(get()) != pickle.dumps(self._host_states[i])
        if self._watch == 0:
            used = [i for i, drawn in enumerate(self._drawn) if drawn]
            self._host = [self._host[i] for i in used]
            self._host_states = [self._host_states[i] for i in used]

    def back(self) -> None:
        """Set what was kept."""
        self.buffers.restore()
        kept = ((self._keepers, self._states), (self._host, self._host_states))
        for keepers, states in kept:
            for (_, put), state in zip(keepers, states, strict=True):
                put(state)


def random_state(roots: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the state of this process, fit for a file, and of all generators inside `roots`."""
    version, numbers, gauss = random.getstate()
    kind, keys, *rest = require("numpy", extra="train").random.get_state()
    state = {
        "python": [version, torch.tensor(numbers), gauss],
        "numpy": [kind, torch.from_numpy(keys.astype("int64")), *rest],
        "torch": torch.get_rng_state(),
        "held": {place: _plain(get()) for place, (get, _) in _generators(roots or {}).items()},
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
        there[place][1](held[place])
    return sorted(held.keys() - there.keys())


def same_state(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Tell whether nobody drew from the global generators between two states."""
    numbers = (tree_leaves(state) for state in (one, other))
    pairs = zip(*numbers, strict=True)
    return all(torch.equal(a, b) if isinstance(a, Tensor) else a == b for a, b in pairs)


def _generators(roots: Mapping[str, Any]) -> dict[str, Keeper]:
    """Return the generators inside objects by their place, such as `train_loader.dataset.rng`.

    The search goes level by level through attributes, lists, dicts, closures and partial functions,
    each object once, so that a place is the shortest one and the same in every process.
    """
    found: dict[str, Keeper] = {}
    seen, waiting = set[int](), deque(roots.items())
    while waiting and len(seen) < _MOST:
        place, x = waiting.popleft()
        if id(x) in seen:
            continue
        seen.add(id(x))
        if (keeper := _keeper(x)) is not None:
            found[place] = keeper
            continue
        parts = ((f"{place}.{name}", part) for name, part in _inside(x))
        waiting.extend((name, part) for name, part in parts if not isinstance(part, _LEAVES))
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


def _keeper(x: Any) -> Keeper | None:
    """Return how to read and set a generator; `None` for anything else."""
    numpy: Any = getattr(sys.modules.get("numpy"), "random", None)  # torch does without it
    if numpy is not None and isinstance(x, numpy.Generator):
        bits = x.bit_generator
        return lambda: bits.state, lambda state: setattr(bits, "state", state)
    if numpy is not None and isinstance(x, numpy.RandomState):
        return partial(x.get_state, legacy=False), x.set_state
    if isinstance(x, torch.Generator):
        return x.get_state, x.set_state
    if isinstance(x, random.Random) and not isinstance(x, random.SystemRandom):  # has no state
        return x.getstate, x.setstate
    return None


def _plain(state: Any) -> Any:
    """Return lists for the arrays of NumPy, which takes them as well."""
    if isinstance(state, dict):
        return {key: _plain(item) for key, item in state.items()}
    return state.tolist() if hasattr(state, "tolist") and not isinstance(state, Tensor) else state


@contextmanager
def in_mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    """Set training or evaluation mode; at the end every module is back in the mode it had."""
    before = [(module, module.training) for module in model.modules()]
    model.train(training)
    for module, _ in before:
        if getattr(module, "answers_in_eval", False):
            module.training = True  # its tuples are wanted, not its answers
    try:
        yield
    finally:
        for module, mode in before:
            module.training = mode
