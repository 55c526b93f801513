"""Rows labelled inf or nan, on a zero set, at 0/0 and in whole regions."""

from typing import Any

import numpy as np

from benchmarks.field.case import Array, Case, Draw, drawn, least, most, told
from benchmarks.field.measures import RELATIVE, caught, lost, relative_error


def _divided(a: Array, b: Array) -> Array:
    with np.errstate(all="ignore"):
        return np.asarray(a / b)


def _quotient(seed: int) -> Draw:
    a, b = (part.ravel().astype(float) for part in np.meshgrid(np.arange(-6, 7), np.arange(-6, 7)))
    X, y = np.c_[a, b], _divided(a, b)
    zero = (a == 0) & (b == 0)
    order = np.random.default_rng(seed).permutation(np.flatnonzero(~zero))
    held, kept = order[:40], order[40:]
    test = np.r_[held[b[held] != 0], np.flatnonzero(zero)]  # of the singular places only (0, 0)
    return Draw(X[kept], y[kept], X[test], y[test])


def _disc(x: Array, y: Array) -> Array:
    return np.where(x**2 + y**2 < 0.3, np.nan, np.sin(2 * x) + y)


def _plate(x: Array) -> Array:
    y = 0.05 + 0.06 * x
    return np.where(y > 4, np.inf, y)


def _earnings(price: Array, earned: Array) -> Array:
    return np.where(earned <= 0, np.nan, price / earned)


def _case(name: str, draw: Any, share: float = 0.99) -> Case:
    kept = told("lost", lost, most("mean", 0.02))
    measures = (RELATIVE, told("caught", caught, least("mean", share)), kept)
    return Case(name, "labels", draw, relative_error, measures, ("boosting",), seeds=10)


def _counts(columns: int, most_of_each: int, f: Any, rows: int) -> Any:
    return drawn(f, [0] * columns, [most_of_each] * columns, rows, fresh=1000, step=1.0)


def _region(f: Any, low: Any, high: Any, rows: int, noise: float = 0.0) -> Any:
    return drawn(f, low, high, rows, noise, fresh=1000)


HALF = _region(lambda x: np.where(x > 0.6, np.nan, 1 / (x - 1.2)), -1, 1, 200, 0.01)
WHOLE = drawn(lambda x: _divided(np.cos(x), x), -2, 2, 300, step=0.1)
ODDS = _counts(4, 9, lambda a, b, c, d: _divided(a * d, b * c), 200)
CASES = [
    _case("a/b of whole numbers, (0, 0) unseen", _quotient),
    _case("odds ratio, counts 0 to 9", ODDS),
    _case("precision, counts 0 to 5", _counts(2, 5, lambda a, b: _divided(a, a + b), 400)),
    _case("disc of ⊥", _region(_disc, (-1, -1), (1, 1), 600, 0.01), 0.95),
    _case("half line of ⊥", HALF, 0.95),
    _case("saturated plate", _region(_plate, 0, 100, 96, 0.02), 0.95),
    _case("price over earnings, ⊥ for none", _region(_earnings, (5, -2), (50, 5), 600), 0.95),
    _case("cos x / x, inf at 0", WHOLE, 0.98),
    _case(
        "share of a + b + c, counts 0 to 3",
        _counts(3, 3, lambda a, b, c: _divided(a, a + b + c), 300),
    ),
]
