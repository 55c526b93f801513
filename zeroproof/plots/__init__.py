"""Pictures of plain rows and arrays, drawn without a display."""

from zeroproof.plots.fit import Answers, plot_curve, plot_parity
from zeroproof.plots.training import plot_history

__all__ = ["Answers", "plot_curve", "plot_history", "plot_parity"]
