"""Angles between tuples, and the denominator score that thresholds are compared with."""

import math

import torch
from torch import Tensor

from zeroproof._checks import one_of, pair_shapes, positive, same_shape, widen
from zeroproof.native import is_forward_mode, is_tracing
from zeroproof.projective.tuples import chunks, least_square, rescaled, squared
from zeroproof.scm.division import divisible

__all__ = [
    "SCORES",
    "chordal_distance",
    "cosine",
    "cross",
    "denominator_score",
    "misalignment",
    "norm",
]

SCORES = ("denominator", "angle")
_USUAL = (1e-15, 1e15)  # scales whose squares leave room in the number range of float32


def norm(N: Tensor, D: Tensor) -> Tensor:
    r"""Return √(\|N\|² + \|D\|²) of rescaled tuples, 1 (without a gradient) where both are 0."""
    squares = squared(N) + squared(D)
    return torch.where(squares == 0, 1, squares).sqrt()  # nan stays nan


def cross(N: Tensor, D: Tensor, Y_n: Tensor, Y_d: Tensor) -> Tensor:
    """Return N·Y_d - D·Y_n, 0 exactly where the two tuples stand for the same value."""
    return N * Y_d - D * Y_n


def cosine(N: Tensor, D: Tensor, Y_n: Tensor, Y_d: Tensor) -> Tensor:
    """Cosine of the angle between two tuples, in [-1, 1]; it tells +∞ from -∞.

    Formula: (N·Y_n + D·Y_d) / (‖(N, D)‖ ‖(Y_n, Y_d)‖). Complex tuples take the real part of the
    Hermitian product.

    Args:
        N: Numerators, `(*batch, k)`, real or complex.
        D: Denominators, the same shape or `(*batch, 1)`.
        Y_n: Numerators of the other tuple, the shape of N.
        Y_d: Denominators of the other tuple, the shape of N or `(*batch, 1)`.

    Returns:
        Cosines in the shape of N, in at least float32; 0 where a tuple is ⟨0, 0⟩ (it has no
        direction), nan where one is not finite.

    Raises:
        ShapeError: The shapes do not belong together.

    Examples:
        >>> one, zero = torch.tensor([1.0]), torch.tensor([0.0])
        >>> cosine(one, zero, -one, zero)  # +∞ and -∞
        tensor([-1.])
    """
    N, D, Y_n, Y_d = _of_unit_size(N, D, Y_n, Y_d)
    product = N * Y_n.conj() + D * Y_d.conj()
    if product.is_complex():
        product = product.real
    return (product / (norm(N, D) * norm(Y_n, Y_d))).clamp(-1, 1)


def misalignment(N: Tensor, D: Tensor, Y_n: Tensor, Y_d: Tensor) -> Tensor:
    """Return 1 - cosine, in [0, 2], with all its digits near 0.

    Formula: half the squared distance of the two unit vectors.

    Shapes, errors and the value 1 where a tuple is ⟨0, 0⟩ (without a gradient) follow `cosine`.
    """
    N, D, Y_n, Y_d = _of_unit_size(N, D, Y_n, Y_d)
    size, Y_size = norm(N, D), norm(Y_n, Y_d)
    turned = (squared(N / size - Y_n / Y_size) + squared(D / size - Y_d / Y_size)) / 2
    return torch.where(_no_direction(N, D, Y_n, Y_d), 1, turned)


def chordal_distance(N: Tensor, D: Tensor, Y_n: Tensor, Y_d: Tensor) -> Tensor:
    r"""Distance of two points of the projective line, in [0, 1]: \|sin\| of the tuples' angle.

    Formula: \|N·Y_d - D·Y_n\| / (‖(N, D)‖ ‖(Y_n, Y_d)‖). Free of both gauges; +∞ and -∞ are one
    point.

    Args:
        N: Numerators, `(*batch, k)`, real or complex.
        D: Denominators, the same shape or `(*batch, 1)`.
        Y_n: Numerators of the other tuple, the shape of N.
        Y_d: Denominators of the other tuple, the shape of N or `(*batch, 1)`.

    Returns:
        Distances in the shape of N; 1 where a tuple is ⟨0, 0⟩ (it is no point), nan where one is
        not finite.

    Raises:
        ShapeError: The shapes do not belong together.

    Examples:
        >>> one, zero = torch.tensor([1.0]), torch.tensor([0.0])
        >>> chordal_distance(one, zero, -one, zero)  # +∞ and -∞
        tensor([0.])
    """
    N, D, Y_n, Y_d = _of_unit_size(N, D, Y_n, Y_d)
    distance = cross(N, D, Y_n, Y_d).abs() / (norm(N, D) * norm(Y_n, Y_d))
    return torch.where(_no_direction(N, D, Y_n, Y_d), 1, distance.clamp(max=1))


