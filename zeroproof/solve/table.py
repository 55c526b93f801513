"""The rows of a table of one variable: those whose target is finite, in double precision."""

from typing import NamedTuple

import torch
from torch import Tensor

from zeroproof._checks import whole
from zeroproof.errors import DataError, RangeError, ShapeError
from zeroproof.solve.spectral import listed


class Table(NamedTuple):
    """Finite rows in float64 or complex128."""

    x: Tensor  # (n,)
    y: Tensor  # (n,) or (n, m)
    weight: Tensor  # (n,)
    domain: tuple[float, float]

    def at(self, rows: Tensor) -> "Table":
        """Return some of the rows, on the same domain."""
        return Table(self.x[rows], self.y[rows], self.weight[rows], self.domain)


def checked_table(x: Tensor, y: Tensor, weight: Tensor | None = None) -> Table:
    """Return the rows whose target is finite, in double precision."""
    if x.ndim != 1 or y.ndim not in {1, 2} or len(y) != len(x):
        raise ShapeError(
            f"x must be (n,) and y (n,) or (n, m), got {tuple(x.shape)} and {tuple(y.shape)}"
        )
    x, (kept, weight) = checked_points(x), counted(y, weight)
    return Table(x[kept], double(y[kept].detach()), weight, domain_of(x[kept]))


def checked_points(x: Tensor) -> Tensor:
    """Return x `(n,)`, finite, in double precision."""
    if x.ndim != 1:
        raise ShapeError(f"x must be (n,), got {tuple(x.shape)}")
    wrong = ~torch.isfinite(x)
    if bool(wrong.any()):
        raise DataError(f"x must be finite, got {x[wrong][0].item()} in {listed(wrong)}")
    return double(x.detach())


def domain_of(x: Tensor) -> tuple[float, float]:
    """Return (low, high) of points that are not all alike."""
    low, high = float(x.real.min()), float(x.real.max())
    if low == high:
        raise DataError(f"x must not be constant, got {low:g} in every row that counts")
    return low, high


def counted(y: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the mask of the rows that are finite and of weight above 0, and their weights."""
    if weight is None:
        weight = torch.ones(len(y), dtype=torch.float64)
    if weight.shape != (len(y),):
        raise ShapeError(f"weight must be ({len(y)},), one per row, got {tuple(weight.shape)}")
    if not bool((torch.isfinite(weight) & (weight >= 0)).all()):
        raise DataError(f"weight must be finite and at least 0, got {weight.min().item():g}")
    finite = torch.isfinite(y).reshape(len(y), -1).all(1)
    kept = finite & (weight > 0)
    if not bool(finite.any()):
        raise DataError(f"at least one target must be finite, got {len(y)} rows of ⊥")
    if not bool(kept.any()):
        raise DataError("a row with a finite target must have a weight above 0, got none")
    return kept, weight[kept].detach().to(torch.float64)


def checked_degrees(degrees: tuple[int, int], x: Tensor) -> tuple[int, int]:
    """Return (p, q) if the rows can tell p + q + 1 unknowns."""
    p, q = (whole(d, "degrees") for d in degrees)
    distinct = len(x.unique())
    if p + q + 1 > distinct:
        raise RangeError(
            f"degrees ({p}, {q}) have {p + q + 1} unknowns and must not exceed "
            f"the distinct finite rows, got {distinct}"
        )
    return p, q


def double(x: Tensor) -> Tensor:
    """Return x in float64, or complex128."""
    return x.to(torch.complex128 if x.is_complex() else torch.float64)
