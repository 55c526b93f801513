"""Group 7: five rows of a hundred are nonsense; the rest are as they were."""

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.field.case import Array, Bound, Case, Draw, drawn, most, told
from benchmarks.field.measures import RELATIVE, over_plain, relative_error, spread_error

SHARE = 0.05


def _spoilt(draw: Callable[[int], Draw]) -> Callable[[int], Draw]:
    def spoilt(seed: int) -> Draw:
        rows = draw(seed)
        random = np.random.default_rng(1000 + seed)
        y = rows.y.copy()
        bad = random.random(len(y)) < SHARE
        size = 3 * np.median(np.abs(y), axis=0)
        y[bad] = y[bad] + size * random.standard_cauchy((int(bad.sum()), *y.shape[1:]))
        return rows._replace(y=y, plain=(rows.X[~bad], rows.y[~bad]))

    return spoilt


def _two(x: Array) -> Array:
    return 1 / (x - 0.3) - 0.5 / (x + 0.6) + x


def _law(x: Array, y: Array, z: Array) -> Array:
    return x * y / (x - z)


def _arm(first: Array, second: Array, u: Array, v: Array) -> Array:
    s, c = np.sin, np.cos
    a, b = first, first + second
    push = -((c(a) + c(b)) * u + (s(a) + s(b)) * v)
    return np.stack([c(b) * u + s(b) * v, push], 1) / s(second)[:, None]


def _case(name: str, draw: Any, bounds: tuple[Bound, ...], seeds: int = 5) -> Case:
    measures = (RELATIVE, told("error / without outliers", over_plain, *bounds))
    name += ", outliers"
    error = spread_error if name.startswith("noisy line") else relative_error
    return Case(name, "outliers", _spoilt(draw), error, measures, ("boosting",), seeds=seeds)


CLEAN, NOISY = (most("median", 10),), (most("median", 1.5), most("worst", 10))
BOX = (-np.pi, -np.pi, -1, -1), (np.pi, np.pi, 1, 1)
CASES = [
    _case("two poles", drawn(_two, -1, 1, 300), CLEAN),
    _case("two poles, 1 %", drawn(_two, -1, 1, 300, 0.01), NOISY),
    _case("xy/(x - z)", drawn(_law, (1, 1, 1), (3, 3, 3), 600), CLEAN, 3),
    _case("noisy line", drawn(lambda x: 2 * x + 1, 0, 5, 60, 0.1, relative=False), NOISY),
    _case("2-link arm", drawn(_arm, *BOX, 1500), CLEAN, 2),
    _case("xy/(x - z), 1 %", drawn(_law, (1, 1, 1), (3, 3, 3), 600, 0.01), NOISY, 3),
]
