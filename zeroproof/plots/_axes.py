"""The figure set-up that all plots share: no pyplot, so no global state and no window."""

from collections.abc import Sequence
from typing import Any

from zeroproof._extras import require

__all__ = ["COLORS", "panels", "tidy"]

# Okabe and Ito's palette, which colour-blind readers can tell apart
COLORS = {"train": "#0072B2", "val": "#D55E00", "quiet": "#888888", "left out": "#CC79A7"}


def panels(
    rows: int,
    columns: int = 1,
    *,
    width: float = 7.0,
    height: float = 2.2,
    share_x: bool | str = True,
    shares: Sequence[float] | None = None,
) -> tuple[Any, list[Any]]:
    """Return (figure, axes) for a grid of panels; sizes in inches per panel.

    `shares` gives the rows unequal heights; their sum stays `rows * height`.

    Raises:
        MissingExtraError: Matplotlib is not installed.
    """
    figure = require("matplotlib.figure", extra="plots").Figure(
        figsize=(width * columns, height * rows), layout="constrained"
    )
    ratios = {"height_ratios": shares}
    axes = figure.subplots(rows, columns, sharex=share_x, squeeze=False, gridspec_kw=ratios)
    return figure, list(axes.flat)


def tidy(axis: Any, ylabel: str) -> None:
    """Label a panel, lighten its frame, and add a legend where more than one line was drawn."""
    axis.set_ylabel(ylabel)
    axis.grid(visible=True, alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    count = len(axis.get_legend_handles_labels()[1])
    if count > 1:
        # above the panel: inside, there is always a fit that it covers
        axis.legend(
            frameon=False,
            loc="lower left",
            bbox_to_anchor=(0, 1),
            ncols=min(count, 4),
            fontsize="small",
            columnspacing=1.2,
            handlelength=1.5,
        )
