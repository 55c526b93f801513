"""All that a module remembers: parameters, and every buffer, by whatever way it is written."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

__all__ = ["Buffers", "all_state", "plain", "set_all_state"]


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
        self.saved = [buffer.clone() for buffer in self.now()]
        self._shapes = [buffer.shape for buffer in self.saved]

    def now(self) -> list[Tensor]:
        """Return the buffers there are now."""
        return [getattr(module, name) for module, name in self._places]

    def save(self) -> None:
        """Copy them: no count of writes can be trusted, as normalisation leaves none."""
        now = self.now()
        if [x.shape for x in now] == self._shapes:
            for saved, buffer in zip(self.saved, now, strict=True):
                saved.copy_(buffer)
        else:
            self.saved = [buffer.clone() for buffer in now]
            self._shapes = [buffer.shape for buffer in now]

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


def plain(model: nn.Module) -> nn.Module:
    """Return the module inside a compiled one, whose names differ."""
    return getattr(model, "_orig_mod", model)


def all_state(model: nn.Module) -> dict[str, Any]:
    """Return parameters and all buffers, those too that a `state_dict` leaves out."""
    model = plain(model)
    return {**model.state_dict(), **dict(model.named_buffers())}


def set_all_state(model: nn.Module, state: Mapping[str, Any]) -> None:
    """Set what `all_state` returned."""
    model = plain(model)
    known = model.state_dict().keys()
    model.load_state_dict({name: value for name, value in state.items() if name in known})
    for name, buffer in model.named_buffers():
        buffer.data.copy_(state[name])
