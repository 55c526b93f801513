"""Group 12: rows labelled inf or nan, on a zero set, at 0/0 and in whole regions."""

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.field.case import Array, Case, Draw, Function, least, most, noisy, told
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


def _counts(columns: int, f: Function, high: int, rows: int) -> Callable[[int], Draw]:
    def draw(seed: int) -> Draw:
        random = np.random.default_rng(seed)
        X, T = (random.integers(0, high, (n, columns)).astype(float) for n in (rows, 1000))
        return Draw(X, f(*X.T), T, f(*T.T))

    return draw


def _region(f: Function, box: Any, rows: int, noise: float = 0) -> Callable[[int], Draw]:
    """Return rows in a box, of which `f` says where they are singular."""

    def draw(seed: int) -> Draw:
        random = np.random.default_rng(seed)
        X, T = (random.uniform(*box, (n, len(box[0]))) for n in (rows, 1000))
        y = f(X)
        finite = np.isfinite(y)
        y[finite] = noisy(y[finite], random, noise)
        return Draw(X, y, T, f(T))

    return draw


def _disc(X: Array) -> Array:
    y = np.sin(2 * X[:, 0]) + X[:, 1]
    return np.where((X**2).sum(1) < 0.3, np.nan, y)


def _half_line(X: Array) -> Array:
    return np.where(X[:, 0] > 0.6, np.nan, 1 / (X[:, 0] - 1.2))


def _plate(X: Array) -> Array:
    y = 0.05 + 0.06 * X[:, 0]
    return np.where(y > 4, np.inf, y)


def _earnings(X: Array) -> Array:
    price, earned = X.T
    return np.where(earned <= 0, np.nan, price / earned)


def _whole_pole(seed: int) -> Draw:
    random = np.random.default_rng(seed)
    X, T = (random.integers(-20, 21, (n, 1)) / 10 for n in (300, 400))
    return Draw(X, _divided(np.cos(X[:, 0]), X[:, 0]), T, _divided(np.cos(T[:, 0]), T[:, 0]))


def _case(name: str, draw: Any, share: float) -> Case:
    kept = told("lost", lost, most("mean", 0.02))
    measures = (RELATIVE, told("caught", caught, least("mean", share)), kept)
    return Case(name, "labels", draw, relative_error, measures, ("boosting",))


ODDS = _counts(4, lambda a, b, c, d: _divided(a * d, b * c), 10, 200)
PART = _counts(3, lambda a, b, c: _divided(a, a + b + c), 4, 300)
CASES = [
    _case("a/b of whole numbers, (0, 0) unseen", _quotient, 0.99),
    _case("odds ratio, counts 0 to 9", ODDS, 0.99),
    _case("precision, counts 0 to 5", _counts(2, lambda a, b: _divided(a, a + b), 6, 400), 0.99),
    _case("disc of ⊥", _region(_disc, ((-1, -1), (1, 1)), 600, 0.01), 0.95),
    _case("half line of ⊥", _region(_half_line, ((-1,), (1,)), 200, 0.01), 0.95),
    _case("saturated plate", _region(_plate, ((0,), (100,)), 96, 0.02), 0.95),
    _case("price over earnings, ⊥ for none", _region(_earnings, ((5, -2), (50, 5)), 600), 0.95),
    _case("cos x / x, inf at 0", _whole_pole, 0.98),
    _case("share of a + b + c, counts 0 to 3", PART, 0.99),
]
