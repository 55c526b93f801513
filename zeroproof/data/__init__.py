"""Data in and out."""

from zeroproof.data.cells import CellOptions, Cells, Kind
from zeroproof.data.dialect import Reading
from zeroproof.data.stream import TableStream
from zeroproof.data.tables import Table, numbers, read_table, write_csv

__all__ = [
    "CellOptions",
    "Cells",
    "Kind",
    "Reading",
    "Table",
    "TableStream",
    "numbers",
    "read_table",
    "write_csv",
]
