"""Data in and out."""

from zeroproof.data.stream import TableStream
from zeroproof.data.tables import Table, numbers, read_csv, write_csv

__all__ = ["Table", "TableStream", "numbers", "read_csv", "write_csv"]
