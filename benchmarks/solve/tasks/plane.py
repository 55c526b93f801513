"""Singular curves and points in the plane: ring, saddle, Coulomb's 1/r, two charges."""

import math
from collections.abc import Callable, Iterator
from statistics import median
from typing import NamedTuple

import numpy as np

from benchmarks.solve.baselines import baselines
from benchmarks.solve.measure import (
    Array,
    Effort,
    Predict,
    Problem,
    Row,
    by_place,
    distances,
    errors,
    fit,
)

SAMPLES, TESTS = 4000, 2000
CENTRE = np.array([0.17, -0.08])
CHARGES = np.array([[-0.4, 0.1], [0.5, -0.2]])
Beside = Callable[[np.random.Generator, Array], Array]  # distances to points so far from it


class Field(NamedTuple):
    """A function on [-1, 1]² and its singular set."""

    name: str
    truth: Predict
    beside: Beside
    bound: float


def ring(random: np.random.Generator, gap: Array) -> Array:
    """Return points beside the circle x² + y² = 1/2."""
    return _around((math.sqrt(0.5) + gap), random.uniform(0, 2 * math.pi, len(gap)))


def saddle(random: np.random.Generator, gap: Array) -> Array:
    """Return points beside the hyperbola x y = 0.1."""
    x = random.uniform(0.15, 0.95, len(gap))
    normal = np.stack([0.1 / x, x], 1)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    branch = random.choice([-1.0, 1.0], (len(gap), 1))
    return branch * (np.stack([x, 0.1 / x], 1) + gap[:, None] * normal)


def charge(random: np.random.Generator, gap: Array) -> Array:
    """Return points around the single charge."""
    return CENTRE + _around(gap, random.uniform(0, 2 * math.pi, len(gap)))


def either(random: np.random.Generator, gap: Array) -> Array:
    """Return points around one of two charges."""
    which = random.integers(0, 2, len(gap))
    return CHARGES[which] + _around(gap, random.uniform(0, 2 * math.pi, len(gap)))


def _around(radius: Array, angle: Array) -> Array:
    return radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)


def _two(X: Array) -> Array:
    first, second = (np.linalg.norm(X - at, axis=1) for at in CHARGES)
    return 1 / first - 1 / second


FIELDS = (
    Field("ring 1/(x²+y²-1/2)", lambda X: 1 / ((X**2).sum(1) - 0.5), ring, 1e-10),
    Field("saddle 1/(xy-0.1)", lambda X: 1 / (X.prod(1) - 0.1), saddle, 1e-10),
    Field("Coulomb 1/r", lambda X: 1 / np.linalg.norm(X - CENTRE, axis=1), charge, 1e-10),
    Field("two charges 1/r1-1/r2", _two, either, 1e-3),
)


def plane(effort: Effort) -> Iterator[Row]:
    """4000 clean samples of each."""
    for field in FIELDS:
        problem = _problem(field)
        fits = [fit(problem, seed) for seed in range(effort.seeds)]
        runs = [errors(problem, each.model.predict, seed) for seed, each in enumerate(fits)]
        others = baselines(problem, effort)
        note = f"{median(each.seconds for each in fits):.1f} s"
        for place, bound in (("near", field.bound), ("everywhere", None)):
            values = [run[place] for run in runs]
            yield Row(field.name, place, values, bound, by_place(others, place), note=note)


def _problem(field: Field) -> Problem:
    def sample(seed: int) -> tuple[Array, Array]:
        X = np.random.default_rng(seed).uniform(-1, 1, (SAMPLES, 2))
        return X, field.truth(X)

    def points(seed: int) -> dict[str, Array]:
        random = np.random.default_rng(1000 + seed)
        near = field.beside(random, distances(random, TESTS))
        return {
            "near": near[(np.abs(near) < 1).all(1)],
            "everywhere": random.uniform(-1, 1, (TESTS, 2)),
        }

    return Problem(field.name, sample, field.truth, points)
