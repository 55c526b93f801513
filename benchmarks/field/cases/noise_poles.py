"""Group 8: meromorphic functions with 1 % noise; what poles are claimed, and how surely."""

import math
from typing import Any

import numpy as np
from scipy.special import digamma, factorial, gamma, j0, j1, jn_zeros

from benchmarks.field.case import (
    Array,
    Case,
    Draw,
    column,
    curve,
    error_line,
    least,
    most,
    noisy,
    told,
)
from benchmarks.field.measures import all_right, covered, relative_error

MEASURES = (
    error_line("relative error"),
    told("all poles right", all_right, least("mean", 0.95)),
    told("poles in ±1.96 se", covered("position", 1.96), least("mean", 0.9), most("mean", 0.99)),
    told("residues in ±1.96 se", covered("residue", 1.96), least("mean", 0.85), most("mean", 0.99)),
)
ZEROS = jn_zeros(0, 6)


def _moving(seed: int) -> Draw:
    random = np.random.default_rng(seed)
    a, size = random.uniform(-0.7, 0.7), random.uniform(0.3, 2)

    def f(x: Array) -> Array:
        return size / (x - a) + np.sin(3 * x)

    x, t = random.uniform(-1, 1, 300), random.uniform(-1, 1, 400)
    y = noisy(f(x), random, 0.01)
    return Draw(column(x), y, column(t), f(t), np.array([a]), np.array([size]))


def _case(name: str, draw: Any) -> Case:
    return Case(
        f"{name}, 1 %",
        "noisy poles",
        draw,
        relative_error,
        MEASURES,
        ("network",),
        ("AAA",),
        seeds=10,
    )


WHOLE = np.arange(-4, 1)
CASES = [
    _case(
        "gamma",
        curve(
            gamma, (-4.5, 4.5), 300, 0.01, poles=WHOLE, residues=(-1.0) ** WHOLE / factorial(-WHOLE)
        ),
    ),
    _case(
        "cot",
        curve(
            lambda x: 1 / np.tan(x),
            (-4, 4),
            300,
            0.01,
            poles=[-math.pi, 0, math.pi],
            residues=[1, 1, 1],
        ),
    ),
    _case(
        "J1/J0",
        curve(lambda x: j1(x) / j0(x), (0, 20), 300, 0.01, poles=ZEROS, residues=-np.ones(6)),
    ),
    _case("moving pole", _moving),
    _case(
        "digamma", curve(digamma, (-2.5, 3), 200, 0.01, poles=[-2, -1, 0], residues=[-1, -1, -1])
    ),
]
