"""Pictures of plain rows and arrays, drawn without a display.

A training run; a fit in one picture: the curve for one input, predictions against targets for
several. No pyplot, so no global state and no window.
"""

import io
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from zeroproof._extras import require
from zeroproof.errors import DataError, ShapeError

__all__ = ["Answers", "plot_curve", "plot_history", "plot_parity"]

# Okabe and Ito's palette, which colour-blind readers can tell apart
_COLORS = {"train": "#0072B2", "val": "#D55E00", "quiet": "#888888", "left out": "#CC79A7"}
_FAR = 5.0  # bodies of the data: values farther out need an axis that is logarithmic there
_NEAR = 10.0  # times tau_train: a score that comes so near is shown
_FEWEST_TICKS = 3
_MOST_TICKS = 7
_PARTS = {"train": ("training", "-"), "val": ("validation", "--")}


def _png(figure: Any) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def _panels(
    rows: int,
    columns: int = 1,
    *,
    width: float = 7.0,
    height: float = 2.2,
    share_x: bool | str = True,
    shares: Sequence[float] | None = None,
    ax: Any = None,
) -> tuple[Any, list[Any]]:
    """Return (figure, axes) for a grid of panels; sizes in inches per panel.

    `shares` gives the rows unequal heights; their sum stays `rows * height`. Axes that are given
    take the place of the first row and of the figure; what is drawn below them nobody sees.

    Raises:
        MissingExtraError: Matplotlib is not installed.
        ShapeError: `ax` are not as many as the columns.
    """
    figure = require("matplotlib.figure", extra="plots").Figure(
        figsize=(width * columns, height * rows), layout="constrained"
    )
    # what IPython asks for; Matplotlib gives figures a picture only once pyplot was imported
    figure._repr_png_ = partial(_png, figure)
    ratios = {"height_ratios": shares}
    axes = figure.subplots(rows, columns, sharex=share_x, squeeze=False, gridspec_kw=ratios)
    if ax is None:
        return figure, list(axes.flat)
    given = list(require("numpy", extra="plots").atleast_1d(ax).flat)
    if len(given) != columns:
        raise ShapeError(f"ax must be one Axes for each target, {columns}, got {len(given)}")
    return ax, [*given, *axes[1:].flat]


