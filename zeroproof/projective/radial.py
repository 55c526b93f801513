"""The radial part of a gradient: what would change the size of a tuple, which carries no value."""

import math
from typing import Any

import torch
from torch import Tensor

from zeroproof.autodiff.eager import ordinary
from zeroproof.autodiff.gate import gating, rule
from zeroproof.autodiff.torch_internals import is_forward_mode, is_transforming, learns_alone
from zeroproof.projective.angle import squared
from zeroproof.projective.gauge import least_square

__all__ = ["tangential"]


def _without_radial(N: Tensor, D: Tensor, g_N: Tensor, g_D: Tensor) -> tuple[Tensor, Tensor]:
    """Return g - Re⟨g, z⟩ z / |z|², z = (N, D) of a row whose outputs share D, else of an output.

    z comes at unit size, so that its square stays in the range. A z that is 0 or not finite has no
    direction; there g stays.
    """
    shared = N.shape != D.shape

    def summed(x: Tensor) -> Tensor:
        return x.sum(-1, keepdim=True) if shared else x

    if ordinary(N, D, g_N, g_D) and N.numel():  # fewer steps, where squares stay in the range
        size = summed(N * N) + D * D
        along = (summed(g_N * N) + g_D * D) / size
        (low, high), (least, most) = size.aminmax(), along.aminmax()
        inside = low.item() >= least_square(N.dtype) and high.item() < math.inf
        if inside and (most - least).item() < math.inf:
            return g_N.addcmul(along, N, value=-1), g_D.addcmul(along, D, value=-1)
    n = N.abs().amax(-1, keepdim=True) if shared else N.abs()
    m = torch.maximum(n, D.abs())
    usable = (m > 0) & (m < math.inf)
    m = torch.where(usable, m, 1)
    n, d = torch.where(usable, N / m, 0), torch.where(usable, D / m, 0)
    size = torch.where(usable, summed(squared(n)) + squared(d), 1)
    along = (summed(_dot(g_N, n)) + _dot(g_D, d)) / size
    along = torch.where(along.abs() < math.inf, along, 0)  # a g that is not finite stays, too
    return g_N - along * n, g_D - along * d


def _dot(g: Tensor, z: Tensor) -> Tensor:
    return (g * z.conj()).real if g.is_complex() else g * z


class _Tangential(torch.autograd.Function):
    """Identity whose gradient has no part along (N, D)."""

    generate_vmap_rule = True

    @staticmethod
    def forward(N: Tensor, D: Tensor, fixed: int) -> tuple[Tensor, Tensor]:
        return N.view_as(N), D.view_as(D)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        N, D, ctx.fixed = inputs
        ctx.recorded = False
        ctx.save_for_backward(N, D)

    @staticmethod
    def backward(ctx: Any, g_N: Tensor, g_D: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        # A gradient that is recorded is a value (a force, a residual), and so is what is
        # differentiated through it: both stay whole. A graph and `torch.func` record always.
        if not torch.compiler.is_compiling() and torch.is_grad_enabled() and not is_transforming():
            ctx.recorded = True
        if ctx.recorded:
            return g_N, g_D, None
        masked = rule(g_N, ctx.fixed).masked  # false under PASSTHROUGH, which is raw
        if masked is False:
            return g_N, g_D, None
        N, D = ctx.saved_tensors
        found = _without_radial(N, D, g_N, g_D)
        if isinstance(masked, Tensor):
            found = [torch.where(masked, x, g) for x, g in zip(found, (g_N, g_D), strict=True)]
        return *found, None


class _TangentialNow(torch.autograd.Function):
    """The same in eager mode; without `setup_context`, for which torch inspects every call."""

    @staticmethod
    def forward(ctx: Any, N: Tensor, D: Tensor, fixed: int) -> tuple[Tensor, Tensor]:
        _Tangential.setup_context(ctx, (N, D, fixed), (N, D))
        return _Tangential.forward(N, D, fixed)

    backward = staticmethod(_Tangential.backward)  # pyright: ignore[reportAssignmentType]


def tangential(N: Tensor, D: Tensor, fixed: int, parameter: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return (N, D) unchanged; backward takes the part along (N, D) out of their gradient.

    Args:
        N: Numerators, `(*batch, k)`, real or complex.
        D: Denominators, the same shape or `(*batch, 1)`.
        fixed: Policy code of a layer, -1 to follow the context; PASSTHROUGH is raw.
        parameter: One that N and D depend on: `torch.func` shall take one gradient by it.
    """
    if is_forward_mode() or not gating(N, D):
        return N, D
    if ordinary(N, D):
        return _TangentialNow.apply(N, D, fixed)
    return _Tangential.apply(N, D, fixed) if learns_alone(parameter) else (N, D)
