"""Which entries of a loss count, how much, and how they become one number.

A row is one index of the leading batch dimensions: all k outputs of `(*batch, k)`, one element of
`(n,)`. A row with a number that is not finite counts as nothing, so that it spoils neither a mean
nor a gradient.
"""

import math
from typing import NamedTuple, TypedDict

import torch
from torch import Tensor

from zeroproof._checks import one_of
from zeroproof.errors import RangeError, ShapeError

__all__ = [
    "REDUCTIONS",
    "Counting",
    "Parts",
    "Terms",
    "belongs",
    "checked_mask",
    "finite_rows",
    "mean",
    "mixed_rows",
    "parts",
    "reduced",
    "weighted",
]

REDUCTIONS = ("mean", "sum", "none")


class Counting(TypedDict, total=False):
    """What every loss of tuples takes by keyword, beside its own options."""

    weight: Tensor | None
    mask: Tensor | None
    reduction: str


class Terms(NamedTuple):
    """Losses entry by entry, finite everywhere, and their weights: 0 where one does not count.

    Weights may be of a wider type: a number such as 1e-60 would be 0 in that of the losses.
    """

    values: Tensor
    weights: Tensor


class Parts(NamedTuple):
    """Sum and summed weight of a loss.

    Parts of several batches or ranks add up; the sum divided by the weight is their true mean.
    """

    total: Tensor
    weight: Tensor


def finite_rows(*tensors: Tensor) -> Tensor:
    """Tell which rows are finite in every tensor: `(*batch, 1)`, or `(n,)` for vectors."""
    finite = tensors[0].detach().abs() < math.inf  # false for nan
    for x in tensors[1:]:
        finite = finite & (x.detach().abs() < math.inf)
    return finite.all(-1, keepdim=True) if finite.ndim > 1 else finite


def mixed_rows(Y_d: Tensor, D: Tensor, weight: Tensor | None = None) -> Tensor:
    """Tell which rows, `(*batch,)`, ask one shared denominator to be 0 and not to be 0.

    Such a row has finite and singular targets, Y_d `(*batch, k)`, for one D, `(*batch, 1)`; it
    needs `shared_denominator=False`. A label whose weight is not above 0 asks for nothing.

    Examples:
        >>> Y_d = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
        >>> mixed_rows(Y_d, torch.ones(3, 1))
        tensor([ True, False, False])
    """
    if D.shape == Y_d.shape:
        return torch.zeros(Y_d.shape[:-1], dtype=torch.bool, device=Y_d.device)
    counts = torch.ones_like(Y_d, dtype=torch.bool) if weight is None else weight > 0
    return ((Y_d == 0) & counts).any(-1) & ((Y_d != 0) & counts).any(-1)


def weighted(
    values: Tensor, counts: Tensor, weight: Tensor | None = None, mask: Tensor | None = None
) -> Terms:
    """Join losses with the weights of the entries that count.

    Raises:
        ShapeError: A weight or mask has neither the shape of the values nor one entry per row.
        RangeError: A mask is not boolean, or a weight is complex.
    """
    if mask is not None:
        counts = counts & checked_mask(mask, values)
    if weight is None:
        return Terms(values, counts.expand(values.shape).to(values.dtype))
    _fits(weight, values, "weight")
    if weight.is_complex():
        raise RangeError(f"weight must be real, got {weight.dtype}")
    weight = weight.to(torch.promote_types(weight.dtype, values.dtype))
    counts = counts & torch.isfinite(weight) & (weight >= 0)
    return Terms(values, torch.where(counts, weight, 0).expand(values.shape))


def checked_mask(mask: Tensor, values: Tensor) -> Tensor:
    """Return a mask that belongs to losses.

    Raises:
        ShapeError: It has neither their shape nor one entry per row.
        RangeError: It is not boolean.
    """
    _fits(mask, values, "mask")
    if mask.dtype != torch.bool:
        raise RangeError(f"mask must be boolean, True where an entry counts, got {mask.dtype}")
    return mask


def belongs(x: Tensor, values: Tensor) -> bool:
    """Tell whether a tensor has the shape of losses, or one entry per row."""
    # number by number: the compiler takes a size it knows and one it does not for different shapes
    sizes = list(zip(x.shape, values.shape, strict=False))
    alike = x.ndim == values.ndim and all(p == q for p, q in sizes[:-1])
    return alike and all(p == q or (p == 1 and x.ndim > 1) for p, q in sizes[-1:])


def _fits(x: Tensor, values: Tensor, name: str) -> None:
    if not belongs(x, values):
        rows = (*values.shape[:-1], 1) if values.ndim > 1 else values.shape
        raise ShapeError(
            f"{name} must have the shape of the loss, {tuple(values.shape)}, or one entry per row, "
            f"{tuple(rows)}, got {tuple(x.shape)}"
        )


def mean(terms: Terms) -> Tensor:
    """Return Σ w·l / Σ w; a 0 that is still connected to the graph where nothing counts."""
    values, weights = terms
    if not weights.numel():
        return (values * weights).sum().to(values.dtype)
    # by the largest first: a sum of large weights may overflow, and one of small ones underflow
    largest = weights.detach().amax()
    weights = weights / torch.where(largest > 0, largest, 1)
    total = weights.sum()
    # shares first: a sum of large losses may overflow where their mean does not
    shares = weights / torch.where(total > 0, total, 1)
    return (values * shares.to(values.dtype)).sum()


def parts(terms: Terms) -> Parts:
    """Return Σ w·l and Σ w, for means over several batches or ranks."""
    return Parts((terms.values * terms.weights).sum(), terms.weights.sum())


def reduced(
    values: Tensor,
    counts: Tensor,
    *,
    weight: Tensor | None = None,
    mask: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Reduce losses as `torch.nn` names it; `"none"` keeps the shape, 0 where one does not count.

    Raises:
        ShapeError: A weight or mask of another shape.
        RangeError: An unknown reduction, a mask that is not boolean, or a complex weight.
    """
    one_of(reduction, REDUCTIONS, "reduction")
    terms = weighted(values, counts, weight, mask)
    if reduction == "mean":
        return mean(terms)
    losses = (terms.values * terms.weights).to(values.dtype)
    return losses.sum() if reduction == "sum" else losses
