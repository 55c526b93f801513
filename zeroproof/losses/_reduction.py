"""Which entries of a loss count, how much, and how they become one number.

A row is one index of the leading batch dimensions: all k outputs of `(*batch, k)`, one element of
`(n,)`. A row with a number that is not finite counts as nothing, so that it spoils neither a mean
nor a gradient.
"""

import math
from typing import NamedTuple, TypedDict

import torch
from torch import Tensor

from zeroproof._checks import one_of, pair_shapes, same_shape
from zeroproof.autodiff.gate import gate
from zeroproof.errors import RangeError, ShapeError
from zeroproof.projective.gauge import widen

__all__ = [
    "REDUCTIONS",
    "Counting",
    "Operands",
    "Parts",
    "Terms",
    "finite_rows",
    "mean",
    "operands",
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


class Operands(NamedTuple):
    """Tuples of a loss behind the policy gate, divided by their larger moduli m and Y_m.

    They are safe to compute with where a row does not count, too.
    """

    N: Tensor
    D: Tensor
    Y_n: Tensor
    Y_d: Tensor
    m: Tensor
    Y_m: Tensor
    rows: Tensor  # those that count
    origin: Tensor  # where either tuple is ⟨0, 0⟩
    finite: tuple[Tensor, Tensor, Tensor, Tensor]  # N, D, Y_n, Y_d before that division


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


def operands(N: Tensor, D: Tensor, Y_n: Tensor, Y_d: Tensor) -> Operands:
    """Check, widen and gate the tuples of a loss; rows that do not count become harmless ones.

    Raises:
        ShapeError: The shapes do not belong together; nothing is broadcast but a shared
            denominator.
    """
    pair_shapes(N, D)
    pair_shapes(Y_n, Y_d, "Y_n and Y_d")
    same_shape(Y_n, N, "Y_n", "N")
    N, D, Y_n, Y_d = widen(N), widen(D), widen(Y_n), widen(Y_d)
    m, Y_m = _larger(N, D), _larger(Y_n, Y_d)
    rows = finite_rows(m, Y_m)
    N, D = gate(N, D, (m == 0) | ~rows)
    m, Y_m = torch.where(rows, m, 1), torch.where(rows, Y_m, 1)
    origin = (m == 0) | (Y_m == 0)
    m, Y_m = m.masked_fill(m == 0, 1), Y_m.masked_fill(Y_m == 0, 1)
    # before any division: a `where` behind it would leak nan into gradients
    N, D, Y_n, Y_d = (torch.where(rows, x, 1) for x in (N, D, Y_n, Y_d))
    finite = (N, D, Y_n, Y_d)
    return Operands(N / m, D / m, Y_n / Y_m, Y_d / Y_m, m, Y_m, rows, origin, finite)


def _larger(N: Tensor, D: Tensor) -> Tensor:
    return torch.maximum(N.detach().abs(), D.detach().abs())


def weighted(
    values: Tensor, counts: Tensor, weight: Tensor | None = None, mask: Tensor | None = None
) -> Terms:
    """Join losses with the weights of the entries that count.

    Raises:
        ShapeError: A weight or mask has neither the shape of the values nor one entry per row.
        RangeError: A mask is not boolean, or a weight is complex.
    """
    if mask is not None:
        _fits(mask, values, "mask")
        if mask.dtype != torch.bool:
            raise RangeError(f"mask must be boolean, True where an entry counts, got {mask.dtype}")
        counts = counts & mask
    if weight is None:
        return Terms(values, counts.expand(values.shape).to(values.dtype))
    _fits(weight, values, "weight")
    if weight.is_complex():
        raise RangeError(f"weight must be real, got {weight.dtype}")
    weight = weight.to(torch.promote_types(weight.dtype, values.dtype))
    counts = counts & torch.isfinite(weight) & (weight >= 0)
    return Terms(values, torch.where(counts, weight, 0).expand(values.shape))


def _fits(x: Tensor, values: Tensor, name: str) -> None:
    rows = (*values.shape[:-1], 1) if values.ndim > 1 else values.shape
    if x.shape not in (values.shape, rows):
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
