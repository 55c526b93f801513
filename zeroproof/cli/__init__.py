"""The command line: one file per command."""

from zeroproof.cli.main import main

__all__ = ["main"]