def _tidy(axis: Any, ylabel: str) -> None:
    """Label a panel, lighten its frame, and add a legend where more than one line was drawn."""
    axis.set_ylabel(ylabel)
    axis.grid(visible=True, alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    count = len(axis.get_legend_handles_labels()[1])
    if count > 1:
        # above the panel: inside, there is always a fit that it covers; and no wider than it
        inches = axis.bbox.width / axis.figure.dpi
        axis.legend(
            frameon=False,
            loc="lower left",
            bbox_to_anchor=(0, 1),
            ncols=max(1, min(count, 4, int(inches / 1.2))),
            fontsize="small",
            columnspacing=1.2,
            handlelength=1.5,
        )


# --- a training run -------------------------------------------------------------------------------


def plot_history(rows: Sequence[Mapping[str, float]], ax: Any = None) -> Any:
    """Draw loss (logarithmic where all values are positive), coverage and gap over the epochs.

    Args:
        rows: One mapping per epoch with the keys of `History`; what is absent is not drawn.
        ax: A `matplotlib.axes.Axes` to draw the loss alone into.

    Returns:
        A `matplotlib.figure.Figure`, or `ax`. `figure.savefig(path)` writes it, and it shows itself
        in a notebook. No window is opened.

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
    figure, (loss, coverage, gap) = _panels(3, ax=ax)
    if _lines(loss, rows, "loss"):
        loss.set_yscale("log")
    _lines(coverage, rows, "coverage")
    coverage.set_ylim(-0.03, 1.03)
    _lines(gap, rows, "gap")
    gap.set_ylim(bottom=-0.03 * gap.get_ylim()[1])  # a line at 0 stays off the frame
    for axis, label in ((loss, "loss"), (coverage, "coverage"), (gap, "share in the gap")):
        _tidy(axis, label)
    lowest = gap if ax is None else loss
    lowest.set_xlabel("epoch")
    lowest.xaxis.get_major_locator().set_params(integer=True)
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
            axis.plot(epochs, values, style, color=_COLORS[part], marker=".", label=label)
            drawn.extend(values)
    return bool(drawn) and min(drawn) > 0


# --- a fit ----------------------------------------------------------------------------------------


class Answers(NamedTuple):
    """Decoded answers for one target, row by row; NumPy arrays of one length."""

    decoded: Any  # nan at ⊥
    bottom: Any
    gap: Any
    score: Any
    error: Any = None  # standard errors; nan where they are not known
    left_out: Any = None  # rows that the fit did not use; none if it is not known


def plot_curve(  # noqa: PLR0913 - what is drawn, and where
    x: Any,
    targets: dict[str, Any],
    grid: Any,
    answers: Sequence[Answers],
    thresholds: tuple[float, float],
    x_name: str,
    poles: Sequence[Any] | None = None,
    at_rows: Sequence[Answers] | None = None,
    *,
    ax: Any = None,
) -> Any:
    """Draw data and fitted curve for each target over one input.

    Below are the residuals, if the answers at the rows are given, and the score with its
    thresholds, if it comes near them. A band shows ± 1.96 standard errors of the
    curve where these are known. The axis of y holds the body of the data and every peak of the
    fit, but no pole; rows beyond it are marked at its edge.

    Args:
        x: Inputs of the data, `(rows,)`.
        targets: Values of the data per target, `(rows,)`; what is not finite is marked at the edge.
        grid: Inputs at which the answers were computed, ascending, `(points,)`.
        answers: One per target, on the grid.
        thresholds: (tau_infer, tau_train).
        x_name: Label of the input.
        poles: Real poles, an array for each target; where the curve jumps if they are left out.
        at_rows: Answers at `x`, one per target; rows they call left out are marked.
        ax: A `matplotlib.axes.Axes` to draw data and curve alone into; of several targets an array
            or a list of them, one for each.

    Returns:
        A `matplotlib.figure.Figure`, or `ax`.
    """
    numpy = require("numpy", extra="plots")
    left_out = _left_out(numpy, at_rows[0] if at_rows else None, x)
    known = [None] * len(targets) if poles is None else poles
    curves = [
        _curve(numpy, grid, answer.decoded, y[numpy.isfinite(y) & ~left_out], real)
        for y, answer, real in zip(targets.values(), answers, known, strict=True)
    ]
    # a score that stays far above the thresholds has nothing to show: D is near its size all over
    singular = any((answer.score <= _NEAR * thresholds[1]).any() for answer in answers)
    kinds = ["fit", *["residuals"] * (at_rows is not None), *["score"] * singular]
    figure, axes = _panels(
        len(kinds),
        len(targets),
        share_x="col",
        height=(1.8 + 1.5 * len(kinds)) / len(kinds),
        shares=[2.0, *[1.0] * (len(kinds) - 1)],
        ax=ax,
    )
    for column, ((name, y), answer, curve) in enumerate(
        zip(targets.items(), answers, curves, strict=True)
    ):
        panel = dict(zip(kinds, axes[column :: len(targets)], strict=True))
        _draw_fit(numpy, panel["fit"], x, y, grid, answer, curve, left_out)
        _tidy(panel["fit"], name)
        if at_rows is not None:
            residual = y - at_rows[column].decoded
            _draw_residuals(numpy, panel["residuals"], x, residual, left_out)
        if singular:
            _draw_score(panel["score"], grid, answer.score, thresholds)
        panel[kinds[-1] if ax is None else "fit"].set_xlabel(x_name)
    return figure


class _Curve(NamedTuple):
    """A fitted curve, broken at its poles, and the limits of y that show it."""

    values: Any
    poles: Any
    low: float
    high: float


def _curve(numpy: Any, grid: Any, decoded: Any, y: Any, poles: Any) -> _Curve:
    """Break a curve at its poles: those known, or where it leaves on one side and comes back."""
    values, (low, high) = decoded.copy(), _body(numpy, y)
    if poles is None:
        side = numpy.where(values > high, 1, numpy.where(values < low, -1, 0))
        jump = numpy.flatnonzero(side[:-1] * side[1:] < 0)
        poles, near = (grid[jump] + grid[jump + 1]) / 2, jump
    else:
        near = numpy.searchsorted(grid, poles)
        near = near[near < len(grid)]
    values[near] = numpy.nan
    # A peak turns, a pole does not: next to it the curve only rises or only falls. Two points on
    # either side may lie beyond a pole that is known to a rounding error only.
    calm = values.copy()
    for shift in (-2, -1, 1, 2):
        calm[numpy.clip(near + shift, 0, len(grid) - 1)] = numpy.nan
    step = numpy.diff(calm)
    turns = calm[1:-1][step[:-1] * step[1:] <= 0]
    if len(turns) and (turns.min() < low or turns.max() > high):
        low, high = min(low, turns.min()), max(high, turns.max())
        low, high = low - 0.05 * (high - low), high + 0.05 * (high - low)
    return _Curve(values, poles, low, high)


def _left_out(numpy: Any, answer: Answers | None, rows: Any) -> Any:
    if answer is None or answer.left_out is None:
        return numpy.zeros(len(rows), bool)
    return numpy.asarray(answer.left_out, bool)


def _body(numpy: Any, y: Any) -> tuple[float, float]:
    """Limits that show the body of the data when single rows next to a pole would flatten it."""
    low, high = numpy.quantile(y, [0.1, 0.9])
    body = (high - low) or 1.0
    return max(low - 2 * body, y.min() - 0.1 * body), min(high + 2 * body, y.max() + 0.1 * body)


def _points(numpy: Any, axis: Any, x: Any, y: Any, left_out: Any, label: str) -> None:
    """Draw rows; those beyond the limits as arrows at the edge, those left out as crosses."""
    low, high = axis.get_ylim()
    over, under = y > high, y < low
    ways = (
        (~left_out & ~over & ~under, ".", _COLORS["quiet"], 4, label),
        (~left_out & over, "^", _COLORS["quiet"], 3, "beyond the axis"),
        (~left_out & under, "v", _COLORS["quiet"], 3, None if over.any() else "beyond the axis"),
        (left_out, "x", _COLORS["left out"], 6, "left out"),
    )
    for rows, marker, color, size, name in ways:
        shown = rows & numpy.isfinite(y)
        if shown.any():
            at = numpy.clip(y[shown], low, high)
            edge = {"clip_on": False} if marker != "." else {}
            axis.plot(x[shown], at, marker, color=color, ms=size, label=name, ls="", **edge)


def _draw_fit(
    numpy: Any, axis: Any, x: Any, y: Any, grid: Any, answer: Answers, curve: _Curve, left_out: Any
) -> None:
    low, high = curve.low, curve.high
    axis.set_ylim(low, high)
    _points(numpy, axis, x, y, left_out, "data")
    finite = numpy.isfinite(y)
    if not finite.all():
        axis.plot(
            x[~finite],
            numpy.full(int((~finite).sum()), 1.0),
            "v",
            color=_COLORS["val"],
            ms=5,
            label="⊥ or ±∞ in the data",
            transform=axis.get_xaxis_transform(),
            clip_on=False,
        )
    for index, pole in enumerate(curve.poles):
        axis.axvline(pole, color=_COLORS["val"], lw=1, ls=":", label=None if index else "pole")
    if answer.error is not None and numpy.isfinite(answer.error).any():
        # beyond the picture the band would only be clipped, and next to a pole overflow
        wide = numpy.minimum(1.96 * answer.error, 10 * (high - low))
        edges = (
            numpy.clip(curve.values + sign * wide, 2 * low - high, 2 * high - low)
            for sign in (-1, 1)
        )
        axis.fill_between(
            grid,
            *edges,
            color=_COLORS["train"],
            alpha=0.25,
            lw=0,
            label="± 1.96 standard errors",
        )
    axis.plot(grid, curve.values, color=_COLORS["train"], lw=1.6, label="fit")


def _draw_residuals(numpy: Any, axis: Any, x: Any, residual: Any, left_out: Any) -> None:
    """Draw data less fit over x; next to a pole they grow, so their body sets the limits."""
    used = residual[numpy.isfinite(residual) & ~left_out]
    if len(used):
        low, high = _body(numpy, used)
        size = max(-low, high) or 1.0
        axis.set_ylim(-size, size)
    axis.axhline(0, color=_COLORS["train"], lw=1)
    _points(numpy, axis, x, residual, left_out, "")
    axis.set_ylabel("data - fit")
    axis.grid(visible=True, alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)


def _draw_score(axis: Any, grid: Any, score: Any, thresholds: tuple[float, float]) -> None:
    axis.plot(grid, score, color=_COLORS["train"], lw=1.2, label="score")
    for tau, label, style in zip(thresholds, ("τ_infer", "τ_train"), ("-", "--"), strict=True):
        axis.axhline(tau, color=_COLORS["val"], lw=1, ls=style, label=label)
    axis.set_yscale("log")
    _tidy(axis, "score")


def plot_parity(targets: dict[str, Any], answers: Sequence[Answers], ax: Any = None) -> Any:
    """Draw predictions against targets; below, the residuals, or how scores separate rows.

    Scores are shown if some row is ⊥ or in the gap, in the data or by the fit. Where values
    reach far beyond their body the scale is asinh: linear near 0, logarithmic far out.

    Args:
        targets: Values of the data per target, `(rows,)`.
        answers: One per target, for the same rows.
        ax: As in `plot_curve`, for the upper panel alone.

    Returns:
        A `matplotlib.figure.Figure`, or `ax`.
    """
    numpy = require("numpy", extra="plots")
    figure, axes = _panels(
        2, len(targets), share_x=False, width=4.6, height=3.2, shares=[1.7, 1], ax=ax
    )
    for column, ((name, y), answer) in enumerate(zip(targets.items(), answers, strict=True)):
        top, below = axes[column], axes[len(targets) + column]
        finite = numpy.isfinite(y)
        out = _left_out(numpy, answer, y)
        shown = numpy.concatenate([y[finite], answer.decoded[numpy.isfinite(answer.decoded)]])
        low, high = float(shown.min()), float(shown.max())
        for rows, marker, color, label in (
            (finite & ~answer.gap & ~out, ".", _COLORS["train"], "answer"),
            (finite & answer.gap & ~out, ".", _COLORS["val"], "in the gap"),
            (finite & out, "x", _COLORS["left out"], "left out"),
        ):
            if rows.any():
                look = {"ms": 3, "alpha": 0.5} if marker == "." else {"ms": 6}
                top.plot(y[rows], answer.decoded[rows], marker, color=color, label=label, **look)
        _spread_out(numpy, top, "xy", y[finite], low, high)
        top.plot([low, high], [low, high], color=_COLORS["quiet"], lw=0.8, zorder=0)
        top.set_xlabel(f"{name}, data")
        _tidy(top, f"{name}, predicted")
        if finite.all() and not answer.gap.any() and not answer.bottom.any():
            _draw_residuals(numpy, below, answer.decoded, y - answer.decoded, out)
            _spread_out(numpy, below, "x", y[finite], low, high)
            below.set_xlabel(f"{name}, predicted")
            continue
        bins = numpy.linspace(0, 1, 41)
        for rows, color, label in (
            (finite, _COLORS["train"], "finite"),
            (~finite, _COLORS["val"], "⊥ or ±∞"),
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
        _tidy(below, "share of rows")
    return figure


def _spread_out(numpy: Any, panel: Any, ways: str, y: Any, low: float, high: float) -> None:
    """Make axes of a panel asinh if some of [low, high] lies far beyond the body of y."""
    body = float(numpy.ptp(numpy.quantile(y, [0.1, 0.9]))) or float(numpy.ptp(y))
    if high - low <= _FAR * body:
        return
    scale = float(numpy.median(numpy.abs(y))) or 1.0
    ticks = _decades(numpy, scale, low, high)
    for way in ways:
        getattr(panel, f"set_{way}scale")("asinh", linear_width=scale)
        axis = getattr(panel, f"{way}axis")
        axis.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
        axis.set_ticks([], minor=True)


def _decades(numpy: Any, scale: float, low: float, high: float) -> Any:
    """Return 0 and powers of ten of either sign in [low, high], none so small that they crowd.

    Where this gives less than three, as between 3 and 30, also their multiples.
    """
    first, last = numpy.floor(numpy.log10([scale, max(-low, high, scale)]))
    for steps in ((1,), (1, 3), (1, 2, 5)):
        sizes = numpy.outer(10.0 ** numpy.arange(first, last + 1), steps).ravel()
        ticks = _thinned(numpy, sizes[sizes >= 0.9 * scale], low, high)
        if len(ticks) >= _FEWEST_TICKS:
            return ticks
    return numpy.linspace(low, high, _FEWEST_TICKS)


def _thinned(numpy: Any, sizes: Any, low: float, high: float) -> Any:
    """Return 0 and ± every k-th size, those in [low, high], with the least k that suffices."""
    for k in range(1, len(sizes) + 1):
        chosen = sizes[::-k][::-1]
        ticks = numpy.concatenate([-chosen[::-1], [0.0], chosen])
        ticks = ticks[(ticks >= low) & (ticks <= high)]
        if len(ticks) <= _MOST_TICKS:
            return ticks
    return sizes[:0]
