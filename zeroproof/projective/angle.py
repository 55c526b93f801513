"""Angles between tuples: cross product, cosine, chordal distance, and the gauge-free denominator score."""

import math

import torch
from torch import Tensor

from zeroproof._checks import one_of, pair_shapes, positive
from zeroproof.projective.gauge import rescaled, widen

__all__ = ["SCORES", "chordal_distance", "cosine", "cross", "denominator_score", "norm"]

SCORES = ("denominator", "angle")


def norm(N: Tensor, D: Tensor) -> Tensor:
    r"""Return √(\|N\|² + \|D\|²) of rescaled tuples, 1 where both are 0, where its gradient is 0."""
    squares = _square(N) + _square(D)
    return torch.where(squares == 0, 1, squares).sqrt()  # nan stays nan


def _square(x: Tensor) -> Tensor:
    return x.real.square() + x.imag.square() if x.is_complex() else x.square()


def cross(N: Tensor, D: Tensor, Y_n: Tensor, Y_d: Tensor) -> Tensor:
    """Return N·Y_d - D·Y_n, which is 0 exactly where the two tuples stand for the same value."""
    return N * Y_d - D * Y_n


def cosine(N: Tensor, D: Tensor, Y_n: Tensor, Y_d: Tensor) -> Tensor:
    """Return (N·Y_n + D·Y_d) / (‖(N, D)‖ ‖(Y_n, Y_d)‖), 0 where a tuple is ⟨0, 0⟩; it tells +∞ from -∞.

    Complex tuples take the real part of the Hermitian product. Half precision is computed in float32.
    """
    N, D, _ = rescaled(widen(N), widen(D))
    Y_n, Y_d, _ = rescaled(widen(Y_n), widen(Y_d))
    product = N * Y_n.conj() + D * Y_d.conj()
    if product.is_complex():
        product = product.real
    return product / (norm(N, D) * norm(Y_n, Y_d))


def chordal_distance(N: Tensor, D: Tensor, Y_n: Tensor, Y_d: Tensor) -> Tensor:
    r"""Distance between two points of the projective line, in [0, 1]: \|sin\| of the angle between tuples.

    Formula: \|N·Y_d - D·Y_n\| / (‖(N, D)‖ ‖(Y_n, Y_d)‖). Free of both gauges; +∞ and -∞ are one point.

    Args:
        N: Numerators, `(*batch, k)`, real or complex.
        D: Denominators, the same shape or `(*batch, 1)`.
        Y_n: Numerators of the other tuple, the shape of N.
        Y_d: Denominators of the other tuple, the shape of N or `(*batch, 1)`.

    Returns:
        Distances in the shape of N; 1 where a tuple is ⟨0, 0⟩ (it is no point), nan where one is not finite.

    Raises:
        ShapeError: The shapes do not belong together.

    Example:
        >>> one, zero = torch.tensor([1.0]), torch.tensor([0.0])
        >>> chordal_distance(one, zero, -one, zero)  # +∞ and -∞
        tensor([0.])
    """
    pair_shapes(N, D)
    pair_shapes(Y_n, Y_d, "Y_n and Y_d")
    N, D, _ = rescaled(widen(N), widen(D))
    Y_n, Y_d, _ = rescaled(widen(Y_n), widen(Y_d))
    origin = ((N == 0) & (D == 0)) | ((Y_n == 0) & (Y_d == 0))
    return torch.where(origin, 1, cross(N, D, Y_n, Y_d).abs() / (norm(N, D) * norm(Y_n, Y_d)))


def denominator_score(N: Tensor, D: Tensor, score: str = "denominator", scale: float = 1.0) -> Tensor:
    r"""How far a tuple is from ⊥: the number that thresholds are compared with.

    Formula: `"denominator"`: \|D\|, as in the guide, which depends on the gauge. `"angle"`:
    \|D\| / √(\|N / s\|² + \|D\|²), free of gauge and units, in [0, 1]; it is 1 / √(1 + \|y / s\|²) for y = N / D.

    Args:
        N: Numerators, `(*batch, k)`, real or complex.
        D: Denominators, the same shape or `(*batch, 1)`.
        score: Which of the two.
        scale: s, the scale of the targets, in the units of y; used by `"angle"` alone.

    Returns:
        Scores in the shape of N, real; 0 at ⟨0, 0⟩.

    Raises:
        ShapeError: The shapes do not belong together.
        RangeError: An unknown score, or a scale that is not a finite number above 0.
    """
    one_of(score, SCORES, "score")
    positive(scale, "scale")
    pair_shapes(N, D)
    N, D = widen(N), widen(D)
    if score == "denominator":
        return D.abs().expand(N.shape)
    root = math.sqrt(scale)  # shared between N and D: dividing N alone by s could overflow
    N, D, _ = rescaled(N / root, D * root)
    return D.abs() / norm(N, D)
