"""Measures of strict answers: sums and counts that add up over batches, and the values they make.

They decide nothing: masks and tuples come in, as `zeroproof.inference` gives them.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from zeroproof._checks import one_of, pair_shapes, positive, same_shape, widen
from zeroproof.errors import RangeError

__all__ = [
    "ERRORS",
    "TOPOLOGIES",
    "Risk",
    "Share",
    "coverage_share",
    "gap_share",
    "mean_risk",
    "rate",
    "selective_risk",
    "sign_share",
]

TOPOLOGIES = ("affine", "projective")
ERRORS = ("squared", "absolute", "relative")

# --- how many answers are finite, and how many of them are risky ----------------------------------


class Share(NamedTuple):
    """So many of so many; shares of several batches or ranks add up field by field.

    Attributes:
        hits: Entries that have the property, a whole number `()`.
        entries: Entries that could have it, a whole number `()`.
    """

    hits: Tensor
    entries: Tensor


def rate(share: Share) -> Tensor:
    """Return hits / entries, a scalar `()` in [0, 1]; nan where nothing was counted.

    Examples:
        >>> rate(coverage_share(torch.tensor([False, False, False, True])))
        tensor(0.7500)
    """
    return share.hits / share.entries


def coverage_share(bottom_mask: Tensor) -> Share:
    """Count the finite answers among all.

    Args:
        bottom_mask: True at ⊥, boolean of any shape; `strict_inference` gives one.

    Returns:
        Finite answers of all answers, whole numbers on the device of the mask.
    """
    return _share(~bottom_mask)


def gap_share(gap_mask: Tensor) -> Share:
    """Count the risky answers among all, ⊥ included: coverage minus this is the share of the safe.

    Args:
        gap_mask: True where an answer is finite but risky, boolean of any shape.

    Returns:
        Answers in the gap of all answers, whole numbers on the device of the mask.

    Examples:
        >>> gap_share(torch.tensor([[False, True]]))
        Share(hits=tensor(1), entries=tensor(2))
    """
    return _share(gap_mask)


def _share(mask: Tensor) -> Share:
    # a tensor, not an int, so that shares can be reduced over ranks; nothing is read by the host
    return Share(mask.sum(), mask.new_full((), mask.numel(), dtype=torch.long))


# --- on which side of a pole a tuple lies ---------------------------------------------------------


def sign_share(
    N: Tensor, D: Tensor, y: Tensor, *, bound: float = math.inf, topology: str = "affine"
) -> Share:
    r"""Count the tuples that lie on the side of their target, among targets at or near a pole.

    A target counts where \|y\| ≥ `bound`; nan, whose sign is unknown, never does.

    - `"affine"`: +∞ = ⟨1, 0⟩ and -∞ = ⟨-1, 0⟩ are two points, and the side of ⟨N, D⟩ is the sign of
      N: what `sign_consistency_loss` teaches. The sign of D, which is rounding at a pole, says
      nothing.
    - `"projective"`: ⟨N, D⟩ and ⟨-N, -D⟩ are one value and there is one ∞ without sides, so targets
      of ±inf do not count. The side is the sign of N / D, judged on finite targets beyond `bound`.

    A tuple without a side (N = 0, or D = 0 in the projective topology, or a number that is not
    finite) is on the wrong one. Whether the answer would decode to ⊥ plays no part.

    Args:
        N: Numerators, `(*batch, k)`, real.
        D: Denominators, the same shape or `(*batch, 1)`.
        y: Targets, the shape of N; not lifted.
        bound: Above 0, in the units of y; infinite for the targets ±inf alone.
        topology: `"affine"` or `"projective"`.

    Returns:
        Right sides of targets that count.

    Raises:
        ShapeError: The shapes do not belong together.
        RangeError: An option is not legal, a tensor is complex (there are no two sides), or `bound`
            is infinite in the projective topology, where nothing would count.

    Examples:
        >>> N, D = torch.tensor([1.0, 1.0, 1.0]), torch.tensor([-1e-9, 0.0, 1.0])
        >>> sign_share(N, D, torch.tensor([torch.inf, -torch.inf, 5.0]))
        Share(hits=tensor(1), entries=tensor(2))
    """
    one_of(topology, TOPOLOGIES, "topology")
    if bound != math.inf:
        positive(bound, "bound")
    elif topology == "projective":
        raise RangeError(
            "bound must be finite in the projective topology, whose one ∞ has no sides, got inf"
        )
    pair_shapes(N, D)
    same_shape(y, N, "y", "N")
    if any(x.is_complex() for x in (N, D, y)):
        raise RangeError("N, D and y must be real: a complex pole has no two sides")
    N, D, y = widen(N), widen(D), widen(y)
    counts = y.abs() >= bound
    side = N.sign() * y.sign()
    if topology == "projective":
        counts = counts & torch.isfinite(y)
        side = side * D.sign()
    right = (side > 0) & torch.isfinite(N) & torch.isfinite(D)
    return Share((counts & right).sum(), counts.sum())


# --- the error of the answers that were given, and how many were given ----------------------------


class Risk(NamedTuple):
    """Sum and counts; those of several batches or ranks add up field by field.

    Attributes:
        total: Sum of the errors of the accepted entries, `()`.
        accepted: Entries in that sum, a whole number `()`.
        measurable: Entries whose target has an error to measure, a whole number `()`.
    """

    total: Tensor
    accepted: Tensor
    measurable: Tensor


def selective_risk(decoded: Tensor, y: Tensor, accepted: Tensor, *, error: str = "squared") -> Risk:
    r"""Sum the errors of accepted answers with finite targets.

    Formula: Σ e over accepted entries with finite y; e is \|ŷ - y\|² (`"squared"`), \|ŷ - y\|
    (`"absolute"`) or \|ŷ - y\| / \|y\| (`"relative"`, where y = 0 does not count). A target that is
    ±inf or nan never counts, and neither does what `decoded` holds where nothing was accepted.

    Args:
        decoded: Answers ŷ, `(*batch, k)`, real or complex, finite where accepted.
        y: Targets, the same shape and units.
        accepted: Boolean, the same shape: `~bottom_mask`, or `~(bottom_mask | gap_mask)`.
        error: `"squared"`, `"absolute"` or `"relative"`.

    Returns:
        A `Risk`; its total is 0 where nothing was accepted.

    Raises:
        ShapeError: The shapes differ.
        RangeError: `error` is none of the three.

    Examples:
        >>> decoded, y = torch.tensor([[3.0, torch.nan, 9.0], [1.0, 2.0, torch.inf]])
        >>> selective_risk(decoded, y, accepted=torch.tensor([True, False, True]))
        Risk(total=tensor(4.), accepted=tensor(1), measurable=tensor(2))
    """
    one_of(error, ERRORS, "error")
    same_shape(y, decoded, "y", "decoded")
    same_shape(accepted, decoded, "accepted", "decoded")
    decoded, y = widen(decoded), widen(y)
    measurable = torch.isfinite(y)
    if error == "relative":
        measurable = measurable & (y != 0)
    counts = accepted & measurable
    # where nothing counts, 1 - 1: nan times 0 would stay nan
    y = torch.where(counts, y, 1)
    errors = (torch.where(counts, decoded, 1) - y).abs()
    if error == "squared":
        errors = errors.square()
    elif error == "relative":
        errors = errors / y.abs()
    return Risk(errors.sum(), counts.sum(), measurable.sum())


def mean_risk(risk: Risk) -> tuple[Tensor, Tensor]:
    """Return (mean error of the accepted entries, share of the measurable entries accepted).

    Each is a scalar `()`, and nan where nothing was counted for it: no accepted entry has no mean
    error, which is not an error of 0.

    Examples:
        >>> mean_risk(Risk(torch.tensor(6.0), torch.tensor(2), torch.tensor(4)))
        (tensor(3.), tensor(0.5000))
    """
    return risk.total / risk.accepted, risk.accepted / risk.measurable
