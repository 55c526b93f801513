"""What a race says of a fit: errors on rows held out, beside those of plain models."""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingRegressor
from threadpoolctl import threadpool_limits

from zeroproof.estimators.closed_form import ClosedForm, Compared
from zeroproof.estimators.model import Model
from zeroproof.estimators.options import Rows
from zeroproof.projective.angle import chordal_distance
from zeroproof.solve.race import Held, RaceFit
from zeroproof.solve.recipe import Recipe
from zeroproof.solve.search import FLOOR
from zeroproof.solve.space import EPS

__all__ = ["beside", "boosted", "closed", "compared", "held_out", "relative_error"]

Array = NDArray[Any]

CLEAN = 1e-8  # typical relative error below which only rounding tells forms apart
EQUAL = 20.0  # rounding floors, below which signals are fitted alike
_SHOWN = ("constant", "line", "linear", "ridge")
_BOOSTED = 50  # rows from which gradient boosting is measured
_POWERS = {"relative": 1, "mixed": 0, "additive": 2}


def closed(race: RaceFit, y: Array, model: Model, name: str, recipe: Recipe | None) -> ClosedForm:
    """Return a fit with what the race measured."""
    error, near = chordal_errors(race, y)
    return ClosedForm(
        model=model,
        name=name,
        recipe=recipe,
        error=error,
        shell=error,
        near=near,
        relative=relative_error(race, y),
        shared=True,
        power=_POWERS[race.noise],
        polished=False,
        alternates=(),
        tried=tuple((e.name, e.held.body, round(e.free)) for e in race.tied),
        comparison=compared(race),
    )


def compared(race: RaceFit) -> tuple[Compared, ...]:
    """Set the winner beside the best of the plain models: constant, straight, ridge, curved."""
    plain = [e for e in race.entries if not e.candidate.q and e is not race.entry]
    best = min(plain, key=lambda e: e.held.error.mean(), default=None)
    shown = [e for e in plain if e.name in _SHOWN or e is best]
    return tuple(beside(race, e.name, e.held, e is race.entry) for e in (race.entry, *shown))


def beside(race: RaceFit, name: str, held: Held, delivered: bool = False) -> Compared:
    """Return the error on unseen rows in units of the best constant's."""
    constant = next((e for e in race.entries if e.name == "constant"), race.entry)
    unit = float(constant.held.error.mean()) or 1.0
    means = held.by_fold(held.error) / unit
    error = math.sqrt(float(held.error.mean()) / unit)
    spread = float(means.std(ddof=1)) / math.sqrt(len(means)) if len(means) > 1 else math.inf
    return Compared(name, error, spread / (2 * error or 1.0), delivered)


def boosted(fit: ClosedForm, race: RaceFit, rows: Rows) -> ClosedForm:
    """Set gradient boosting beside a fit, on the same unseen rows; folds go by thirds."""
    if len(rows.X) < _BOOSTED or fit.relative < CLEAN or rows.y.is_complex():
        return fit
    X, y, weight = (part.numpy() for part in rows[:3])
    answers = np.empty_like(y)
    with threadpool_limits(1):
        for third in np.unique(race.fold % 3):
            own = race.fold % 3 == third
            for j in range(y.shape[1]):
                model = HistGradientBoostingRegressor(random_state=0)
                inverse = weight[~own] / race.deviation[~own, j] ** 2
                answers[own, j] = model.fit(X[~own], y[~own, j], inverse).predict(X[own])
    rival = beside(race, "gradient boosting", held_out(race, answers, y))
    return fit._replace(comparison=(*fit.comparison, rival))


def held_out(
    race: RaceFit,
    answers: Array,
    y: Array,
    *,
    rows: Array | None = None,
    floor: Array | None = None,
) -> Held:
    """Score answers of rows held out as the race does; errors below the floor are equal."""
    rows = race.inner if rows is None else rows
    floor = 50 * EPS * np.abs(y) if floor is None else floor
    error = np.abs(answers - y)
    error = np.where(np.isfinite(error), np.maximum(error, floor), 1e150)
    square = np.minimum((error / race.deviation) ** 2, 1e300).mean(1)
    return Held(square[rows], race.fold[rows], race.noise)


def relative_error(race: RaceFit, y: Array) -> float:
    """Return the median relative error of rows held out."""
    error = np.abs(race.entry.answers - y) / np.maximum(np.abs(y), 1e-3)
    return float(np.median(error[race.inner]))


def chordal_errors(race: RaceFit, y: Array) -> tuple[float, float]:
    """Return the mean squared chordal distance of held-out rows, and that of those nearest to ⊥."""
    inner = torch.from_numpy(race.inner)
    answers, targets = (
        torch.from_numpy(np.nan_to_num(part, nan=1e150))[inner].flatten()
        for part in (race.entry.answers, y)
    )
    one = torch.ones_like(targets)
    square, size = chordal_distance(answers, one, targets, one).square(), targets.abs()
    far = size.argsort(descending=True)[: max(5, len(size) // 10)]
    return max(float(square.mean()), FLOOR), max(float(square[far].mean()), FLOOR)
