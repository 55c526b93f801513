"""Data in and out."""

from zeroproof.data.tables import Table, numbers, read_csv, write_csv

__all__ = ["Table", "numbers", "read_csv", "write_csv"]
