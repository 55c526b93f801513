"""Five functions of one variable with poles in [-1, 1], 2000 samples: clean, and with 1 % noise."""

import math
import warnings
from collections.abc import Iterator
from statistics import median
from typing import Any

import numpy as np
import torch
from scipy.interpolate import AAA

from benchmarks.solve import poles as clean
from benchmarks.solve.baselines import baselines
from benchmarks.solve.measure import (
    Array,
    Effort,
    Fit,
    Problem,
    Row,
    by_place,
    errors,
    fit,
    gathered,
)

NOISE = 0.01
RTOLS = tuple(10**-e for e in (1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5, 6, 7))  # noisy rows
TERMS = (2, 3, 4, 5, 6, 7, 8, 10, 13, 16, 20)
SAME = 1e-6  # poles nearer to each other count once


def problem_of(one: clean.Problem, noise: float = 0.0) -> Problem:
    """Return a function of the clean benchmark as a problem, with noise in proportion to y."""

    def sample(seed: int) -> tuple[Array, Array]:
        x, y = (part.numpy() for part in clean.samples(one, seed, 0.0))
        draws = np.random.default_rng(seed).standard_normal(len(y))
        return x[:, None], y * (1 + noise * draws)

    def truth(X: Array) -> Array:
        return one.f(torch.from_numpy(X[:, 0])).numpy()

    even = torch.linspace(-1, 1, 4001, dtype=torch.float64)
    places = {
        "near": clean.band(one, 1e-3, 1e-1),
        "within 1e-3": clean.band(one, 1e-6, 1e-3),
        "far": even[clean.distance(one, even) > 0.1],
    }
    columns = {name: x.numpy()[:, None] for name, x in places.items()}
    return Problem(one.name, sample, truth, lambda seed: columns)


def position(found: Array, one: clean.Problem) -> float:
    """Return the largest distance of a true pole to the nearest found one, complex ones too."""
    found = np.asarray(found, dtype=complex).reshape(-1)
    if not len(found):
        return math.inf
    return max(float(np.abs(found - pole).min()) for pole in one.poles)


def count(found: Array) -> int:
    """Count the poles on [-1, 1], those of the same place once."""
    found = np.asarray(found, dtype=complex).reshape(-1)
    real = np.sort(np.real(found)[(np.abs(np.imag(found)) < SAME) & (np.abs(np.real(found)) <= 1)])
    return int((np.diff(real, prepend=-np.inf) > SAME).sum())


def poles(effort: Effort) -> Iterator[Row]:
    """Clean samples: random features alone, then whatever the estimator takes."""
    for one in clean.PROBLEMS:
        problem = problem_of(one)
        seeds = range(effort.seeds)
        drawn = [errors(problem, _fit(problem, s, "random").model.predict, s) for s in seeds]
        task, others = f"{one.name}, random features", baselines(problem, effort)
        yield Row(task, "near", gathered(drawn)["near"], 1e-9, by_place(others, "near"))
        yield from _auto(one, problem, effort, others)


def _auto(one: clean.Problem, problem: Problem, effort: Effort, others: dict) -> Iterator[Row]:
    tables = [clean.samples(one, seed, 0.0) for seed in range(effort.seeds)]
    aaa = [clean.aaa(one, *table) for table in tables]
    fits = [_fit(problem, seed, "auto") for seed in range(effort.seeds)]
    seeds = enumerate(fits)
    ours = gathered([errors(problem, each.model.predict, seed) for seed, each in seeds])
    seconds = median(each.seconds for each in fits)
    places = (("near", 2, "near"), ("within 1e-3", 10, "within"), ("far", None, "far"))
    for place, factor, field in places:
        theirs = [getattr(score, field) for score in aaa]
        bound = factor and factor * median(theirs)
        named = {"AAA": theirs, **by_place(others, place)}
        note = f"{factor} x AAA, {seconds:.1f} s" if factor else ""
        yield Row(one.name, place, ours[place], bound, named, note=note)
    found = [each.model.poles() for each in fits]
    theirs = {"AAA": [score.position for score in aaa]}
    yield Row(one.name, "pole", [position(each, one) for each in found], one.bound, theirs)
    surplus = [float(abs(count(each) - len(one.poles))) for each in found]
    theirs = {"AAA": [float(abs(score.surplus)) for score in aaa]}
    yield Row(one.name, "poles too many or few", surplus, 0, theirs, every=True)


def noise(effort: Effort) -> Iterator[Row]:
    """The same with noise, beside the best rtol of AAA in each column, chosen with the truth.

    Also shown: the best number of terms, chosen anew for every seed, which no user could do.
    """
    for one in clean.PROBLEMS:
        problem = problem_of(one, NOISE)
        others = baselines(problem, effort)
        fits = [_fit(problem, seed, "auto") for seed in range(effort.seeds)]
        seeds = enumerate(fits)
        ours = gathered([errors(problem, each.model.predict, seed) for seed, each in seeds])
        ours["pole"] = [position(each.model.poles(), one) for each in fits]
        swept = aaa_swept(one, problem, [{"rtol": r, "max_terms": 30} for r in RTOLS], effort)
        sizes = aaa_swept(one, problem, [{"rtol": 1e-15, "max_terms": n} for n in TERMS], effort)
        for column, factor in (("far", 0.2), ("near", 0.2), ("pole", 2)):
            theirs = best_setting(swept, column)
            named = {"AAA": theirs, "AAA, best size per seed": best_of_seed(sizes, column)}
            if column != "pole":
                named |= by_place(others, column)
            bound, task = factor * median(theirs), f"{one.name}, 1 % noise"
            yield Row(task, column, ours[column], bound, named, note=f"{factor:g} x AAA")


def aaa_swept(
    one: clean.Problem, problem: Problem, settings: list[dict[str, Any]], effort: Effort
) -> dict[str, list[dict[str, float]]]:
    """Return AAA's errors and its pole error, for every setting and seed."""
    found: dict[str, list[dict[str, float]]] = {}
    for seed in range(effort.seeds):
        X, y = problem.sample(seed)
        for options in settings:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # noise cannot be met to rounding
                r = AAA(X[:, 0], y, **options)
            scores = errors(problem, lambda X, r=r: r(X[:, 0]), seed)
            scores["pole"] = position(r.poles(), one)
            found.setdefault(str(options), []).append(scores)
    return found


def best_setting(swept: dict[str, list[dict[str, float]]], column: str) -> list[float]:
    """Return the values of the one setting whose median over the seeds is the lowest."""
    runs = ([run[column] for run in runs] for runs in swept.values())
    return min(runs, key=median)


def best_of_seed(swept: dict[str, list[dict[str, float]]], column: str) -> list[float]:
    """Return the lowest value of every seed, over all settings."""
    runs = zip(*swept.values(), strict=True)
    return [min(run[column] for run in each) for each in runs]


def _fit(problem: Problem, seed: int, features: str) -> Fit:
    return fit(problem, seed, features=features)
