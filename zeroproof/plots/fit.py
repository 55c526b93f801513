"""A fit in one picture: the curve for one input, predictions against targets for several."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from zeroproof._extras import require
from zeroproof.plots._axes import COLORS, panels, tidy

__all__ = ["Answers", "plot_curve", "plot_parity"]


class Answers(NamedTuple):
    """Decoded answers for one target, row by row; NumPy arrays of one length."""

    decoded: Any  # nan at ⊥
    bottom: Any
    gap: Any
    score: Any
    error: Any = None  # standard errors; nan where they are not known


def plot_curve(
    x: Any,
    targets: dict[str, Any],
    grid: Any,
    answers: Sequence[Answers],
    thresholds: tuple[float, float],
    x_name: str,
    poles: Sequence[Any] | None = None,
) -> Any:
    """Draw data and fitted curve for each target over one input; below, the score and thresholds.

    A band shows ± 1.96 standard errors of the curve where these are known.

    Args:
        x: Inputs of the data, `(rows,)`.
        targets: Values of the data per target, `(rows,)`; what is not finite is marked at the edge.
        grid: Inputs at which the answers were computed, ascending, `(points,)`.
        answers: One per target, on the grid.
        thresholds: (tau_infer, tau_train).
        x_name: Label of the input.
        poles: Real poles, an array for each target; where the curve jumps if they are left out.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    numpy = require("numpy", extra="plots")
    figure, axes = panels(2, len(targets), share_x="col")
    for column, ((name, y), answer) in enumerate(zip(targets.items(), answers, strict=True)):
        top, below = axes[column], axes[len(targets) + column]
        finite = numpy.isfinite(y)
        top.plot(x[finite], y[finite], ".", color=COLORS["quiet"], ms=4, label="data")
        low, high = _limits(numpy, y[finite])
        top.set_ylim(low, high)
        singular = numpy.full(int((~finite).sum()), 1.0)
        if len(singular):
            where = {"transform": top.get_xaxis_transform(), "clip_on": False}
            top.plot(
                x[~finite],
                singular,
                "v",
                color=COLORS["val"],
                ms=5,
                label="⊥ or ±∞ in the data",
                **where,
            )
        known = None if poles is None else poles[column]
        curve, lines = _broken(numpy, grid, answer.decoded, (low, high), known)
        for index, pole in enumerate(lines):
            top.axvline(pole, color=COLORS["val"], lw=1, ls=":", label=None if index else "pole")
        if answer.error is not None and numpy.isfinite(answer.error).any():
            # beyond the picture the band would only be clipped, and next to a pole overflow
            wide = numpy.minimum(1.96 * answer.error, 10 * (high - low))
            edges = (numpy.clip(curve + sign * wide, 2 * low - high, 2 * high - low)
                     for sign in (-1, 1))  # fmt: skip
            top.fill_between(
                grid,
                *edges,
                color=COLORS["train"],
                alpha=0.25,
                lw=0,
                label="± 1.96 standard errors",
            )
        top.plot(grid, curve, color=COLORS["train"], lw=1.6, label="fit")
        tidy(top, name)
        below.plot(grid, answer.score, color=COLORS["train"], lw=1.2, label="score")
        for tau, label, style in zip(thresholds, ("τ_infer", "τ_train"), ("-", "--"), strict=True):
            below.axhline(tau, color=COLORS["val"], lw=1, ls=style, label=label)
        below.set_yscale("log")
        tidy(below, "score")
        below.set_xlabel(x_name)
    return figure


def _limits(numpy: Any, y: Any) -> tuple[float, float]:
    """Limits that show the body of the data when single rows next to a pole would flatten it."""
    low, high = numpy.quantile(y, [0.1, 0.9])
    body = (high - low) or 1.0
    return max(low - 2 * body, y.min() - 0.1 * body), min(high + 2 * body, y.max() + 0.1 * body)


def _broken(
    numpy: Any, grid: Any, decoded: Any, limits: tuple[float, float], poles: Any
) -> tuple[Any, Any]:
    """Break the curve at its poles: those known, or where it leaves on one side and comes back."""
    curve, (low, high) = decoded.copy(), limits
    if poles is not None:
        after = numpy.searchsorted(grid, poles)
        curve[after[after < len(grid)]] = numpy.nan
        return curve, poles
    side = numpy.where(decoded > high, 1, numpy.where(decoded < low, -1, 0))
    jump = numpy.flatnonzero(side[:-1] * side[1:] < 0)
    curve[jump] = numpy.nan
    return curve, (grid[jump] + grid[jump + 1]) / 2


def _decades(scale: float, largest: float) -> list[float]:
    """Return 0 and some powers of ten of either sign, none in the linear part, where they crowd."""
    low = math.ceil(math.log10(scale))
    high = max(low, math.floor(math.log10(max(largest, scale))))
    powers = [10.0**k for k in range(low, high + 1, 1 + (high - low) // 4)]
    return [-power for power in reversed(powers)] + [0.0, *powers]


def plot_parity(targets: dict[str, Any], answers: Sequence[Answers]) -> Any:
    """Draw predictions against targets, and below how scores separate rows.

    The scale is asinh: linear near 0, logarithmic far out.

    Args:
        targets: Values of the data per target, `(rows,)`.
        answers: One per target, for the same rows.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    numpy = require("numpy", extra="plots")
    figure, axes = panels(2, len(targets), share_x=False, width=4.6, height=3.2)
    for column, ((name, y), answer) in enumerate(zip(targets.items(), answers, strict=True)):
        top, below = axes[column], axes[len(targets) + column]
        finite = numpy.isfinite(y)
        scale = float(numpy.median(numpy.abs(y[finite]))) or 1.0
        for rows, color, label in (
            (finite & ~answer.gap, COLORS["train"], "answer"),
            (finite & answer.gap, COLORS["val"], "in the gap"),
        ):
            top.plot(y[rows], answer.decoded[rows], ".", ms=3, alpha=0.5, color=color, label=label)
        top.set_xscale("asinh", linear_width=scale)
        top.set_yscale("asinh", linear_width=scale)
        ticks = _decades(scale, numpy.abs(y[finite]).max())
        for axis in (top.xaxis, top.yaxis):
            axis.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
            axis.set_ticks([], minor=True)
        top.axline((0, 0), (scale, scale), color=COLORS["quiet"], lw=0.8, zorder=0)
        top.set_xlabel(f"{name}, data")
        tidy(top, f"{name}, predicted")
        bins = numpy.linspace(0, 1, 41)
        for rows, color, label in (
            (finite, COLORS["train"], "finite"),
            (~finite, COLORS["val"], "⊥ or ±∞"),
        ):
            if rows.any():
                share = numpy.full(int(rows.sum()), 1 / rows.sum())
                below.hist(
                    answer.score[rows],
                    bins=bins,
                    weights=share,
                    color=color,
                    alpha=0.6,
                    label=label,
                )
        below.set_xlabel("score")
        tidy(below, "share of rows")
    return figure
