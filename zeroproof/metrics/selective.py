"""The error of the answers that were given, and how many were given."""

from typing import NamedTuple

import torch
from torch import Tensor

from zeroproof._checks import one_of, same_shape
from zeroproof.projective.gauge import widen

__all__ = ["ERRORS", "Risk", "mean_risk", "selective_risk"]

ERRORS = ("squared", "absolute", "relative")


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
