"""Errors, and what a fitted model of ours tells: poles, standard errors, labels.

What a version does not tell yet is None, and shown as such.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from benchmarks.field.case import FLOOR, Array, Case, Draw, error_line, most, over, told

SMALL = 1e-2  # of the median of |y|: relative errors below it are not asked for
NEAR = 0.01  # of the range of x: so near a listed pole is a true one


class Ours(NamedTuple):
    """Our fit of one draw."""

    model: Any
    seconds: float  # of the processor
    error: float
    plain: Any  # the fit of the same rows without outliers, if there are some
    predicted: Array


def fitted(case: Case, X: Array, y: Array, **options: Any) -> tuple[Any, float]:
    """Fit the estimator as it comes, and return the processor's seconds it took."""
    from zeroproof import ProjectiveRegressor

    declared = np.iscomplexobj(y)
    symmetry = "conjugate" if case.conjugate else "auto"
    model: Any = ProjectiveRegressor(symmetry=symmetry if declared else "none", **options)
    start = time.process_time()
    model.fit(X, y)
    return model, time.process_time() - start


def ours(case: Case, draw: Draw) -> Ours:
    """Fit a draw and ask it."""
    model, seconds = fitted(case, draw.X, draw.y)
    predicted = np.asarray(model.predict(draw.T))
    plain = None if draw.plain is None else fitted(case, *draw.plain)[0]
    return Ours(model, seconds, case.error(predicted, draw), plain, predicted)


def spread_error(predicted: Array, draw: Draw) -> float:
    """Return RMSE / std; an answer that is not finite is infinitely wrong."""
    miss = np.abs(predicted.reshape(draw.truth.shape) - draw.truth)
    value = np.sqrt(np.mean(miss**2)) / max(np.std(draw.truth), np.finfo(float).tiny)
    return float(value) if np.isfinite(value) else np.inf


def relative_error(predicted: Array, draw: Draw) -> float:
    """Return the median relative error over the places whose truth is finite."""
    truth = draw.truth.reshape(len(draw.truth), -1)
    use = np.isfinite(truth).all(1)
    miss = np.linalg.norm(predicted.reshape(truth.shape)[use] - truth[use], axis=1)
    size = np.linalg.norm(truth[use], axis=1)
    relative = miss / (size + SMALL * np.median(size))
    return float(np.median(np.where(np.isfinite(relative), relative, np.inf)))


def inside(model: Any, draw: Draw) -> Array | None:
    """Return the real poles claimed inside the data of one column."""
    if draw.X.shape[1] != 1:
        return None
    return np.sort(np.real(np.asarray(model.poles(within=True))))


def poles_claimed(draw: Draw, ours: Ours) -> float:
    """Count poles claimed inside; for several columns, 1 if D changes its sign between rows."""
    found = inside(ours.model, draw)
    if found is not None:
        return float(len(found))
    D = np.concatenate([np.asarray(ours.model.tuples(X)[1]) for X in (draw.X, draw.T)])
    return float(((D < 0).any(0) & (D > 0).any(0)).any())


def bottom(draw: Draw, ours: Ours) -> float:
    """Return the share of answers that are ⊥ or not finite."""
    return float(np.mean(~np.isfinite(ours.predicted)))


def bottom_on_rows(draw: Draw, ours: Ours) -> float:
    """Return the share of finite training rows that are answered ⊥."""
    use = np.isfinite(draw.y)
    return float(np.mean(~np.isfinite(np.asarray(ours.model.predict(draw.X))[use])))


def outside(draw: Draw, ours: Ours) -> float:
    """Return how far answers leave the range of the measured values, in units of it."""
    if not np.isfinite(ours.predicted).all():
        return np.inf
    over = max(ours.predicted.max() - draw.y.max(), draw.y.min() - ours.predicted.min(), 0.0)
    return float(over / np.ptp(draw.y))


def all_right(draw: Draw, ours: Ours) -> float | None:
    """Return 1 if the poles claimed inside are the true ones, by number and place."""
    found = inside(ours.model, draw)
    if found is None or draw.poles is None:
        return None
    if len(found) != len(draw.poles):
        return 0.0
    near = np.abs(found - np.sort(draw.poles)) <= NEAR * np.ptp(draw.X[:, 0])
    return float(near.all())


def found_share(draw: Draw, ours: Ours) -> float | None:
    """Return the share of the true poles that are claimed, less those that are invented."""
    found = inside(ours.model, draw)
    if found is None or draw.poles is None:
        return None
    spacing = np.min(np.diff(np.sort(draw.poles))) if len(draw.poles) > 1 else 1.0
    hit = np.array([np.any(np.abs(found - p) < 0.1 * spacing) for p in draw.poles])
    return float((hit.sum() - max(len(found) - hit.sum(), 0)) / len(draw.poles))


