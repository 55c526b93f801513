"""Training and evaluation mode of a whole model, for a while."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from zeroproof.inference import StrictModule

__all__ = ["in_mode"]


@contextmanager
def in_mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    """Set training or evaluation mode; at the end every module is back in the mode it had."""
    before = [(module, module.training) for module in model.modules()]
    model.train(training)
    for module, _ in before:
        if isinstance(module, StrictModule):
            module.training = True  # validation wants its tuples, not its answers
    try:
        yield
    finally:
        for module, mode in before:
            module.training = mode
