"""What a stream reads at a time, and its rows as checked numbers."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zeroproof._extras import require
from zeroproof.errors import DataError

__all__ = ["Columns", "Part", "Unit", "changed", "check_once", "matrix"]


class Columns(NamedTuple):
    """The columns of a stream and the dtype they get."""

    features: tuple[str, ...]
    targets: tuple[str, ...]
    dtype: torch.dtype

    @property
    def names(self) -> list[str]:
        """Features, then targets, as in a matrix of rows."""
        return [*self.features, *self.targets]


class Unit(NamedTuple):
    """A stretch [start, stop) of a file: rows of a Parquet row group, or bytes of a CSV file."""

    path: Path
    group: int  # which row group; 0 in CSV
    start: int
    stop: int

    @property
    def in_rows(self) -> bool:
        """Whether start and stop count rows; bytes otherwise."""
        return self.path.suffix.lower() == ".parquet"


class Part(NamedTuple):
    """The share [start, stop) of a unit that one reader takes, in the measure of the unit."""

    unit: Unit
    start: int
    stop: int


def check_once(path: Path, name: str, names: Sequence[str]) -> None:
    """Check that a file has a column, and not twice.

    Raises:
        DataError: It has not.
    """
    if name not in names:
        raise DataError(f"{path} must have a column {name!r}, got {', '.join(map(repr, names))}")
    if names.count(name) > 1:
        raise DataError(f"{path} must name each column once, got {name!r} twice")


def changed(path: Path) -> DataError:
    """Return the error for a file that is no longer the one whose units are known."""
    return DataError(f"{path} must not change while it is streamed; make a new stream")


def matrix(rows: Any, columns: Columns, where: Callable[[int], str]) -> Tensor:
    """Return an Arrow table or batch as numbers, `(n, features + targets)`.

    Args:
        rows: Holds the columns, of numeric types.
        columns: Which of them.
        where: Names a row of the table for a message.

    Raises:
        DataError: A cell is null, a feature is not finite, or a number is too large for the dtype.
    """
    table = require("numpy", extra="data").empty((rows.num_rows, len(columns.names)))
    for place, name in enumerate(columns.names):
        column = rows.column(name)
        if column.null_count:
            row = column.is_null().to_pylist().index(True)
            raise DataError(f"{where(row)}, column {name!r}: must be a number, got null")
        table[:, place] = column.cast("float64", safe=False).to_numpy(zero_copy_only=False)
    exact = torch.from_numpy(table)
    values = exact.to(columns.dtype)
    bad = ~values.isfinite()
    # a target may be infinite, but must not become so in a smaller dtype
    bad[:, len(columns.features) :] &= exact[:, len(columns.features) :].isfinite()
    if bad.any():
        row, place = bad.nonzero()[0].tolist()
        must = f"at most {torch.finfo(columns.dtype).max:.2g} in size for {columns.dtype}"
        must = must if exact[row, place].isfinite() else "a finite number"
        raise DataError(
            f"{where(row)}, column {columns.names[place]!r}: must be {must}, "
            f"got {exact[row, place].item()!r}"
        )
    return values
