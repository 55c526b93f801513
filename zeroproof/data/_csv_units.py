"""Stretches of CSV files: a line belongs to the stretch of bytes in which it begins."""

import csv
import io
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from zeroproof._extras import require
from zeroproof.data._units import Columns, Part, Unit, changed, check_once, matrix
from zeroproof.data.tables import Table, numbers
from zeroproof.errors import DataError

__all__ = ["byte_ranges", "read_lines"]

BYTES = 1 << 20  # of a stretch


class _Header(NamedTuple):
    names: list[str]
    stop: int  # the byte at which the rows begin


class _Lines(NamedTuple):
    """Whole lines of a file, from the byte `start` on."""

    path: Path
    names: list[str]
    start: int
    text: bytes


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
        rows = _parsed(lines, columns.names, arrow.float64())
    except arrow.ArrowInvalid as error:
        raise _explained(lines, columns, str(error)) from None
    values = matrix(rows, columns, lambda row: f"{lines.path}, line {_table(lines).lines[row]}")
    _check_infinite(lines, columns, values[:, len(columns.features) :].isinf())
    yield values


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
                f"{lines.path}, line {_lines_before(lines) + count}: must close its quotes; "
                "a file with line breaks inside cells cannot be streamed"
            )


def _parsed(lines: _Lines, columns: list[str], kind: Any) -> Any:
    """Return columns as an Arrow table, all of one type."""
    arrow, reader = (require(name, extra="data") for name in ("pyarrow", "pyarrow.csv"))
    names = list(dict.fromkeys(columns))
    return reader.read_csv(
        arrow.BufferReader(lines.text),
        read_options=reader.ReadOptions(
            column_names=lines.names, use_threads=False, block_size=len(lines.text) + 1
        ),
        convert_options=reader.ConvertOptions(
            include_columns=names, column_types=dict.fromkeys(names, kind), null_values=[]
        ),
    )


def _check_infinite(lines: _Lines, columns: Columns, infinite: Tensor) -> None:
    """Refuse targets such as 1e999: Arrow reads infinities where no cell says inf."""
    if not infinite.any():
        return
    arrow, compute = (require(name, extra="data") for name in ("pyarrow", "pyarrow.compute"))
    cells = _parsed(lines, list(columns.targets), arrow.string())
    for place, name in enumerate(columns.targets):
        said = compute.match_substring(cells.column(name), "inf", ignore_case=True)
        wrong = infinite[:, place].numpy() & ~said.to_numpy()
        if wrong.any():
            numbers(_table(lines), [name])  # which refuses it, and names the line


def _explained(lines: _Lines, columns: Columns, reason: str) -> DataError:
    """Find the cell that Arrow could not read, for the sentence that `numbers` has for it."""
    try:
        table = _table(lines)
        numbers(table, columns.features, finite=True)
        numbers(table, columns.targets)
    except DataError as error:
        return error
    return DataError(f"{lines.path}, line {table.lines[0]} or after: must be CSV, got {reason}")


def _table(lines: _Lines) -> Table:
    reader = csv.reader(io.StringIO(lines.text.decode("utf-8", "replace"), newline=""))
    before = _lines_before(lines)
    cells, ends = [], []
    for row in reader:
        if row and len(row) != len(lines.names):
            raise DataError(
                f"{lines.path}, line {before + reader.line_num}: must have {len(lines.names)} "
                f"cells as the header, got {len(row)}"
            )
        if row:  # Arrow skips empty lines too
            cells.append(row)
            ends.append(before + reader.line_num)
    return Table(str(lines.path), tuple(lines.names), cells, ends)


def _lines_before(lines: _Lines) -> int:
    count, left = 0, lines.start
    with lines.path.open("rb") as file:
        while block := file.read(min(left, BYTES)):
            count, left = count + block.count(b"\n"), left - len(block)
    return count