def _of_unit_size(N: Tensor, D: Tensor, Y_n: Tensor, Y_d: Tensor) -> tuple[Tensor, ...]:
    pair_shapes(N, D)
    pair_shapes(Y_n, Y_d, "Y_n and Y_d")
    same_shape(Y_n, N, "Y_n", "N")
    return *rescaled(widen(N), widen(D))[:2], *rescaled(widen(Y_n), widen(Y_d))[:2]


def _no_direction(N: Tensor, D: Tensor, Y_n: Tensor, Y_d: Tensor) -> Tensor:
    return ((N == 0) & (D == 0)) | ((Y_n == 0) & (Y_d == 0))


def denominator_score(
    N: Tensor, D: Tensor, score: str = "denominator", scale: float = 1.0
) -> Tensor:
    r"""How far a tuple is from ⊥: the number that thresholds are compared with.

    Formula: `"denominator"`: \|D\|, as in the guide, which depends on the gauge. `"angle"`:
    \|D\| / √(\|N / s\|² + \|D\|²), free of gauge and units, in [0, 1]; it is 1 / √(1 + \|y / s\|²)
    for y = N / D.

    Args:
        N: Numerators, `(*batch, k)`, real or complex.
        D: Denominators, the same shape or `(*batch, 1)`.
        score: Which of the two.
        scale: s, the scale of the targets, in the units of y; used by `"angle"` alone.

    Returns:
        Scores in the shape of N, real; 0 at ⟨0, 0⟩. At D = 0 the derivative is that of D → 0+, so
        that a layer which is ⊥ everywhere can be led out of it.

    Raises:
        ShapeError: The shapes do not belong together.
        RangeError: An unknown score, or a scale that is not a finite number above 0.

    Examples:
        >>> denominator_score(torch.tensor([1.0, 1e-4]), torch.tensor([1e-3, 1e-7]), "angle")
        tensor([0.0010, 0.0010])
    """
    one_of(score, SCORES, "score")
    positive(scale, "scale")
    pair_shapes(N, D)
    N, D = widen(N), widen(D)
    if score == "denominator":
        return _modulus(D).expand(N.shape)
    if not _USUAL[0] <= scale <= _USUAL[1]:
        return _wide_angle(N, D, scale)
    wanted = torch.is_grad_enabled() and (N.requires_grad or D.requires_grad)
    return _angle(N, D, scale) if wanted or not divisible(N, D) else _angle_now(N, D, scale)


def _wide_angle(N: Tensor, D: Tensor, scale: float) -> Tensor:
    """The same in float64, where float32 holds neither s nor what a tuple of unit size loses."""
    if N.device.type == "mps":  # Apple's GPUs have no float64
        return _angle(N, D, scale)
    n, d = (x.to(torch.complex128 if x.is_complex() else torch.float64) for x in (N, D))
    return _angle(n, d, scale).to(torch.promote_types(N.real.dtype, D.real.dtype))


def _angle(N: Tensor, D: Tensor, scale: float) -> Tensor:
    N, D, _ = rescaled(N, D)
    root = math.sqrt(scale)  # shared between N and D: dividing N alone by s could overflow
    N, D, _ = rescaled(N / root, D * root)
    return _modulus(D) / norm(N, D)


def _angle_now(N: Tensor, D: Tensor, scale: float) -> Tensor:
    """The same chunk by chunk, in eager mode; rescaled only where squares would leave the range."""
    score = N.new_empty(N.shape)
    least = least_square(N.dtype)
    for n, d, out in chunks(N, D, score):
        torch.div(n, scale, out=out).square_().addcmul_(d, d)
        if out.amax().item() < math.inf and out.amin().item() >= least:
            torch.div(d, out.sqrt_(), out=out).abs_()
        else:
            out.copy_(_angle(n, d, scale))
    return score


def _modulus(D: Tensor) -> Tensor:
    recorded = torch.is_grad_enabled() and D.requires_grad
    # autograd's derivative of abs is 0 at 0; a trace shall not hang on who asked for gradients
    if recorded or is_forward_mode() or is_tracing():
        return torch.where(D == 0, D.real, D.abs())
    return D.abs()
