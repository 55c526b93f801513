"""Group 4: clean curves without a pole, and with points that are no pole: steps, kinks, logs."""

from collections.abc import Callable

import numpy as np

from benchmarks.field.case import Array, Case, drawn, error_line, least, most, told
from benchmarks.field.measures import (
    AS_AAA,
    NO_POLES,
    bottom_on_rows,
    found_share,
    relative_error,
    spread_error,
)

Curve = Callable[[Array], Array]
WHOLE = told("⊥ on rows", bottom_on_rows, most("worst", 0))
SIGMOID = error_line("RMSE / std", most("median", 1e-9))
POLE = told("true pole", found_share, least("worst", 1))


def _sigmoid(T: float, rows: int = 300) -> Case:
    draw = drawn(lambda x: 1 / (1 + np.exp(np.clip(T * x, -700, 700))), -1, 1, rows)
    name, measures = f"sigmoid T = {T}, {rows} rows", (SIGMOID, NO_POLES, WHOLE)
    return Case(name, "shapes", draw, spread_error, measures, (), ("AAA",), seeds=2)


def _bells(rows: int) -> Case:
    def f(x: Array) -> Array:
        return np.exp(-((x - 0.3) ** 2) / 0.02) + 0.6 * np.exp(-((x + 0.4) ** 2) / 0.05)

    name, measures = f"two Gaussians, {rows} rows", (AS_AAA, NO_POLES, WHOLE)
    return Case(name, "shapes", drawn(f, -1, 1, rows), spread_error, measures, (), ("AAA",))


def _odd(name: str, f: Curve, rows: int = 300, low: float = -1.0, pole: float = np.nan) -> Case:
    finite = np.isnan(pole)
    draw = drawn(f, low, 1, rows) if finite else drawn(f, low, 1, rows, poles=[pole])
    measures, name = (AS_AAA, NO_POLES if finite else POLE), f"{name}, {rows} rows"
    return Case(name, "shapes", draw, relative_error, measures, (), ("AAA",), seeds=2)


CASES = [
    *map(_sigmoid, (1, 12, 20, 50, 100, 1000)),
    _sigmoid(12, 30),
    _bells(300),
    _bells(30),
    _odd("step", lambda x: np.where(x > 0.15, 1.0, -0.5)),
    _odd("abs x", np.abs),
    _odd("abs x + pole", lambda x: np.abs(x) + 0.1 / (x - 0.4), pole=0.4),
    _odd("log abs x", lambda x: np.log(np.abs(x))),
    _odd("abs x^-0.5", lambda x: np.abs(x) ** -0.5),
    _odd("sqrt", np.sqrt, low=0.0),
    _odd("exp(1/x)", lambda x: np.exp(1 / x), low=0.05),
    _odd("log abs x", lambda x: np.log(np.abs(x)), 30),
]
