"""Row groups of Parquet files."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import get_worker_info

from zeroproof._extras import require
from zeroproof.data._units import Columns, Part, Unit, changed, check_once, matrix
from zeroproof.errors import DataError

__all__ = ["read_rows", "row_groups"]

ROWS = 1 << 14  # decoded at a time; of a row group only the compressed bytes are held whole


def row_groups(path: Path, columns: Columns) -> list[Unit]:
    """Return the row groups of a file, in rows, from its footer.

    Raises:
        DataError: It cannot be read, lacks a column, or has one that does not hold numbers.
    """
    with _opened(path) as file:
        for name in columns.names:
            check_once(path, name, file.schema_arrow.names)
            _check_type(path, name, file.schema_arrow.field(name).type)
        sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    return [
        Unit(path, group, stop - size, stop)
        for group, (size, stop) in enumerate(zip(sizes, accumulate(sizes), strict=True))
    ]


def read_rows(part: Part, columns: Columns) -> Iterator[Tensor]:
    """Yield the rows of a part in order, as matrices of at most `ROWS` rows.

    Raises:
        DataError: As `matrix`, or the file has changed.
    """
    path, group, row, stop = part.unit
    with _opened(path) as file:
        known = group < file.num_row_groups
        if not known or file.metadata.row_group(group).num_rows != stop - row:
            raise changed(path)
        batches = file.iter_batches(
            ROWS,
            row_groups=[group],
            columns=columns.names,
            use_threads=get_worker_info() is None,  # workers are parallel already
        )
        for batch in batches:
            first, last = max(part.start, row), min(part.stop, row + len(batch))
            if first < last:
                yield matrix(
                    batch.slice(first - row, last - first), columns, _RowsOfFile(path, first)
                )
            row += len(batch)
            if row >= part.stop:
                break


class _RowsOfFile:
    """Names rows of a file for messages."""

    def __init__(self, path: Path, first: int) -> None:
        self.path, self.first = path, first

    def __call__(self, row: int) -> str:
        return f"{self.path}, row {self.first + row} (counted from 0)"


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    parquet = require("pyarrow.parquet", extra="data")
    errors = (require("pyarrow", extra="data").ArrowException, OSError)
    try:
        with parquet.ParquetFile(path) as file:
            yield file
    except errors as error:
        raise DataError(f"{path} must be a readable Parquet file: {error}") from error


def _check_type(path: Path, name: str, kind: Any) -> None:
    types = require("pyarrow.types", extra="data")
    tests = (types.is_integer, types.is_floating, types.is_decimal, types.is_boolean)
    if not any(test(kind) for test in tests):
        raise DataError(f"{path}, column {name!r}: must hold numbers, got {kind}")
