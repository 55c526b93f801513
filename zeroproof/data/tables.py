"""Tables of numbers in CSV files: in with every cell checked, out in one step."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from zeroproof._files import text_in_place
from zeroproof.errors import DataError

__all__ = ["Table", "numbers", "read_csv", "write_csv"]


class Table(NamedTuple):
    """Cells of a CSV file as text."""

    name: str
    columns: tuple[str, ...]
    cells: list[list[str]]
    lines: list[int]  # line of the file on which each row ends, for messages


def read_csv(path: str | Path) -> Table:
    """Read a comma-separated file (UTF-8) whose first line names the columns; skip blank lines.

    Raises:
        DataError: No such file, no row, a column name twice or missing, or a row of another length.
    """
    path = Path(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{path} must be a readable CSV file: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}, line {line}: must be UTF-8 text, got byte {error.object[error.start]:#04x}"
        ) from error
    rows = _rows(path, text)
    if not rows:
        raise DataError(f"{path} must name its columns in its first line, got an empty file")
    columns = tuple(name.strip() for name in rows[0][1])
    _check_header(path, columns)
    if len(rows) == 1:
        raise DataError(f"{path} must have at least one row below its header, got none")
    _check_separator(path, columns, [row for _, row in rows[1:]])
    for line, row in rows[1:]:
        if len(row) != len(columns):
            raise DataError(
                f"{path}, line {line}: must have {len(columns)} cells as the header, got {len(row)}"
            )
    return Table(str(path), columns, [row for _, row in rows[1:]], [line for line, _ in rows[1:]])


def _rows(path: Path, text: str) -> list[tuple[int, list[str]]]:
    """Split text into rows that are not blank, each with the line on which it ends."""
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise DataError(f"{path}, line {line}: must be text, got a NUL byte")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        return [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: must be CSV, got {error}") from error


def _check_header(path: Path, columns: tuple[str, ...]) -> None:
    for name in columns:
        if not name:
            raise DataError(f"{path} must name every column, got an empty name in the header")
        if columns.count(name) > 1:
            raise DataError(f"{path} must name each column once, got {name!r} twice")


def _check_separator(path: Path, columns: tuple[str, ...], cells: list[list[str]]) -> None:
    """Refuse what spreadsheets of many countries write: `;` or tabs, often with 1,5 for 1.5."""
    for mark in ";\t":
        if len(columns) == 1 and mark in columns[0] and all(mark in ",".join(r) for r in cells):
            decimal = any(len(row) > 1 for row in cells)
            before, after = (f",{mark}", ".,") if decimal else (mark, ",")
            points, commas = (" and points in its numbers", " and decimal commas")
            raise DataError(
                f"{path} must have commas between its columns{points * decimal}, got {mark!r} "
                f"between columns{commas * decimal}. This writes such a file: "
                f"tr {before!r} {after!r} < {path.name} > commas.csv"
            )


def numbers(
    table: Table, columns: Sequence[str], *, finite: bool = False, advice: str = ""
) -> Tensor:
    """Read columns as numbers; `inf`, `-inf` and `nan` are numbers here unless `finite` is set.

    Args:
        table: What `read_csv` returned.
        columns: Names, each of which must exist.
        finite: Refuse `inf` and `nan`.
        advice: What to do about a cell that is not a number, appended to the message.

    Returns:
        `(rows, len(columns))`, float64.

    Raises:
        DataError: A missing column, or a cell that is not a number; the line and column are named.
    """
    for name in columns:
        if name not in table.columns:
            raise DataError(
                f"{table.name} must have a column {name!r}, "
                f"got {', '.join(map(repr, table.columns))}"
            )
    places = [table.columns.index(name) for name in columns]
    values = [
        [_number(table, line, place, row[place], finite, advice) for place in places]
        for line, row in zip(table.lines, table.cells, strict=True)
    ]
    return torch.tensor(values, dtype=torch.float64).reshape(len(values), len(columns))


def _number(table: Table, line: int, place: int, cell: str, finite: bool, advice: str) -> float:
    where = f"{table.name}, line {line}, column {table.columns[place]!r}"
    try:
        value = float(cell if "_" not in cell else "")  # 1_000 is a number to Python alone
    except ValueError:
        shown = repr(cell) if cell.strip() else "an empty cell"
        raise DataError(f"{where}: must be a number, got {shown}{advice}") from None
    if math.isinf(value) and "inf" not in cell.lower():  # 1e999 is no infinity
        raise DataError(f"{where}: must be at most 1.8e308 in size, got {cell.strip()!r}{advice}")
    if finite and not math.isfinite(value):
        raise DataError(f"{where}: must be a finite number, got {cell.strip()!r}{advice}")
    return value


def write_csv(
    path: str | Path, columns: Mapping[str, Sequence[float] | Sequence[int] | Sequence[str]]
) -> None:
    """Write columns of equal length; floats in the shortest form that reads back the same."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    text_in_place(Path(path), text.getvalue())
