"""Inverse kinematics: joint velocities of planar arms, singular where the determinant is zero."""

import math
from collections.abc import Iterator
from statistics import median

import numpy as np

from benchmarks.solve.baselines import baselines
from benchmarks.solve.measure import (
    Array,
    Effort,
    Fit,
    Predict,
    Problem,
    Row,
    by_place,
    distances,
    errors,
    fit,
)

SAMPLES, TESTS, CROSSINGS = 6000, 2000, 100
BRACKET = (-0.02, 0.0131)  # rad, where the determinant's zero is sought: no middle hits it at once


def velocities(X: Array, links: int) -> Array:
    """Return J(θ)⁻¹ v for links of length 1; columns are the angles in rad, then v.

    Two links: v = (dx, dy). Three: v = (dx, dy, dφ), φ the orientation of the hand.
    """
    angles, v = X[:, :links], X[:, links:]
    total = np.cumsum(angles, 1)
    J = np.zeros((len(X), links, links))
    for joint in range(links):
        J[:, 0, joint] = -np.sin(total[:, joint:]).sum(1)
        J[:, 1, joint] = np.cos(total[:, joint:]).sum(1)
    if links == 3:
        J[:, 2] = 1
    return np.linalg.solve(J, v[:, :, None])[:, :, 0]


def arm_problem(links: int, *, degrees: bool) -> Problem:
    """Return an arm with angles in rad, where trigonometric transforms apply, or in degrees."""
    unit = 180 / math.pi if degrees else 1.0

    def draw(random: np.random.Generator, rows: int) -> Array:
        X = random.uniform(-1, 1, (rows, 2 * links))
        X[:, :links] *= math.pi
        return X

    def shown(X: Array) -> Array:
        return np.concatenate([X[:, :links] * unit, X[:, links:]], 1)

    def truth(X: Array) -> Array:
        return velocities(np.concatenate([X[:, :links] / unit, X[:, links:]], 1), links)

    def sample(seed: int) -> tuple[Array, Array]:
        X = shown(draw(np.random.default_rng(seed), SAMPLES))
        return X, truth(X)

    def points(seed: int) -> dict[str, Array]:
        random = np.random.default_rng(1000 + seed)
        near, everywhere = draw(random, TESTS), draw(random, TESTS)
        elbow = np.arcsin(distances(random, TESTS))  # det J = sin θ2
        near[:, 1] = np.where(random.random(TESTS) < 0.5, elbow, np.sign(elbow) * math.pi - elbow)
        return {"near": shown(near), "everywhere": shown(everywhere)}

    return Problem(f"{links}-link arm", sample, truth, points)


def arm(effort: Effort) -> Iterator[Row]:
    """Two links, nothing declared: with trigonometric transforms at hand, and without."""
    for degrees, bound in ((False, 1e-10), (True, 1e-4)):
        problem = arm_problem(2, degrees=degrees)
        name = "2-link arm, " + ("degrees: no trig" if degrees else "radians")
        unit = 180 / math.pi if degrees else 1.0
        fits = [fit(problem, seed) for seed in range(effort.seeds)]
        yield from _rows(name, problem, fits, bound, effort)
        gaps = [zero_error(each.model.predict, unit, seed) for seed, each in enumerate(fits)]
        yield Row(name, "zero of the determinant, rad", gaps, None if degrees else 1e-6, {})


def arm3(effort: Effort) -> Iterator[Row]:
    """Three links in raw inputs; in radians too, where trigonometric transforms apply."""
    for degrees, bound in ((True, 0.1), (False, None)):
        problem = arm_problem(3, degrees=degrees)
        fits = [fit(problem, seed) for seed in range(effort.seeds)]
        name = "3-link arm, " + ("degrees: no trig" if degrees else "radians")
        yield from _rows(name, problem, fits, bound, effort)


def _rows(
    name: str, problem: Problem, fits: list[Fit], bound: float | None, effort: Effort
) -> Iterator[Row]:
    runs = [errors(problem, each.model.predict, seed) for seed, each in enumerate(fits)]
    others = baselines(problem, effort)
    note = f"{median(each.seconds for each in fits):.1f} s"
    for place, limit in (("near", bound), ("everywhere", None)):
        values = [run[place] for run in runs]
        yield Row(name, place, values, limit, by_place(others, place), note=note)


def zero_error(predict: Predict, unit: float, seed: int) -> float:
    """Return the median error of the θ2 near 0 at which the answer passes through infinity.

    The sign of the first joint's velocity is bisected; an answer of ⊥ is the zero itself.
    """
    X = np.random.default_rng(2000 + seed).uniform(-1, 1, (CROSSINGS, 4))
    X[:, 0] *= math.pi * unit
    low, high = (np.full(CROSSINGS, bound * unit) for bound in BRACKET)
    side, end = _sign(predict, X, low), _sign(predict, X, high)
    crosses, found = side * end < 0, np.zeros(CROSSINGS, dtype=bool)
    for _ in range(60):
        middle = (low + high) / 2
        sign = _sign(predict, X, middle)
        found |= np.isnan(sign)
        low = np.where(~found & (sign == side), middle, low)
        high = np.where(~found & (sign != side), middle, high)
    return float(np.median(np.where(crosses, np.abs(low + high) / 2 / unit, np.inf)))


def _sign(predict: Predict, X: Array, theta: Array) -> Array:
    """Return the sign of the first joint's velocity at an elbow angle; nan at ⊥."""
    Z = X.copy()
    Z[:, 1] = theta
    return np.sign(np.asarray(predict(Z))[:, 0])
