"""The command line: from a table to a run, and what a run answers."""

from zeroproof.cli.main import main

__all__ = ["main"]
