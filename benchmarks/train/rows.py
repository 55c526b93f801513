"""A row of the table: a figure beside its bound, with the spread of what it is the median of."""

from statistics import median
from typing import NamedTuple

import numpy as np


class Row(NamedTuple):
    """One line of the table."""

    task: str
    measure: str
    figures: list[float]  # their median is judged
    bound: float | None  # None: shown, not judged
    note: str = ""
    least: bool = False  # the bound is a lower one


def judged(row: Row) -> str:
    """Return MET, missed, or nothing where there is no bound."""
    if row.bound is None:
        return ""
    value = median(row.figures)
    return "MET" if (value >= row.bound if row.least else value <= row.bound) else "missed"


def line(row: Row) -> str:
    """Return a row of the table in Markdown."""
    low, high = np.quantile(row.figures, (0.25, 0.75))
    spread = f"{low:.3g} … {high:.3g}" if len(row.figures) > 1 else ""
    bound = "" if row.bound is None else f"{'≥' if row.least else '≤'} {row.bound:g}"
    figure = f"{median(row.figures):.3g}"
    cells = (row.task, row.measure, figure, spread, bound, judged(row), row.note)
    return "| " + " | ".join(cells) + " |"
