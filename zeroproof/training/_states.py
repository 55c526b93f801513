"""All that a module remembers: parameters, and every buffer, by whatever way it is written."""

from collections.abc import Mapping
from typing import Any

from torch import nn

__all__ = ["all_state", "plain", "set_all_state"]


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
