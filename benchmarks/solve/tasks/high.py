"""Many inputs, where no fixed basis reaches: a ridge rational in 8-D, an analytic one in 6-D."""

from collections.abc import Callable, Iterator
from statistics import median

import numpy as np

from benchmarks.solve.baselines import baselines, joint_readout, random_features
from benchmarks.solve.measure import (
    Array,
    Effort,
    Predict,
    Problem,
    Row,
    by_place,
    errors,
    fit,
)

SAMPLES, TESTS = 6000, 2000
BUDGET = 60.0  # seconds; the default of 10 leaves too few steps for trunks
Tuple = Callable[[Array], tuple[Array, Array]]  # X to (N, D)
JOINT, RANDOM = "joint training + readout", "400 random features"


def ridge_tuple(X: Array) -> tuple[Array, Array]:
    """Return (1 + v, u⁵ + u - 0.4) of two directions u, v: degree 5 in 8 variables."""
    w = np.array([[1, -1, 0.5, 0, 1, 0.3, -0.7, 0.2], [0.4, 0.8, -1, 0.6, 0, -0.5, 0.1, 1]])
    u, v = (w / np.linalg.norm(w, axis=1, keepdims=True)) @ X.T
    return 1 + v, u**5 + u - 0.4


def analytic_tuple(X: Array) -> tuple[Array, Array]:
    """Return the tuple of an analytic quotient that uses every one of six variables."""
    a, b, c, d, e, f = X.T
    return np.sin(2 * a + b) + c * d, np.sin(a + b * c) - 0.3 * np.cos(2 * d - e * f)


def ridge(effort: Effort) -> Iterator[Row]:
    """A tenth of what joint training reaches, ended by the same closed form."""
    yield from _rows("8-D ridge rational", _problem("ridge", ridge_tuple, 8), JOINT, 0.1, effort)


def analytic(effort: Effort) -> Iterator[Row]:
    """Half of what 400 random features reach."""
    yield from _rows("6-D analytic", _problem("6-D", analytic_tuple, 6), RANDOM, 0.5, effort)


def _rows(name: str, problem: Problem, against: str, share: float, effort: Effort) -> Iterator[Row]:
    fits = [fit(problem, seed, time_budget=BUDGET) for seed in range(effort.seeds)]
    runs = [errors(problem, each.model.predict, seed) for seed, each in enumerate(fits)]
    others = {
        JOINT: [_joint(problem, seed, effort) for seed in range(max(1, effort.trained_seeds))],
        RANDOM: [_random(problem, seed) for seed in range(effort.seeds)],
        **baselines(problem, effort),
    }
    note = f"{share:g} x {against}, {median(each.seconds for each in fits):.1f} s"
    for place in ("near", "everywhere"):
        named = by_place(others, place)
        bound = share * median(named[against])
        yield Row(name, place, [run[place] for run in runs], bound, named, note=note)


def _joint(problem: Problem, seed: int, effort: Effort) -> dict[str, float]:
    predict = joint_readout(*problem.sample(seed), seed, 2 * effort.steps)  # about our time
    return errors(problem, predict, seed)


def _random(problem: Problem, seed: int) -> dict[str, float]:
    return errors(problem, random_features(*problem.sample(seed), seed), seed)


def _problem(name: str, pair: Tuple, d: int) -> Problem:
    def truth(X: Array) -> Array:
        N, D = pair(X)
        return N / D

    def sample(seed: int) -> tuple[Array, Array]:
        X = np.random.default_rng(seed).uniform(-1, 1, (SAMPLES, d))
        return X, truth(X)

    def points(seed: int) -> dict[str, Array]:
        X = np.random.default_rng(1000 + seed).uniform(-1, 1, (10 * TESTS, d))
        gap = np.abs(pair(X)[1])
        return {"near": X[(gap > 1e-3) & (gap < 1e-1)], "everywhere": X[:TESTS]}

    predict: Predict = truth
    return Problem(name, sample, predict, points)
