"""Group 11: clean functions of one variable, few rows and many."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.special import gamma

from benchmarks.field.case import Array, Case, drawn, error_line, least, most, told
from benchmarks.field.measures import AS_AAA, all_right, relative_error

THIRD = math.pi / 6  # poles of tan(3 x)


def _tan_double(x: Array) -> Array:
    return np.tan(3 * x) + 0.2 / (x - 0.1) ** 2


# name, f, interval, rows, true poles (each once), bound of the error or None: as AAA's
LIST: list[tuple[str, Callable[[Array], Array], tuple[float, float], int, list[float], Any]] = [
    ("1/(x - 0.3)", lambda x: 1 / (x - 0.3), (-1, 1), 8, [0.3], 1e-12),
    ("(x - 0.3)^-2", lambda x: (x - 0.3) ** -2, (-1, 1), 8, [0.3], 1e-12),
    ("1/(1 + 400 x²)", lambda x: 1 / (1 + 400 * x**2), (-1, 1), 8, [], 1e-12),
    ("tan 3x", lambda x: np.tan(3 * x), (-1, 1), 30, [-THIRD, THIRD], None),
    ("tan 3x", lambda x: np.tan(3 * x), (-1, 1), 300, [-THIRD, THIRD], None),
    ("tan 3x + double", _tan_double, (-1, 1), 300, [-THIRD, 0.1, THIRD], None),
    ("cot", lambda x: 1 / np.tan(x), (-4, 4), 30, [-math.pi, 0, math.pi], None),
    ("gamma", gamma, (-4.5, 4.5), 300, [-4, -3, -2, -1, 0], None),
    ("Bose 1/(e^x - 1)", lambda x: 1 / np.expm1(x), (-3, 5), 300, [0], None),
    ("twin poles", lambda x: 1 / (x - 0.2) + 1 / (x - 0.201), (-1, 1), 300, [0.2, 0.201], None),
    ("1/(1 + 400 x²)", lambda x: 1 / (1 + 400 * x**2), (-1, 1), 30, [], 1e-12),
    ("two poles", lambda x: 1 / (x - 0.3) - 0.5 / (x + 0.6) + x, (-1, 1), 30, [-0.6, 0.3], 1e-12),
]


def _case(name: str, f: Any, span: tuple[float, float], rows: int, poles: Any, bound: Any) -> Case:
    error = error_line("relative error", most("median", bound)) if bound else AS_AAA
    measures = (error, told("all poles right", all_right, least("mean", 1)))
    draw = drawn(f, *span, rows, poles=poles)
    return Case(
        f"{name}, {rows} rows", "clean", draw, relative_error, measures, (), ("AAA",), seeds=2
    )


CASES = [_case(*each) for each in LIST]
