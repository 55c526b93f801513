"""Tables in: text of any dialect, Parquet, Arrow, workbooks and frames; and columns out."""

import bz2
import codecs
import csv
import difflib
import gzip
import io
import itertools
import lzma
import re
import stat
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from zeroproof._extras import require
from zeroproof.data.cells import (
    SPECIAL,
    CellOptions,
    Cells,
    Kind,
    Marks,
    plain_number,
    read_cells,
    readable,
)
from zeroproof.data.dialect import Reading, chosen, is_comment, sniff, split
from zeroproof.errors import DataError

__all__ = ["Table", "numbers", "read_pieces", "read_table", "told"]

_SAMPLE, _MOST_SAMPLE, _LEAST_LINES = 2**18, 2**23, 40  # what shows how a text is written
_BLOCK = 2**21
_MOST_PIPED = 2**28
_PIECE = 2**16  # rows
_PACKED: dict[bytes, Callable[[Any], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
    b"(\xb5/\xfd": lambda file: require("pyarrow", extra="data").CompressedInputStream(
        file, "zstd"
    ),
}
_SUMMARIES = frozenset(
    "mean average avg sum total sd std stdev stderr se median min max n count".split()  # noqa: SIM905
)
_WORKBOOKS = b"PK\x03\x04", b"\xd0\xcf\x11\xe0"
_DAMAGE = OSError, EOFError, zlib.error, lzma.LZMAError  # of packed files
_BOMS = (  # the longest first
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


class _Source(Protocol):
    def line_of(self, row: int) -> int | None:
        """Return the line of the file on which a row ends."""


class Table(NamedTuple):
    """Columns of a table, each an Arrow array in pieces, and how they were read."""

    name: str
    columns: dict[str, Any]
    source: _Source | None = None
    units: Mapping[str, str] = {}
    marks: Marks = Marks()
    said: tuple[str, ...] = ()  # where it is not read as usual
    twice: tuple[str, ...] = ()  # names that several columns have; these are left out
    first: int = 0  # rows of the source before these

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(next(iter(self.columns.values()), ()))

    def cells(self, column: str, options: CellOptions | None = None) -> Cells:
        """Read a column.

        Raises:
            DataError: There is no such column.
        """
        if column not in self.columns:
            raise DataError(f"{self.name} must have a column {column!r}, got {self.near(column)}")
        return read_cells(self.columns[column], self.marks, options or CellOptions())

    def near(self, column: str) -> str:
        """Say which columns there are instead."""
        if column in self.twice:
            return "more than one of that name"
        lower = {name.lower(): name for name in self.columns}
        close = [lower[n] for n in difflib.get_close_matches(column.lower(), lower, 3, 0.6)]
        names = close or list(self.columns)
        more = f" and {len(names) - 8} more" if len(names) > 8 else ""
        shown = ", ".join(repr(name[:60]) for name in names[:8]) + more
        return f"none; did you mean {shown}?" if close else shown

    def place(self, row: int) -> str:
        """Say where a row stands."""
        row += self.first
        line = self.source.line_of(row) if self.source else None
        return f"row {row + 1}" if line is None else f"line {line}"


class _Text:
    """A table in a text: how it is written, found from its beginning."""

    def __init__(self, name: str, reading: Reading) -> None:
        self.name = name
        self._bytes = _piped() if name == "-" else None
        try:
            with self.opened() as file:
                sample = file.read(_SAMPLE)
                while sample.count(b"\n") < _LEAST_LINES and len(sample) < _MOST_SAMPLE:
                    more = file.read(_SAMPLE)
                    if not more:
                        break
                    sample += more
                whole = not file.read(1)
        except _DAMAGE as error:
            raise DataError(f"{name} must be a readable file: {error}") from error
        if not sample.strip():
            raise DataError(f"{name} must hold a table, got an empty file")
        self.encoding, odd = _encoding(name, sample)
        text = codecs.getincrementaldecoder(self.encoding)(errors="replace").decode(sample)
        lines = text.replace("\r\n", "\n").replace("\r", "\n").splitlines(keepends=True)
        self.lone_returns = "\r" in text.replace("\r\n", "")
        self.quoted = '"' in text
        self.dialect = sniff(lines if whole or len(lines) == 1 else lines[:-1], reading, name)
        if whole and sum(line.count('"') for line in lines[self.dialect.skipped :]) % 2:
            raise DataError(f"{name} must close its quotes, got an odd number of them")
        self.said = (*self.dialect.said(), *([f"text in {self.encoding}"] * odd))

    def opened(self) -> Any:
        """Open it for its bytes, unpacked."""
        if self._bytes is not None:
            return io.BytesIO(self._bytes)
        with Path(self.name).open("rb") as file:
            magic = file.read(8)
        unpack = next((u for m, u in _PACKED.items() if magic.startswith(m)), None)
        return (
            Path(self.name).open("rb") if unpack is None else io.BufferedReader(unpack(self.name))
        )

    def _lines(self) -> Iterator[tuple[int, str]]:
        """Yield the lines of the table below its header, each with its number."""
        comment = self.dialect.comment
        with io.TextIOWrapper(self.opened(), encoding=self.encoding, newline=None) as file:
            for number, line in enumerate(file, start=1):
                if number > self.dialect.start and not (comment and is_comment(line, comment)):
                    yield number, line

    def line_of(self, row: int) -> int | None:
        """Return the line of the file on which a row ends."""
        numbers: list[int] = []

        def lines() -> Iterator[str]:
            for number, line in self._lines():
                numbers.append(number)
                yield " ".join(line.split()) if self.dialect.sep == " " else line

        rows = csv.reader(lines(), delimiter=self.dialect.sep, skipinitialspace=True)
        filled = (numbers[-1] for cells in rows if any(cell.strip() for cell in cells))
        return next(itertools.islice(filled, row, None), None)

    def batches(self) -> Iterator[Any]:
        """Yield the rows as Arrow tables of text."""
        arrow, reader = require("pyarrow", extra="data"), require("pyarrow.csv", extra="data")
        dialect, invalid = self.dialect, []
        keys = [str(j) for j in range(len(dialect.names))]
        blanks = dialect.sep == " "
        plain = self.encoding in ("utf-8", "utf-8-sig") and not (
            dialect.comment or blanks or self.lone_returns
        )

        def refuse(row: Any) -> str:
            invalid.append(row)
            return "skip"

        with self.opened() as file:
            if plain:
                for _ in range(dialect.start):
                    file.readline()
            try:
                stream = reader.open_csv(
                    arrow.PythonFile(file if plain else _Fed(self._fed()), mode="r"),
                    reader.ReadOptions(column_names=keys, block_size=_BLOCK),
                    reader.ParseOptions(
                        delimiter="\t" if blanks else dialect.sep,
                        newlines_in_values=self.quoted,
                        quote_char=False if blanks else '"',
                        invalid_row_handler=refuse,
                    ),
                    reader.ConvertOptions(
                        column_types=dict.fromkeys(keys, arrow.string()), null_values=[]
                    ),
                )
                for batch in stream:
                    if invalid:
                        break
                    yield arrow.Table.from_batches([batch])
            except (arrow.ArrowInvalid, UnicodeDecodeError, *_DAMAGE) as error:
                raise DataError(f"{self.name} must be a table of text, got {error}") from error
        if invalid:
            raise self._ragged(invalid[0].expected_columns)

    def _ragged(self, width: int) -> DataError:
        rows = list(split([line for _, line in self._lines()], self.dialect.sep))
        odd = [(place, len(row), row) for place, (_, row) in enumerate(rows) if len(row) != width]
        first, got, cells = odd[0]
        last = first >= len(rows) - len(odd) and len(odd) < len(rows)
        advice = "; it looks like a line below the table: take it out" if last else ""
        return DataError(
            f"{self.name}, line {self.line_of(first)}: must have {width} cells as the header, got "
            f"{got}: {self.dialect.sep.join(cells)[:60]!r} ({len(odd)} such rows){advice}"
        )

    def _fed(self) -> Iterator[bytes]:
        blanks = self.dialect.sep == " "
        for _, line in self._lines():
            if blanks:
                line = "\t".join(next(iter(split([line], " ")), (0, []))[1]) + "\n"  # noqa: PLW2901
            yield line.encode()


class _Fed(io.RawIOBase):
    """A file whose bytes are made line by line."""

    def __init__(self, lines: Iterator[bytes]) -> None:
        self._lines = lines

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        parts, length = [], 0
        for line in self._lines:
            parts.append(line)
            length += len(line)
            if 0 <= size <= length + _SAMPLE // 4:
                break
        joined = b"".join(parts)
        if 0 <= size < len(joined):
            self._lines = itertools.chain([joined[size:]], self._lines)
            joined = joined[:size]
        return joined


def read_table(source: Any, reading: Reading | None = None, *, sheet: str | None = None) -> Table:
    """Read a table.

    Args:
        source: Text in any dialect, also packed (gz, zst, bz2, xz), `-` for standard input;
            Parquet; Arrow; a workbook (xlsx, xls, xlsb, ods); a frame of pandas, polars or Arrow.
        reading: What is known of a text; the rest is found.
        sheet: Of a workbook: a name, or a name and cells, `Data!B3:D90`.

    Raises:
        DataError: It cannot be read, holds no table, or can be read in two ways.
        MissingExtraError: What reads this kind is not installed.
    """
    pieces = list(read_pieces(source, reading, sheet=sheet))
    if not pieces or not sum(piece.rows for piece in pieces):
        raise DataError(f"{source} must have at least one row below its header, got none")
    if len(pieces) == 1:
        return pieces[0]
    arrow = require("pyarrow", extra="data")
    columns = {
        name: arrow.chunked_array(
            [chunk for piece in pieces for chunk in piece.columns[name].chunks]
        )
        for name in pieces[0].columns
    }
    return pieces[0]._replace(columns=columns)


def read_pieces(
    source: Any, reading: Reading | None = None, *, sheet: str | None = None
) -> Iterator[Table]:
    """Read a table piece by piece, so that it need not fit into memory.

    Raises:
        DataError: As `read_table`.
    """
    reading = reading or Reading()
    if not isinstance(source, str | Path):
        yield _of_frame(source)
        return
    name = str(source)
    magic = b"" if name == "-" else _magic(Path(name))
    if magic.startswith(_WORKBOOKS):
        yield _of_workbook(name, sheet, reading)
        return
    if sheet is not None:
        raise DataError(f"--sheet must come with a workbook, as .xlsx, got {name}")
    if magic.startswith((b"PAR1", b"ARROW1")):
        yield from _of_arrow(name, magic)
        return
    text = _Text(name, reading)
    said, names, units = text.said, text.dialect.names, text.dialect.units
    before, first = None, 0
    for batch in text.batches():
        if before is not None:
            yield before
        table = _named(name, names, units, _without_blanks(batch.columns))
        said_of_it = (*said, *table.said)
        before = table._replace(marks=text.dialect.marks, said=said_of_it, source=text, first=first)
        first += table.rows
    if before is not None:
        _check_footer(before)
        yield before


def _magic(path: Path) -> bytes:
    try:
        regular = stat.S_ISREG(path.stat().st_mode)
        if regular:
            with path.open("rb") as file:
                return file.read(8)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path} must be a readable file: {reason}") from error
    raise DataError(
        f"{path} must be a file, got a folder, pipe or device; for a pipe write - and send it to "
        "standard input"
    )


def _piped() -> bytes:
    parts, size = [], 0
    while block := sys.stdin.buffer.read(_BLOCK):
        parts.append(block)
        size += len(block)
        if size > _MOST_PIPED:
            raise DataError("standard input must hold at most 256 MB, got more; write it to a file")
    return b"".join(parts)


def _encoding(name: str, sample: bytes) -> tuple[str, bool]:
    """Return the code of a text, and whether it is worth a word."""
    for mark, encoding in _BOMS:
        if sample.startswith(mark):
            return encoding, not encoding.startswith("utf-8")
    if b"\0" in sample:
        for encoding, place in (("utf-16-le", 1), ("utf-16-be", 0)):
            zeros, others = sample[place::2].count(0), sample[1 - place :: 2].count(0)
            if zeros > 0.2 * len(sample) > 10 * others:
                return encoding, True
        raise DataError(f"{name} must be text, Parquet, Arrow or a workbook, got other bytes")
    try:
        codecs.getincrementaldecoder("utf-8")().decode(sample)
    except UnicodeDecodeError:
        undefined = set(b"\x81\x8d\x8f\x90\x9d") & set(sample)
        return ("latin-1" if undefined else "cp1252"), True
    return "utf-8", False


def _named(name: str, names: Sequence[str], units: Sequence[str], columns: Sequence[Any]) -> Table:
    """Keep the columns that have a name of their own, and the rows that are not blank."""
    count = Counter(names)
    twice = tuple(each for each in count if each and count[each] > 1)
    kept = {n: c for n, c in zip(names, columns, strict=True) if n and count[n] == 1}
    told = dict(zip(names, units, strict=False))
    said = [f"columns left out whose name stands twice: {', '.join(twice)[:80]}"] * bool(twice)
    if count[""]:
        said.append(f"{count['']} column{'s' * (count[''] > 1)} without a name left out")
    return Table(
        name,
        kept,
        units={n: u for n, u in told.items() if u and n in kept},
        said=tuple(said),
        twice=twice,
    )


def _without_blanks(columns: Sequence[Any]) -> Sequence[Any]:
    """Leave out rows of text in which every cell is empty."""
    compute = require("pyarrow.compute", extra="data")
    blank: Any = None
    for column in columns:
        empty = compute.equal(compute.utf8_trim_whitespace(column), "")
        blank = empty if blank is None else compute.and_(blank, empty)
        if not compute.any(blank).as_py():
            return columns
    return [column.filter(compute.invert(blank)) for column in columns]


def _check_footer(table: Table) -> None:
    """Refuse a line of means or remarks below the rows, which would be taken for one of them."""
    if not table.rows:
        return
    names = next(iter(table.columns.values()))
    last, before = names.slice(max(len(names) - 3, 0)).to_pylist(), names.slice(0, len(names) - 3)
    known = before.slice(max(len(before) - 50, 0)).to_pylist()
    numeric = bool(known) and all(_is_number(cell, table.marks) for cell in known)
    for place, cell in enumerate(last):
        summary = cell.strip().lower().rstrip(":") in _SUMMARIES and cell not in known
        if summary or (numeric and not _is_number(cell, table.marks)):
            row = max(len(names) - 3, 0) + place
            raise DataError(
                f"{table.name}, {table.place(row)}: must be a row of the table, got {cell[:40]!r} "
                "in its first column; if it is a footer, take it out of the file"
            )


def _is_number(cell: str, marks: Marks) -> bool:
    return plain_number(cell, marks) is not None or cell.strip().lower() in SPECIAL


def _of_arrow(name: str, magic: bytes) -> Iterator[Table]:
    arrow = require("pyarrow", extra="data")
    try:
        if magic.startswith(b"PAR1"):
            file = require("pyarrow.parquet", extra="data").ParquetFile(name)
            batches = file.iter_batches(_PIECE)
        else:
            file = require("pyarrow.ipc", extra="data").open_file(name)
            batches = (file.get_batch(k) for k in range(file.num_record_batches))
        first = 0
        for batch in batches:
            yield _of_frame(arrow.Table.from_batches([batch]), name)._replace(first=first)
            first += len(batch)
    except (arrow.ArrowException, OSError) as error:
        raise DataError(f"{name} must be a readable Parquet or Arrow file: {error}") from error


def _of_frame(frame: Any, name: str = "the frame") -> Table:
    arrow = require("pyarrow", extra="data")
    if hasattr(frame, "iloc"):  # pandas, whose nan is not null
        frame = {str(key): _of_series(arrow, frame.iloc[:, j]) for j, key in enumerate(frame)}
        if len(frame) == 0:
            raise DataError(f"{name} must have columns, got none")
        table = arrow.table(frame)
    elif hasattr(frame, "to_arrow"):
        table = frame.to_arrow()
    elif isinstance(frame, Mapping):
        table = arrow.table(dict(frame))
    elif isinstance(frame, arrow.Table):
        table = frame
    else:
        raise DataError(
            "a table must be a file or a frame of pandas, polars or Arrow, got "
            f"{type(frame).__name__}"
        )
    other = [field.name for field in table.schema if not readable(field.type)]
    said = [f"columns of other types left out: {', '.join(other)[:80]}"] if other else []
    table = table.drop_columns([*dict.fromkeys(other)])
    found = _named(name, table.column_names, (), table.columns)
    return found._replace(said=(*said, *found.said))


def _of_series(arrow: Any, series: Any) -> Any:
    if series.dtype.kind in "fiub":
        return arrow.array(series.to_numpy(), from_pandas=False)
    if series.dtype == object:  # of numbers and text mixed
        return arrow.array([None if cell is None else str(cell) for cell in series])
    return arrow.array(series, from_pandas=True)


def _of_workbook(name: str, sheet: str | None, reading: Reading) -> Table:
    calamine = require("python_calamine", extra="data")
    wanted, _, area = (sheet or "").partition("!")
    try:
        book = calamine.CalamineWorkbook.from_path(name)
        names = book.sheet_names
        if wanted and wanted not in names:
            raise DataError(f"{name} must have a sheet {wanted!r}, got {', '.join(names)}")
        chosen_sheet = wanted or names[0]
        rows = book.get_sheet_by_name(chosen_sheet).to_python(skip_empty_area=not area)
    except calamine.CalamineError as error:
        raise DataError(f"{name} must be a readable workbook: {error}") from error
    if area:
        rows = _area(rows, area)
    cells = [[_shown(cell) for cell in row] for row in rows[reading.skip or 0 :]]
    filled = [row for row in cells if any(cell.strip() for cell in row)]
    arrow = require("pyarrow", extra="data")
    dialect = chosen([("", [*range(1, len(filled) + 1)], filled)], reading, name)
    body = filled[dialect.start :]
    columns = [arrow.chunked_array([arrow.array(column)]) for column in zip(*body, strict=True)]
    table = _named(name, dialect.names, dialect.units, columns)
    said = [f"sheet {chosen_sheet!r} of {len(names)}"] * (not wanted and len(names) > 1)
    return table._replace(marks=dialect.marks, said=(*said, *dialect.said(), *table.said))


def _area(rows: list[list[Any]], area: str) -> list[list[Any]]:
    """Cut `B3:D90` out of a sheet."""
    found = re.fullmatch(r"\$?([A-Za-z]+)\$?(\d+):\$?([A-Za-z]+)\$?(\d+)", area.strip())
    if not found:
        raise DataError(f"--sheet must name cells as Data!B3:D90, got {area!r}")
    left, right = (
        sum((ord(c) - 64) * 26**k for k, c in enumerate(reversed(letters.upper())))
        for letters in (found[1], found[3])
    )
    return [row[left - 1 : right] for row in rows[int(found[2]) - 1 : int(found[4])]]


def _shown(cell: Any) -> str:
    if isinstance(cell, bool):
        return str(cell).upper()
    return cell.isoformat() if hasattr(cell, "isoformat") else str(cell)


def told(table: Table, column: str, cells: Cells, allowed: Iterable[Kind]) -> str:
    """Say which cells of a column are none of the allowed kinds; "" if all are."""
    wrong = {w: n for w, (n, kind) in cells.tokens.items() if kind not in set(allowed)}
    if not wrong:
        return ""
    most = sorted(wrong.items(), key=lambda each: -each[1])
    words = [f"{n} × {w[:40]!r}" if w else f"{n} × an empty cell" for w, n in most[:4]]
    more = f" and {len(most) - 4} more" if len(most) > 4 else ""
    first = cells.first(allowed)
    return f"column {column[:60]!r}: {', '.join(words)}{more}, first in {table.place(first)}"


def numbers(table: Table, columns: Sequence[str], *, finite: bool = False) -> Tensor:
    """Read columns as numbers; `inf`, `-inf` and `nan` are numbers here unless `finite` is set.

    Args:
        table: What `read_table` returned.
        columns: Names, each of which must exist.
        finite: Refuse `inf` and `nan`.

    Returns:
        `(rows, len(columns))`, float64.

    Raises:
        DataError: A missing column, or cells that are no numbers: how many, and the first of them.
    """
    allowed = {Kind.NUMBER} if finite else {Kind.NUMBER, Kind.INFINITE, Kind.NAN, Kind.BOTTOM}
    read = {name: table.cells(name) for name in columns}
    wrong = [line for name, cells in read.items() if (line := told(table, name, cells, allowed))]
    if wrong:
        what = "finite numbers" if finite else "numbers"
        more = f"; and {len(wrong) - 8} more columns" if len(wrong) > 8 else ""
        raise DataError(f"{table.name} must hold {what}, got {'; '.join(wrong[:8])}{more}")
    return torch.from_numpy(np.column_stack([cells.value for cells in read.values()]))
