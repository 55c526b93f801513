"""Group 13: heavy tails, noise of the inputs, and noisy tables of three to ten columns."""

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.field.case import (
    Array,
    Case,
    Draw,
    column,
    drawn,
    error_line,
    least,
    most,
    over,
    told,
)
from benchmarks.field.measures import NO_BOTTOM, all_right, relative_error, spread_error
from benchmarks.field.rivals import PLAIN, TABLES


def _two(x: Array) -> Array:
    return 1 / (x - 0.3) - 0.5 / (x + 0.6) + x


def _line(heavy: float, inputs: float, rows: int) -> Callable[[int], Draw]:
    def draw(seed: int) -> Draw:
        random = np.random.default_rng(seed)
        x, t = random.uniform(-1, 1, rows), random.uniform(-1, 1, 400)
        y = _two(x) * (1 + heavy * random.standard_t(2, rows))
        x = x + inputs * random.standard_normal(rows)
        return Draw(column(x), y, column(t), _two(t), np.array([-0.6, 0.3]))

    return draw


def _friedman(which: int, rows: int = 400) -> Callable[[int], Draw]:
    def draw(seed: int) -> Draw:
        import sklearn.datasets as sets

        noise = {1: 1.0, 2: 125.0, 3: 0.1}[which]
        make = getattr(sets, f"make_friedman{which}")
        X, y = make(n_samples=rows, noise=noise, random_state=seed)
        T, truth = make(n_samples=500, noise=0.0, random_state=1000 + seed)
        return Draw(X, y, T, truth)

    return draw


def _hill(c: Array, half: Array, power: Array) -> Array:
    return c**power / (half**power + c**power)


def _dummies(seed: int) -> Draw:
    random = np.random.default_rng(seed)

    def rows(count: int) -> tuple[Array, Array]:
        kind, x = random.integers(0, 4, count), random.uniform(0, 1, (count, 2))
        y = np.array([0.0, 2.0, -1.0, 0.5])[kind] + (x[:, 0] > 0.4) * 1.5 - (x[:, 1] > 0.7)
        return np.c_[np.eye(4)[kind], x], y

    X, y = rows(500)
    T, truth = rows(500)
    return Draw(X, y + 0.3 * random.standard_normal(500), T, truth)


def _student_line(seed: int) -> Draw:
    random = np.random.default_rng(seed)
    X, T = random.standard_normal((200, 5)), random.standard_normal((500, 5))
    b = np.array([1.0, -2.0, 0.5, 0.0, 0.0])
    return Draw(X, X @ b + random.standard_t(2, 200), T, T @ b)


def _poles(name: str, draw: Any) -> Case:
    right = told("all poles right", all_right, least("mean", 0.9))
    measures = (over(("AAA",), most("median", 1)), right)
    return Case(name, "heavy", draw, relative_error, measures, ("boosting",), ("AAA",), seeds=3)


PLAINLY = over(PLAIN, most("median", 1.03), most("worst", 1.2))
MEASURES = (error_line("RMSE / std"), PLAINLY, NO_BOTTOM)


def _table(name: str, draw: Any) -> Case:
    return Case(name, "heavy", draw, spread_error, MEASURES, TABLES, PLAIN, seeds=3)


HILL = drawn(_hill, (0.1, 0.5, 1), (5, 2, 4), 400, 0.03, relative=False)
CASES = [
    _poles("two poles, t(2) noise of 3 %", _line(0.03, 0, 300)),
    _poles("two poles, x noise of 0.2 %", _line(0, 0.002, 300)),
    _table("friedman 1, 10 columns", _friedman(1)),
    _table("friedman 2, 4 columns", _friedman(2)),
    _table("Hill of 3 columns, 3 %", HILL),
    _table("friedman 3, 4 columns", _friedman(3)),
    _table("dummies and steps", _dummies),
    _table("linear, t(2) noise", _student_line),
    _table("friedman 1, 60 rows", _friedman(1, 60)),
]
