"""What every task shares: a problem, our fit of it, errors beside its poles, a row of the table."""

import math
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Predict = Callable[[Array], Array]


class Effort(NamedTuple):
    """How long a run may take."""

    seeds: int = 5  # of ours and of the classical methods
    trained_seeds: int = 3  # of the baselines that are trained; 0 leaves them out
    steps: int = 2000  # of Adam, for each of them


class Problem(NamedTuple):
    """Rows to fit and points to judge on."""

    name: str
    sample: Callable[[int], tuple[Array, Array]]  # seed to X (n, d) and y (n,) or (n, k)
    truth: Predict
    points: Callable[[int], dict[str, Array]]  # seed to test points by the name of their place


class Fit(NamedTuple):
    """One fit of ours."""

    model: Any
    seconds: float


class Row(NamedTuple):
    """One line of the table."""

    task: str
    measure: str
    ours: list[float]  # one for each seed
    bound: float | None  # None: shown, not judged
    others: dict[str, list[float]]
    note: str = ""
    every: bool = False  # the worst seed counts, not the median
    least: bool = False  # the bound is a lower one
    met: bool | None = None  # judged by the task itself


def fit(problem: Problem, seed: int, **options: Any) -> Fit:
    """Fit the estimator to the rows of one seed."""
    X, y = problem.sample(seed)
    return fit_rows(X, y, seed, **options)


def fit_rows(X: Array, y: Array, seed: int, **options: Any) -> Fit:
    """Fit the estimator; what it warns about is not shown."""
    from zeroproof import ProjectiveRegressor

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        start = time.perf_counter()
        model = ProjectiveRegressor(**{"random_state": seed, **options}).fit(X, y)
        seconds = time.perf_counter() - start
    return Fit(model, seconds)


def error(predict: Predict, truth: Predict, X: Array) -> float:
    """Return the median relative error; an answer that is not finite counts as infinitely wrong."""
    y = truth(X).reshape(len(X), -1)
    miss = np.abs(np.asarray(predict(X)).reshape(y.shape) - y)
    size = np.linalg.norm(y, axis=1)
    relative = np.linalg.norm(miss, axis=1) / np.maximum(size, np.finfo(float).tiny)
    return float(np.median(np.where(np.isfinite(relative), relative, np.inf)))


def errors(problem: Problem, predict: Predict, seed: int) -> dict[str, float]:
    """Return the error in every place."""
    return {place: value for place, (value, _) in asked(problem, predict, seed).items()}


def asked(problem: Problem, predict: Predict, seed: int) -> dict[str, tuple[float, list[str]]]:
    """Return the error in every place, and what the model warned about when asked there."""
    found = {}
    for place, X in problem.points(seed).items():
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            value = error(predict, problem.truth, X)
        found[place] = value, [str(each.message) for each in caught]
    return found


def gathered(runs: list[dict[str, float]]) -> dict[str, list[float]]:
    """Turn a list of dicts into a dict of lists."""
    return {name: [run[name] for run in runs] for name in (runs[0] if runs else {})}


def by_place(others: dict[str, list[dict[str, float]]], place: str) -> dict[str, list[float]]:
    """Pick one place out of the errors of every method."""
    return {name: [run[place] for run in runs] for name, runs in others.items()}


def judged(row: Row) -> str:
    """Return MET, missed, or nothing where there is no bound."""
    if row.met is not None:
        return "MET" if row.met else "missed"
    if row.bound is None:
        return ""
    worst = min(row.ours) if row.least else max(row.ours)
    value = worst if row.every else median(row.ours)
    return "MET" if (value >= row.bound if row.least else value <= row.bound) else "missed"


def line(row: Row) -> str:
    """Return a row of the table in Markdown."""
    middle = median(row.ours)
    worst = min(row.ours) if row.least else max(row.ours)
    sign = "≥" if row.least else "≤"
    bound = "" if row.bound is None else f"{sign} {short(row.bound)}"
    bound += ", every seed" if row.every else ""
    others = ", ".join(f"{name} {short(median(values))}" for name, values in row.others.items())
    note = f" ({row.note})" if row.note else ""
    ours = short(middle) if len(row.ours) == 1 else f"{short(middle)} ({short(worst)})"
    cells = (row.task, row.measure + note, ours, bound, judged(row), others)
    return "| " + " | ".join(cells) + " |"


def short(value: float) -> str:
    """Write a number in few letters."""
    if not math.isfinite(value):
        return "none"
    if value == 0 or 1e-2 <= abs(value) < 1e3:
        return f"{value:.3g}"
    return f"{value:.1e}"


def distances(
    random: np.random.Generator, count: int, low: float = 1e-3, high: float = 1e-1
) -> Array:
    """Draw distances evenly in their logarithm, of either sign."""
    size = 10 ** random.uniform(math.log10(low), math.log10(high), count)
    return size * random.choice([-1.0, 1.0], count)


def rows_of(task: Callable[[Effort], Iterator[Row]], effort: Effort) -> Iterator[Row]:
    """Run a task; one that breaks is a missed bound, and does not end the table."""
    try:
        yield from task(effort)
    except Exception as failure:
        traceback.print_exc()
        note = f"{type(failure).__name__}: {failure}".splitlines()[0][:160]
        yield Row(task.__name__, "broke", [math.inf], None, {}, note=note, met=False)
