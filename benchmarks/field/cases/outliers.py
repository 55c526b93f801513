"""Five rows of a hundred are nonsense, the rest are as they were; and none is."""

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.special import gamma

from benchmarks.field.case import Array, Bound, Case, Draw, drawn, most, told
from benchmarks.field.measures import RELATIVE, named, over_plain, relative_error, spread_error

SHARE = 0.05
GOOD = told("good rows left out", named, most("worst", 0.02))


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
    error = spread_error if name.startswith("noisy line") else relative_error
    ratio = told("error / without outliers", over_plain(error), *bounds)
    name, rivals = f"{name}, outliers", ("boosting",)
    return Case(
        name, "outliers", _spoilt(draw), error, (RELATIVE, ratio, GOOD), rivals, seeds=seeds
    )


def _none(name: str, draw: Any) -> Case:
    return Case(f"{name}, none spoilt", "outliers", draw, relative_error, (RELATIVE, GOOD))


CLEAN, NOISY = (most("median", 10),), (most("median", 1.5), most("worst", 10))
BOX = (-np.pi, -np.pi, -1, -1), (np.pi, np.pi, 1, 1)
CASES = [
    _case("two poles", drawn(_two, -1, 1, 300), CLEAN, 3),
    _case("two poles, 1 %", drawn(_two, -1, 1, 300, 0.01), NOISY),
    _case("xy/(x - z)", drawn(_law, (1, 1, 1), (3, 3, 3), 600), CLEAN, 2),
    _case("noisy line", drawn(lambda x: 2 * x + 1, 0, 5, 60, 0.1, of="spread"), NOISY),
    _case("2-link arm", drawn(_arm, *BOX, 1500), CLEAN, 2),
    _case("xy/(x - z), 1 %", drawn(_law, (1, 1, 1), (3, 3, 3), 600, 0.01), NOISY, 3),
    _none("gamma, 1 %", drawn(gamma, -3.5, 3.5, 300, 0.01)),
    _none("tan 3x, 1 %", drawn(lambda x: np.tan(3 * x), -1, 1, 300, 0.01)),
    _none("x y, 1 %", drawn(lambda x, y: x * y, (1, 1), (3, 3), 200, 0.01)),
]
