"""Lists of column names on the command line."""

import csv

from zeroproof.errors import DataError

__all__ = ["answer_columns", "column_names"]


def column_names(text: str, option: str) -> tuple[str, ...]:
    """Split `a,b` into names; a name that holds a comma goes in double quotes, as in a CSV file.

    Raises:
        DataError: An empty name, or one given twice.
    """
    names = tuple(name.strip() for name in next(csv.reader([text]), []))
    if not names or not all(names) or len(set(names)) < len(names):
        raise DataError(f"{option} must list column names, each once, got {text!r}")
    return names


def answer_columns(target: str) -> tuple[str, str, str]:
    """Return the columns that `zeroproof predict` writes for a target."""
    return target, f"{target}_bottom", f"{target}_gap"
