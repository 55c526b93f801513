"""Decoding: from a tuple back to a value, or to ⊥ where the denominator says so.

What `torch.jit.script` compiles equals it bit by bit: that compiler takes no keyword options, dicts
of dtypes, contexts or autograd functions, so the few formulas stand here again, plain.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from zeroproof._checks import one_of, pair_shapes, positive, threshold, widen
from zeroproof.autodiff.compiled import compiling, either, finite
from zeroproof.defaults import TAU_INFER
from zeroproof.projective.angle import SCORES, denominator_score
from zeroproof.scm.division import divide, quotients

__all__ = [
    "Thresholds",
    "decode",
    "decode_scored",
    "decode_within",
    "scripted_decode",
    "scripted_score",
    "scripted_widen",
]


class Thresholds(NamedTuple):
    """Where an answer is ⊥ and where it is risky, checked already."""

    score: str
    scale: float
    bottom: float
    gap: float | None = None  # None: nobody asks


def decode_scored(
    N: Tensor, D: Tensor, score: Tensor, tau: float, fixed: int = -1
) -> tuple[Tensor, Tensor]:
    """Return (value, bottom) for scores already computed; N and D in at least float32."""
    # comparing so that a nan score is ⊥
    bottom = ~(score >= tau) | ~torch.isfinite(N) | ~torch.isfinite(D)
    return divide(N, D, bottom, fixed)


def decode_within(
    N: Tensor, D: Tensor, thresholds: Thresholds, bottom: Tensor | None = None, fixed: int = -1
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return (value, bottom, gap) of tuples in at least float32; what `bottom` marks is ⊥ too."""
    limits = _limits(thresholds, N.dtype)
    if limits is not None:
        known = None if bottom is None else bottom.expand(N.shape)
        found = quotients(N, D, known, *limits, fixed)
        if found is not None:
            return found
    # thresholds have no gradient, so the score needs no graph
    score = denominator_score(N.detach(), D.detach(), thresholds.score, thresholds.scale)
    if bottom is not None:
        score = torch.where(bottom, 0, score)
    if compiling() and thresholds.gap is not None and not (N.is_complex() or D.is_complex()):
        return _compiled(N, D, score, thresholds.bottom, thresholds.gap, fixed)
    value, bottom = decode_scored(N, D, score, thresholds.bottom, fixed)
    gap = None if thresholds.gap is None else (score < thresholds.gap) & ~bottom
    return value, bottom, gap


def _compiled(
    N: Tensor, D: Tensor, score: Tensor, tau_infer: float, tau_train: float, fixed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the same for real tuples in one loop, whose masks follow from the decoded value."""
    from zeroproof.autodiff.masks import as_two_masks

    # a quotient of anything else that is not finite, or by 0, is not finite itself
    value, _ = divide(N, D, either(~(score >= tau_infer), ~finite(D)), fixed)
    sound = finite(value.detach())
    flags = torch.where(sound, torch.where(score < tau_train, 2.0, 0.0), 1.0).to(torch.uint8)
    return value, *as_two_masks(flags)


def _limits(
    thresholds: Thresholds, dtype: torch.dtype
) -> tuple[tuple[float, float], tuple[float, float] | None] | None:
    r"""Return what is not ⊥ and what is not in the gap, as the least \|D\| and largest \|N / D\|.

    `None` where rounding would move the thresholds.
    """
    score, scale, bottom, gap = thresholds
    if score == "denominator":
        return (bottom, math.inf), None if gap is None else (gap, math.inf)
    # σ = 1 / √(1 + |y / s|²) falls with |y|, but hardly does next to 1
    if max(bottom, gap or 0) > 0.5 or scale < torch.finfo(dtype).tiny / torch.finfo(dtype).eps:
        return None
    return (0.0, _most(bottom, scale)), None if gap is None else (0.0, _most(gap, scale))


def _most(tau: float, scale: float) -> float:
    r"""Return \|y\| where the angle score is τ."""
    return scale * math.sqrt((1 - tau) * (1 + tau)) / tau


def decode(
    N: Tensor,
    D: Tensor,
    tau_infer: float = TAU_INFER.value,
    *,
    score: str = "denominator",
    scale: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Decode tuples: φ⁻¹(N, D) = N / D where the score reaches τ, ⊥ elsewhere.

    The gradient policy acts on dL/dN and dL/dD while backward runs.

    Args:
        N: Numerators, `(*batch, k)`, real or complex.
        D: Denominators, the same shape or `(*batch, 1)`.
        tau_infer: τ, above 0.
        score: `"denominator"` compares the modulus of D with τ, `"angle"` the gauge-free score.
        scale: Scale of the targets for `"angle"`, in the units of y.

    Returns:
        (value, bottom), both in the shape of N; the value is nan at ⊥. Non-finite N or D, D = 0
        and a quotient that overflows are ⊥. `SCM(*decode(N, D))` makes it a meadow value.

    Raises:
        ShapeError: The shapes do not belong together.
        RangeError: τ, score or scale is not legal.

    Examples:
        >>> decode(torch.tensor([1.0, 1.0]), torch.tensor([4.0, 0.0]))
        (tensor([0.2500,    nan]), tensor([False,  True]))
    """
    threshold(tau_infer, TAU_INFER, score)
    one_of(score, SCORES, "score")
    positive(scale, "scale")
    pair_shapes(N, D)
    thresholds = Thresholds(score, scale, tau_infer)
    value, bottom, _ = decode_within(widen(N), widen(D), thresholds)
    return value, bottom


# --- for torch.jit.script -------------------------------------------------------------------------


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
