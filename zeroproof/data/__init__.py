"""Data in and out."""

from zeroproof.data.answers import write_csv, writing
from zeroproof.data.cells import CellOptions, Cells, Kind
from zeroproof.data.dialect import Reading
from zeroproof.data.stream import TableStream
from zeroproof.data.tables import Table, numbers, read_pieces, read_table

__all__ = [
    "CellOptions",
    "Cells",
    "Kind",
    "Reading",
    "Table",
    "TableStream",
    "numbers",
    "read_pieces",
    "read_table",
    "write_csv",
    "writing",
]
