"""N / D with an explicit ⊥: the one division that every room uses."""

import math
from typing import Any

import torch
from torch import Tensor

from zeroproof.autodiff.gate import gating, rule, shielded, submit

__all__ = ["divide"]


def _divided(N: Tensor, D: Tensor, bottom: Tensor) -> tuple[Tensor, Tensor]:
    # made safe before the division: a `where` behind it would leak nan into gradients; 1 cannot overflow
    value = torch.where(bottom, 0, N) / torch.where(bottom, 1, D)
    bottom = bottom | ~torch.isfinite(value)
    return torch.where(bottom, math.nan, value), bottom


class _Divide(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(N: Tensor, D: Tensor, bottom: Tensor, fixed: int) -> tuple[Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return _divided(N, D, bottom)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        N, D, _, ctx.fixed = inputs
        ctx.save_for_backward(N, D, output[1])
        ctx.mark_non_differentiable(output[1])

    @staticmethod
    def backward(ctx: Any, g: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        N, D, bottom = ctx.saved_tensors
        ruling = rule(g, ctx.fixed)
        unsafe = shielded(ruling, bottom)
        safe_D = torch.where(unsafe, 1, D)
        g_N = g / safe_D.conj()
        g_D = -g_N * (torch.where(unsafe, 0, N) / safe_D).conj()
        return (*(_to_operand(x, like, bottom, ruling) for x, like in ((g_N, N), (g_D, D))), None, None)


def _to_operand(gradient: Tensor, operand: Tensor, bottom: Tensor, ruling: Any) -> Tensor:
    """Bring a gradient to its operand's shape and dtype; ⊥ entries go first, the bound acts on the sum."""
    if not operand.is_complex() and gradient.is_complex():
        gradient = gradient.real
    gradient = gradient.to(operand.dtype)
    if gradient.shape == operand.shape:
        return submit(gradient, bottom, ruling)
    gradient = torch.where(shielded(ruling, bottom), 0, gradient).sum_to_size(operand.shape)
    return submit(gradient, torch.zeros((), dtype=torch.bool, device=gradient.device), ruling)


def divide(N: Tensor, D: Tensor, bottom: Tensor, fixed: int = -1) -> tuple[Tensor, Tensor]:
    """Divide where `bottom` is false; the policy acts on dL/dN and dL/dD.

    Formula: value = N / D, nan at ⊥. A quotient that overflows is ⊥ too.

    Args:
        N: Numerators.
        D: Denominators, broadcastable with N.
        bottom: True where the answer is ⊥ whatever N / D gives; must hold wherever D is 0 or an operand
            is not finite. It has the broadcast shape.
        fixed: Policy code of a layer, -1 to follow the context while backward runs.

    Returns:
        (value, bottom) in the broadcast shape.
    """
    if gating(N, D):
        return _Divide.apply(N, D, bottom, fixed)  # pyright: ignore[reportReturnType]
    return _divided(N, D, bottom)
