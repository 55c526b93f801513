"""Decoding in the part of Python that `torch.jit.script` compiles; it equals `decode` bit by bit.

The script compiler takes no keyword options, dicts of dtypes, contexts or autograd functions, so
the few formulas stand here again, plain, without gates and checks.
"""

import math

import torch
from torch import Tensor

__all__ = ["scripted_decode", "scripted_score", "scripted_widen"]


def scripted_widen(x: Tensor) -> Tensor:
    """Return `x` in at least float32 (complex64); half precision and integers are converted."""
    if x.dtype == torch.float16 or x.dtype == torch.bfloat16:  # noqa: PLR1714 - no sets in scripts
        return x.to(torch.float32)
    if x.dtype == torch.complex32:
        return x.to(torch.complex64)
    if x.is_floating_point() or x.is_complex():
        return x
    return torch.true_divide(x, 1)  # in the default type, whose name no script can ask for


def _rescaled(N: Tensor, D: Tensor) -> tuple[Tensor, Tensor]:
    m = torch.maximum(N.abs(), D.abs())
    m = torch.where(m == 0, 1, m)
    return N / m, D / m


def _squared(x: Tensor) -> Tensor:
    if x.is_complex():
        return torch.real(x).square() + torch.imag(x).square()
    return x.square()


def scripted_score(N: Tensor, D: Tensor, angle: bool, scale: float) -> Tensor:
    """Return the `"angle"` or the `"denominator"` score in the shape of N, without a gradient."""
    N, D = N.detach(), D.detach()
    if not angle:
        return D.abs().expand(N.size())
    N, D = _rescaled(N, D)
    root = math.sqrt(scale)
    N, D = _rescaled(N / root, D * root)
    squares = _squared(N) + _squared(D)
    return D.abs() / torch.where(squares == 0, 1, squares).sqrt()


def scripted_decode(N: Tensor, D: Tensor, score: Tensor, tau: float) -> tuple[Tensor, Tensor]:
    """Return (value, bottom) for scores already computed; N and D in at least float32."""
    bottom = ~(score >= tau) | (D == 0) | ~torch.isfinite(N) | ~torch.isfinite(D)
    value = torch.where(bottom, 0, N) / torch.where(bottom, 1, D)
    bottom = bottom | ~torch.isfinite(value)  # an overflow must be safe to differentiate, too
    value = torch.where(bottom, 0, N) / torch.where(bottom, 1, D)
    return torch.where(bottom, math.nan, value), bottom
