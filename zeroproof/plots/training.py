"""A training run in one picture."""

from collections.abc import Mapping, Sequence
from typing import Any

from zeroproof.errors import DataError
from zeroproof.plots._axes import COLORS, panels, tidy

__all__ = ["plot_history"]

_PARTS = {"train": ("training", "-"), "val": ("validation", "--")}


def plot_history(rows: Sequence[Mapping[str, float]]) -> Any:
    """Draw loss (logarithmic where all values are positive), coverage and gap over the epochs.

    Args:
        rows: One mapping per epoch with the keys of `History`; what is absent is not drawn.

    Returns:
        A `matplotlib.figure.Figure`; `figure.savefig(path)` writes it. No window is opened.

    Raises:
        MissingExtraError: Matplotlib is not installed.
        DataError: There is no row.

    Examples:
        >>> figure = plot_history([{"train_loss": 1.0, "train_coverage": 0.9, "train_gap": 0.0}])
        >>> len(figure.axes)
        3
    """
    if not rows:
        raise DataError("rows must hold at least one epoch, got none")
    figure, (loss, coverage, gap) = panels(3)
    if _lines(loss, rows, "loss"):
        loss.set_yscale("log")
    _lines(coverage, rows, "coverage")
    coverage.set_ylim(-0.03, 1.03)
    _lines(gap, rows, "gap")
    gap.set_ylim(bottom=-0.03 * gap.get_ylim()[1])  # a line at 0 stays off the frame
    for axis, label in ((loss, "loss"), (coverage, "coverage"), (gap, "share in the gap")):
        tidy(axis, label)
    gap.set_xlabel("epoch")
    gap.xaxis.get_major_locator().set_params(integer=True)
    return figure


def _lines(axis: Any, rows: Sequence[Mapping[str, float]], quantity: str) -> bool:
    """Draw one line per part of the data; tell whether there were values and all were positive."""
    drawn: list[float] = []
    for part, (label, style) in _PARTS.items():
        key = f"{part}_{quantity}"
        points = [(epoch, row[key]) for epoch, row in enumerate(rows, 1) if key in row]
        if points:
            epochs, values = zip(*points, strict=True)
            # markers, so that a single epoch is visible
            axis.plot(epochs, values, style, color=COLORS[part], marker=".", label=label)
            drawn.extend(values)
    return bool(drawn) and min(drawn) > 0
