"""Group 8: meromorphic functions with 1 % noise; what poles are claimed, and how surely."""

import math
from typing import Any

import numpy as np
from scipy.special import digamma, factorial, gamma, j0, j1, jn_zeros

from benchmarks.field.case import Array, Case, Draw, column, drawn, least, most, noisy, told
from benchmarks.field.measures import RELATIVE, all_right, covered, relative_error

GROUP = "noisy poles"
MEASURES = (
    RELATIVE,
    told("all poles right", all_right, least("mean", 0.95)),
    told("poles in ±1.96 se", covered("position", 1.96), least("mean", 0.9), most("mean", 0.99)),
    told("residues in ±1.96 se", covered("residue", 1.96), least("mean", 0.85), most("mean", 0.99)),
)


def _moving(seed: int) -> Draw:
    random = np.random.default_rng(seed)
    a, size = random.uniform(-0.7, 0.7), random.uniform(0.3, 2)

    def f(x: Array) -> Array:
        return size / (x - a) + np.sin(3 * x)

    x, t = random.uniform(-1, 1, 300), random.uniform(-1, 1, 400)
    y = noisy(f(x), random, 0.01)
    return Draw(column(x), y, column(t), f(t), np.array([a]), np.array([size]))


def _drawn(f: Any, low: float, high: float, poles: Any, residues: Any) -> Any:
    return drawn(f, low, high, 300, 0.01, poles=poles, residues=residues)


PI, WHOLE, ZEROS = math.pi, np.arange(-4, 1), jn_zeros(0, 6)
DRAWS = {
    "gamma": _drawn(gamma, -4.5, 4.5, WHOLE, (-1.0) ** WHOLE / factorial(-WHOLE)),
    "cot": _drawn(lambda x: 1 / np.tan(x), -4, 4, [-PI, 0, PI], np.ones(3)),
    "J1/J0": _drawn(lambda x: j1(x) / j0(x), 0, 20, ZEROS, -np.ones(6)),
    "moving pole": _moving,
    "digamma": _drawn(digamma, -2.5, 3, [-2, -1, 0], -np.ones(3)),
}
CASES = [
    Case(f"{name}, 1 %", GROUP, draw, relative_error, MEASURES, ("network",), ("AAA",), seeds=8)
    for name, draw in DRAWS.items()
]
