"""Columns out: CSV, Parquet or Arrow by the ending of the name, piece by piece."""

import csv
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from zeroproof._extras import require
from zeroproof._files import file_in_place
from zeroproof.errors import DataError

__all__ = ["write_csv", "writing"]

_KINDS = ".csv", ".parquet", ".arrow", ".feather"


@contextmanager
def writing(out: str | Path) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Yield a function that takes columns of equal length, again and again, and writes them.

    Args:
        out: A file .csv, .parquet, .arrow or .feather, which is there when the block ends well; or
            `-` for CSV on standard output.

    Raises:
        DataError: The file has another ending.
    """
    if str(out) == "-":
        with _tables(sys.stdout.buffer, _csv_writer) as write:
            yield write
        return
    kind = Path(out).suffix.lower()
    if kind not in _KINDS:
        raise DataError(f"--out must end in {', '.join(_KINDS)}, got {out}")
    make = _csv_writer
    if kind != ".csv":
        parquet = kind == ".parquet"
        module = require("pyarrow.parquet" if parquet else "pyarrow.ipc", extra="data")
        make = module.ParquetWriter if parquet else module.new_file
    with file_in_place(Path(out)) as fresh, fresh.open("wb") as file, _tables(file, make) as write:
        yield write


@contextmanager
def _tables(file: Any, make: Callable[[Any, Any], Any]) -> Iterator[Callable[..., None]]:
    """Yield a function that writes columns by a writer of Arrow, made for the first of them."""
    arrow = require("pyarrow", extra="data")
    writer: Any = None

    def write(columns: Mapping[str, Any]) -> None:
        nonlocal writer
        table = arrow.table(dict(columns))
        writer = writer or make(file, table.schema)
        writer.write_table(table)

    try:
        yield write
    finally:
        if writer is not None:
            writer.close()


def _csv_writer(file: Any, schema: Any) -> Any:
    writer = require("pyarrow.csv", extra="data")
    file.write((",".join(map(_quoted, schema.names)) + "\n").encode())
    return writer.CSVWriter(file, schema, write_options=writer.WriteOptions(include_header=False))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"' if set(name) & set(',"\n\r') else name


def write_csv(
    path: str | Path, columns: Mapping[str, Sequence[float] | Sequence[int] | Sequence[str]]
) -> None:
    """Write columns of equal length; floats in the shortest form that reads back the same."""
    with file_in_place(Path(path)) as fresh, fresh.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
