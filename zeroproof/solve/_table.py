"""The rows a one-dimensional fit may use, checked once."""

from typing import NamedTuple

import torch
from torch import Tensor

from zeroproof._checks import whole
from zeroproof.errors import DataError, RangeError, ShapeError


class Table(NamedTuple):
    """Finite rows in float64 or complex128, sorted by nothing."""

    x: Tensor  # (n,)
    y: Tensor  # (n,) or (n, m)
    weight: Tensor  # (n,)
    domain: tuple[float, float]


def checked_table(x: Tensor, y: Tensor, weight: Tensor | None = None) -> Table:
    """Return the rows whose target is finite, in double precision.

    Raises:
        ShapeError: x is not `(n,)`, or y or weight do not have n rows.
        DataError: x is not finite or constant, every target is ⊥, or a weight is negative.
    """
    if x.ndim != 1 or y.ndim not in {1, 2} or len(y) != len(x):
        raise ShapeError(
            f"x must be (n,) and y (n,) or (n, m), got {tuple(x.shape)} and {tuple(y.shape)}"
        )
    x, y, weight = double(x.detach()), double(y.detach()), checked_weight(weight, len(x))
    wrong = (~torch.isfinite(x)).nonzero().flatten().tolist()
    if wrong:
        raise DataError(f"x must be finite, got {x[wrong[0]].item()} in {_listed(wrong)}")
    kept = finite_rows(y) & (weight > 0)
    x, y, weight = x[kept], y[kept], weight[kept]
    low, high = float(x.real.min()), float(x.real.max())
    if low == high:
        raise DataError(f"x must not be constant, got {low:g} in every row with a finite target")
    return Table(x, y, weight, (low, high))


def checked_weight(weight: Tensor | None, rows: int) -> Tensor:
    """Return the row weights, all 1 without any.

    Raises:
        ShapeError: There is not one for every row.
        DataError: One is negative or not finite.
    """
    if weight is None:
        return torch.ones(rows, dtype=torch.float64)
    if weight.shape != (rows,):
        raise ShapeError(f"weight must be ({rows},), one per row, got {tuple(weight.shape)}")
    if not bool((torch.isfinite(weight) & (weight >= 0)).all()):
        raise DataError(f"weight must be finite and at least 0, got {weight.min().item():g}")
    return weight.detach().to(torch.float64)


def finite_rows(y: Tensor) -> Tensor:
    """Return the mask of the rows of y that are finite throughout.

    Raises:
        DataError: There is none.
    """
    finite = torch.isfinite(y)
    kept = finite if y.ndim == 1 else finite.all(1)
    if not bool(kept.any()):
        raise DataError(f"at least one target must be finite, got {len(y)} rows of ⊥")
    return kept


def checked_degrees(degrees: tuple[int, int], x: Tensor) -> tuple[int, int]:
    """Return (p, q) if the rows can tell p + q + 1 unknowns.

    Raises:
        RangeError: They cannot.
    """
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


def _listed(rows: list[int]) -> str:
    shown = ", ".join(str(row) for row in rows[:5])
    rest = f" and {len(rows) - 5} more" if len(rows) > 5 else ""
    return f"row{'s' * (len(rows) > 1)} {shown}{rest}"
