r"""E / (S + γ) with the derivative of a quotient, which autograd cannot keep in the number range.

Where the loss is steep, the derivative by a tuple of unit size may be far beyond float32, while
that by N and D themselves is not. It is written out here, computed in float64, and bounded last.
"""

from typing import Any

import torch
from torch import Tensor

from zeroproof.autodiff.torch_internals import is_forward_mode
from zeroproof.projective.angle import cross, squared

__all__ = ["attached_quotient"]


def attached_quotient(
    N: Tensor, D: Tensor, Y_n: Tensor, Y_d: Tensor, m: Tensor, Y_m: Tensor, root_gamma: float
) -> Tensor:
    r"""Return E / (S + γ) of finite tuples; m and Y_m are their sizes, above 0, and constants.

    Formula: E = \|N·Y_d - D·Y_n\|², S = \|D\|²\|Y_d\|² + \|N\|²\|Y_n\|². Values beyond the number
    range saturate at a quarter of its end, derivatives at its end.
    """
    function = _ForwardQuotient if is_forward_mode() else _Quotient
    return function.apply(N, D, Y_n, Y_d, m, Y_m, root_gamma)


class _Quotient(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(
        N: Tensor, D: Tensor, Y_n: Tensor, Y_d: Tensor, m: Tensor, Y_m: Tensor, root_gamma: float
    ) -> Tensor:
        n, d, y_n, y_d, _, size = _scaled(N, D, Y_n, Y_d, m, Y_m, root_gamma)
        values = squared(cross(n, d, y_n, y_d) / size)
        return values.clamp_max(torch.finfo(m.dtype).max / 4).to(m.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        *tensors, ctx.root_gamma = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        N, D, Y_n, Y_d, m, Y_m = ctx.saved_tensors
        n, d, y_n, y_d, root, size = _scaled(N, D, Y_n, Y_d, m, Y_m, ctx.root_gamma)
        g = g.to(size.dtype)
        # E and S are the same with the two tuples exchanged
        slopes = _slopes(n, d, y_n, y_d, root, size) + _slopes(y_n, y_d, n, d, root, size)
        units = (m, m, Y_m, Y_m)
        gradients = [
            _bounded(g * slope, unit.to(size.dtype), size, x) if needed else None
            for slope, unit, x, needed in zip(
                slopes, units, (N, D, Y_n, Y_d), ctx.needs_input_grad[:4], strict=True
            )
        ]
        return (*gradients, None, None, None)


class _ForwardQuotient(_Quotient):
    """The same where derivatives travel forward."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _Quotient.setup_context(ctx, inputs, output)
        ctx.save_for_forward(*inputs[:6])

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        N, D, Y_n, Y_d, m, Y_m = ctx.saved_tensors
        n, d, y_n, y_d, root, size = _scaled(N, D, Y_n, Y_d, m, Y_m, ctx.root_gamma)
        slopes = _slopes(n, d, y_n, y_d, root, size) + _slopes(y_n, y_d, n, d, root, size)
        total = torch.zeros_like(size)
        for slope, unit, t in zip(slopes, (m, m, Y_m, Y_m), tangents, strict=False):
            if t is not None:
                along = slope.conj() * t
                total = total + (along.real if along.is_complex() else along) / size / unit / size
        limit = torch.finfo(m.dtype).max
        return total.clamp(-limit, limit).to(m.dtype)


def _scaled(
    N: Tensor, D: Tensor, Y_n: Tensor, Y_d: Tensor, m: Tensor, Y_m: Tensor, root_gamma: float
) -> tuple[Tensor, ...]:
    """Return both tuples at unit size, √γ in their units, and √(S + γ)."""
    # Apple's GPUs have no float64: there the range is that of float32
    wide = m.dtype if m.device.type == "mps" else torch.float64
    limits = torch.finfo(wide)
    m, Y_m = m.to(wide), Y_m.to(wide)
    n, d = _widest(N, wide) / m, _widest(D, wide) / m
    y_n, y_d = _widest(Y_n, wide) / Y_m, _widest(Y_d, wide) / Y_m
    root = (root_gamma / m / Y_m).clamp_max(limits.max**0.5 / 2)
    squares = squared(d) * squared(y_d) + squared(n) * squared(y_n) + root.square()
    return n, d, y_n, y_d, root, squares.clamp_min(4 * limits.tiny).sqrt()


def _widest(x: Tensor, wide: torch.dtype) -> Tensor:
    return x.to(wide.to_complex() if x.is_complex() else wide)


def _slopes(
    n: Tensor, d: Tensor, y_n: Tensor, y_d: Tensor, root: Tensor, size: Tensor
) -> tuple[Tensor, Tensor]:
    """Return size² times the derivatives by n and d, in a form in which little cancels."""
    difference = cross(n, d, y_n, y_d)
    a, b, rest = d * y_d / size, n * y_n / size, (root / size).square()
    common = (a * y_d.conj() * y_d.conj() + b * y_n.conj() * y_n.conj()) / size
    slope_n = 2 * difference * (d.conj() * common + y_d.conj() * rest)
    slope_d = -2 * difference * (n.conj() * common + y_n.conj() * rest)
    return slope_n, slope_d


def _bounded(slope: Tensor, unit: Tensor, size: Tensor, like: Tensor) -> Tensor:
    """Return slope / (size² · unit) in shape and type of `like`, inside the number range."""
    if slope.is_complex():
        real = _bounded(slope.real, unit, size, like.real)
        if not like.is_complex():
            return real
        return torch.complex(real, _bounded(slope.imag, unit, size, like.real))
    limit = torch.finfo(like.dtype).max
    # by real numbers above 0, one after the other: what overflows is infinite, never nan
    slope = (slope / size / unit / size).clamp(-limit, limit)
    if slope.shape != like.shape:  # a denominator shared by all outputs
        slope = slope.sum(-1, keepdim=True).clamp(-limit, limit)
    return slope.to(like.dtype)
