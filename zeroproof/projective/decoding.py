"""Decoding: from a tuple back to a value, or to ⊥ where the denominator says so."""

import torch
from torch import Tensor

from zeroproof._checks import threshold
from zeroproof.defaults import TAU_INFER
from zeroproof.projective.angle import denominator_score
from zeroproof.projective.gauge import widen
from zeroproof.scm.division import divide

__all__ = ["decode", "decode_scored"]


def decode_scored(
    N: Tensor, D: Tensor, score: Tensor, tau: float, fixed: int = -1
) -> tuple[Tensor, Tensor]:
    """Return (value, bottom) for scores already computed; N and D in at least float32."""
    # comparing so that a nan score is ⊥; D = 0 is ⊥ even where tau underflows
    bottom = ~(score >= tau) | (D == 0) | ~torch.isfinite(N) | ~torch.isfinite(D)
    return divide(N, D, bottom, fixed)


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
    N, D = widen(N), widen(D)
    return decode_scored(N, D, denominator_score(N, D, score, scale), tau_infer)