def covered(field: str, width: float) -> Callable[[Draw, Ours], float | None]:
    """Return a measure: the share of true poles, or residues, within `width` standard errors."""

    def of(draw: Draw, ours: Ours) -> float | None:
        table = ours.model.pole_table(output=0)
        error = getattr(table, f"{field}_se", None)
        truth = draw.poles if field == "position" else draw.residues
        if error is None or draw.poles is None or truth is None:
            return None
        if not len(error):
            return 0.0
        position = _over_frequency(np.asarray(table.position), draw.poles)
        value = position if field == "position" else np.asarray(table.residue)
        nearest = np.abs(position - draw.poles[:, None]).argmin(1)
        return float(np.mean(np.abs(value[nearest] - truth) <= width * np.asarray(error)[nearest]))

    return of


def _over_frequency(found: Array, true: Array) -> Array:
    """Return poles over ω that may be given in s = iω, whichever is nearer to the true ones."""
    ways = [found, -1j * found]
    return min(ways, key=lambda way: float(np.abs(way - true[:, None]).min(1, initial=1e99).sum()))


def caught(draw: Draw, ours: Ours) -> float | None:
    """Return the share of the singular places that are answered ⊥ or infinite."""
    singular = ~np.isfinite(draw.truth)
    return float(np.mean(~np.isfinite(ours.predicted[singular]))) if singular.any() else None


def lost(draw: Draw, ours: Ours) -> float | None:
    """Return the share of the regular places that are answered ⊥ or infinite."""
    return float(np.mean(~np.isfinite(ours.predicted[np.isfinite(draw.truth)])))


def over_plain(error: Callable[[Array, Draw], float]) -> Callable[[Draw, Ours], float]:
    """Return a measure: the error over that of the same rows without outliers."""

    def of(draw: Draw, ours: Ours) -> float:
        plain = error(np.asarray(ours.plain.predict(draw.T)), draw)
        return max(ours.error, FLOOR) / max(plain, FLOOR)

    return of


def named(draw: Draw, ours: Ours) -> float:
    """Return the share of the rows that are left out as outliers where none is one."""
    model = ours.model if ours.plain is None else ours.plain
    return len(model.left_out_) / len(draw.y if draw.plain is None else draw.plain[1])


def cpu_seconds(draw: Draw, ours: Ours) -> float:
    """Return the seconds of the processor that the fit took."""
    return ours.seconds


def stable_right(tolerance: float) -> Callable[[Draw, Ours], float | None]:
    """Return a measure: 1 if the complex poles are the true ones, real and negative in s."""

    def of(draw: Draw, ours: Ours) -> float | None:
        if draw.poles is None:
            return None
        found = _over_frequency(np.asarray(ours.model.poles(), dtype=complex), draw.poles)
        if len(found) != len(draw.poles):
            return 0.0
        found, true = found[found.imag.argsort()], draw.poles[draw.poles.imag.argsort()]
        return float((np.abs(found / true - 1) <= tolerance).all())

    return of


def pair_error(frequency: float, width: float) -> Callable[[Draw, Ours], float]:
    """Return a measure: the worse of the errors of a resonance over their two tolerances."""

    def of(draw: Draw, ours: Ours) -> float:
        true = draw.poles[0]
        found = np.asarray(ours.model.poles(), dtype=complex)
        if not len(found):
            return np.inf
        found = _over_frequency(found, draw.poles)
        size = np.abs(found.real - true.real) + np.abs(np.abs(found.imag) - true.imag)
        nearest = found[size.argmin()]
        shift = abs(nearest.real / true.real - 1) / frequency
        return float(max(shift, abs(abs(nearest.imag) / true.imag - 1) / width))

    return of


def one_pair(draw: Draw, ours: Ours) -> float:
    """Return 1 if exactly one complex pole, or conjugate pair, lies within five half widths."""
    true = draw.poles[0]
    found = _over_frequency(np.asarray(ours.model.poles(), dtype=complex), draw.poles)
    close = found[np.abs(found.real - true.real) <= 5 * true.imag]
    close = close[np.abs(close.imag) <= 5 * true.imag]
    upper, lower = int((close.imag > 0).sum()), int((close.imag <= 0).sum())
    return float(max(upper, lower) == 1)


RELATIVE = error_line("relative error")
AS_AAA = over(("AAA",), most("median", 10))
NO_POLES = told("poles claimed", poles_claimed, most("worst", 0))
NO_BOTTOM = told("⊥ or inf", bottom, most("worst", 0))
