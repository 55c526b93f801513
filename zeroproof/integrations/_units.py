"""Answers in the units of the targets."""

from typing import Any

from torch import Tensor, nn

from zeroproof.training._calling import as_pair

__all__ = ["InUnits"]


class InUnits(nn.Module):
    """A model whose N is multiplied by the scale of the targets: its answers are in units of y."""

    def __init__(self, model: nn.Module, scale: float) -> None:
        super().__init__()
        self.model, self.scale = model, scale

    def forward(self, *args: Any, **named: Any) -> tuple[Tensor, Tensor]:
        """Return (s N, D) in at least float32."""
        N, D = as_pair(self.model(*args, **named))
        return N * self.scale, D
