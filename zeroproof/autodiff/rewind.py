"""What a forward depends on beside its inputs, and the way back: buffers, random state, mode."""

import pickle
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Buffers", "Rewind", "in_mode"]

_WATCHED = 3  # forwards after which a generator that was not drawn from is taken for unused


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

    Torch's generators and those that modules hold are always kept. To read those of Python and
    NumPy takes longer than a small step, so they are kept while forwards draw from them.
    """

    def __init__(self, model: nn.Module) -> None:
        self.buffers = Buffers(model)
        self._keepers: list[Any] = [(torch.get_rng_state, torch.set_rng_state)]
        if any(p.is_cuda for p in model.parameters()):
            self._keepers.append((torch.cuda.get_rng_state_all, torch.cuda.set_rng_state_all))
        for module in model.modules():
            self._keepers += [k for value in vars(module).values() if (k := _keeper(value))]
        self._host: list[Any] = [(random.getstate, random.setstate)]
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


def _keeper(value: Any) -> tuple[Callable[[], Any], Callable[[Any], Any]] | None:
    """Return how to read and set a generator; `None` for anything else."""
    if isinstance(value, torch.Generator):
        return value.get_state, value.set_state
    if isinstance(value, random.Random):
        return value.getstate, value.setstate
    if (bits := getattr(value, "bit_generator", None)) is not None:  # of NumPy
        return lambda: bits.state, lambda state: setattr(bits, "state", state)
    return None


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
