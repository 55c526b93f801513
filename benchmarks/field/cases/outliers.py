"""Group 7: five rows of a hundred are nonsense; the rest are as they were."""

from collections.abc import Callable

import numpy as np

from benchmarks.field.case import Array, Bound, Case, Draw, curve, error_line, most, table, told
from benchmarks.field.measures import over_plain, relative_error, spread_error

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


def _arm(first: Array, second: Array, u: Array, v: Array) -> Array:
    s, c = np.sin, np.cos
    a, b = first, first + second
    det = s(second)
    return np.stack(
        [(c(b) * u + s(b) * v) / det, -((c(a) + c(b)) * u + (s(a) + s(b)) * v) / det], 1
    )


def _case(
    name: str, draw: Callable[[int], Draw], bounds: tuple[Bound, ...], seeds: int = 5
) -> Case:
    measures = (
        error_line("relative error"),
        told("error / without outliers", over_plain, *bounds),
    )
    rivals = ("boosting",)
    error = spread_error if name.startswith("noisy line") else relative_error
    return Case(
        f"{name}, outliers", "outliers", _spoilt(draw), error, measures, rivals, seeds=seeds
    )


CLEAN, NOISY = (most("median", 10),), (most("median", 1.5), most("worst", 10))
BOX = (-np.pi, -np.pi, -1, -1), (np.pi, np.pi, 1, 1)
CASES = [
    _case("two poles", curve(_two, (-1, 1), 300), CLEAN),
    _case("two poles, 1 %", curve(_two, (-1, 1), 300, 0.01), NOISY),
    _case(
        "xy/(x - z)", table(lambda x, y, z: x * y / (x - z), (1, 1, 1), (3, 3, 3), 600), CLEAN, 3
    ),
    _case("noisy line", curve(lambda x: 2 * x + 1, (0, 5), 60, 0.1, relative=False), NOISY),
    _case("2-link arm", table(_arm, *BOX, 1500), CLEAN, 2),
    _case(
        "xy/(x - z), 1 %",
        table(lambda x, y, z: x * y / (x - z), (1, 1, 1), (3, 3, 3), 600, 0.01),
        NOISY,
        3,
    ),
]
