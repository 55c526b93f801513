"""Pictures of plain rows and arrays, drawn without a display."""

from zeroproof.plots.training import plot_history

__all__ = ["plot_history"]
