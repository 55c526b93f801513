"""What a stream reads at a time: row groups of Parquet files, stretches of bytes of CSV files.

A line belongs to the stretch of bytes in which it begins.
"""

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate, islice, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from zeroproof._extras import require
from zeroproof.data.tables import Table, numbers
from zeroproof.errors import DataError

__all__ = ["Columns", "Part", "Unit", "byte_ranges", "read_lines", "read_rows", "row_groups"]

ROWS = 1 << 14  # decoded at a time; of a row group only the compressed bytes are held whole
BYTES = 1 << 20  # of a stretch


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


class _Header(NamedTuple):
    names: list[str]
    stop: int  # the byte at which the rows begin


class _Lines(NamedTuple):
    """Whole lines of a file, from the byte `start` on."""

    path: Path
    names: list[str]
    start: int
    text: bytes

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """Yield rows, each with the line of the file on which it ends."""
        reader = csv.reader(io.StringIO(self.text.decode("utf-8", "replace"), newline=""))
        before = self.before()
        return (
            (before + reader.line_num, row) for row in reader if row
        )  # as Arrow skips empty ones

    def line_of(self, row: int) -> int | None:
        """Return the line on which a row ends."""
        return next((end for end, _ in islice(self.rows(), row, None)), None)

    def before(self) -> int:
        """Return how many lines of the file stand before."""
        count, left = 0, self.start
        with self.path.open("rb") as file:
            while block := file.read(min(left, BYTES)):
                count, left = count + block.count(b"\n"), left - len(block)
        return count


def byte_ranges(path: Path, columns: Columns) -> list[Unit]:
    """Return the stretches of a file, in bytes, from its size.

    Raises:
        DataError: It cannot be read, or lacks a column.
    """
    header = _header(path)
    for name in columns.names:
        check_once(path, name, header.names)
    size = path.stat().st_size
    edges = [*range(header.stop, size, BYTES), size]
    return [Unit(path, 0, start, stop) for start, stop in pairwise(edges)]


def read_lines(part: Part, columns: Columns) -> Iterator[Tensor]:
    """Yield the rows of the lines that begin in a part, as one matrix.

    Raises:
        DataError: As `matrix`, a cell is no number, or the file has changed.
    """
    lines = _lines(part)
    if not lines.text.strip():
        return
    _check_quotes(lines)
    arrow = require("pyarrow", extra="data")
    try:
        cells = _parsed(lines, columns.names)
    except arrow.ArrowInvalid as error:
        raise _ragged(lines, str(error)) from None
    table = Table(str(lines.path), dict(zip(cells.column_names, cells.columns, strict=True)), lines)
    parts = (numbers(table, columns.features, finite=True), numbers(table, columns.targets))
    rows = arrow.table(list(torch.cat(parts, 1).T.contiguous().numpy()), names=columns.names)
    yield matrix(rows, columns, lambda row: f"{lines.path}, {table.place(row)}")


def _header(path: Path) -> _Header:
    try:
        with path.open("rb") as file:
            line = b"\n"
            while line and not line.strip(b" ,\r\n"):
                line = file.readline()
            stop = file.tell()
    except OSError as error:
        raise DataError(f"{path} must be a readable CSV file: {error.strerror}") from error
    if not line:
        raise DataError(f"{path} must name its columns in its first line, got an empty file")
    try:
        text = line.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} must be UTF-8 text, got other bytes in its header") from error
    if "\r" in text or text.count('"') % 2:
        raise DataError(rf"{path} must end its header with \n or \r\n, got a line break inside it")
    return _Header([name.strip() for name in next(csv.reader([text]))], stop)


def _lines(part: Part) -> _Lines:
    path = part.unit.path
    header = _header(path)
    with path.open("rb") as file:
        if file.seek(0, io.SEEK_END) < part.unit.stop:
            raise changed(path)
        file.seek(max(part.start - 1, header.stop))
        if part.start > header.stop:
            file.readline()  # the end of a line that began before
        start = file.tell()
        text = file.read(max(part.stop - start, 0))
        if text and not text.endswith(b"\n"):
            text += file.readline()
    return _Lines(path, header.names, start, text)


def _check_quotes(lines: _Lines) -> None:
    if b'"' not in lines.text:
        return
    for count, line in enumerate(lines.text.split(b"\n"), start=1):
        if line.count(b'"') % 2:
            raise DataError(
                f"{lines.path}, line {lines.before() + count}: must close its quotes; "
                "a file with line breaks inside cells cannot be streamed"
            )


def _parsed(lines: _Lines, columns: list[str]) -> Any:
    """Return columns as an Arrow table of text."""
    arrow, reader = (require(name, extra="data") for name in ("pyarrow", "pyarrow.csv"))
    names = list(dict.fromkeys(columns))
    return reader.read_csv(
        arrow.BufferReader(lines.text),
        read_options=reader.ReadOptions(
            column_names=lines.names, use_threads=False, block_size=len(lines.text) + 1
        ),
        convert_options=reader.ConvertOptions(
            include_columns=names, column_types=dict.fromkeys(names, arrow.string()), null_values=[]
        ),
    )


def _ragged(lines: _Lines, reason: str) -> DataError:
    """Find the row that has more or fewer cells than the header."""
    for end, row in lines.rows():
        if len(row) != len(lines.names):
            return DataError(
                f"{lines.path}, line {end}: must have {len(lines.names)} cells as the header, got "
                f"{len(row)}"
            )
    return DataError(f"{lines.path}, after line {lines.before()}: must be CSV, got {reason}")
