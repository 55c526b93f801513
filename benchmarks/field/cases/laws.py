"""Group 10: exact laws of three to eight columns, rational of a total degree up to four."""

from math import comb
from typing import Any

from benchmarks.field.case import Array, Case, error_line, most, table, told
from benchmarks.field.measures import Draw, Ours, relative_error


def _determinant(a: Array, b: Array, c: Array, d: Array, u: Array, v: Array) -> Array:
    return (d * u - b * v) / (a * d - b * c)


def _oscillator(q: Array, E: Array, m: Array, w0: Array, w: Array) -> Array:
    return q * E / (m * (w0**2 - w**2))


# name, law, lowest and highest inputs, total degree of N and D
LIST: list[tuple[str, Any, Any, Any, int]] = [
    ("oscillator", _oscillator, (1, 1, 1, 0.5, 0.5), (3, 3, 3, 2, 2), 3),
    ("lens 1/(1/f - 1/u)", lambda f, u, m: m / (1 / f - 1 / u), (1, 1, 1), (3, 3, 2), 3),
    (
        "parallel resistors",
        lambda a, b, c: a * b * c / (a * b + b * c + a * c),
        (-2,) * 3,
        (2,) * 3,
        3,
    ),
    ("(1 + xy)/(z - xy)", lambda x, y, z: (1 + x * y) / (z - x * y), (-1,) * 3, (1,) * 3, 2),
    ("determinant", _determinant, (-1,) * 6, (1,) * 6, 2),
    (
        "plane, 8 columns",
        lambda *x: (x[0] * x[1] + x[2]) / (x[3] * x[4] - x[5] + x[6] * x[7]),
        (-1,) * 8,
        (1,) * 8,
        2,
    ),
    (
        "velocity addition",
        lambda u, v, c: (u + v) / (1 + u * v / c**2),
        (-2, -2, 0.5),
        (2, 2, 2),
        3,
    ),
    (
        "Coulomb, 4 columns",
        lambda q, p, x, y: q * p / (x**2 - y**2),
        (1, 1, -1, -1),
        (2, 2, 1, 1),
        2,
    ),
    ("sum over product", lambda a, b, c, d: (a + b * c) / (a * b - c * d), (-1,) * 4, (1,) * 4, 2),
    (
        "degree four",
        lambda x, y, z: (1 + x**3 * y) / (x**4 + y**2 * z**2 - z - 0.5),
        (-1,) * 3,
        (1,) * 3,
        4,
    ),
]


def _seconds(draw: Draw, ours: Ours) -> float:
    return ours.seconds


def _case(name: str, law: Any, low: Any, high: Any, degree: int, rows: int = 0) -> Case:
    coefficients = 2 * comb(len(low) + degree, degree)
    rows = rows or int(1.4 * coefficients) + 1
    error = error_line("relative error", most("median", 1e-12))
    seconds = told("CPU seconds", _seconds, most("median", 5 if coefficients <= 700 else 10))
    draw = table(law, low, high, rows)
    rivals = ("boosting", "ridge, squares")
    return Case(
        f"{name}, {rows} rows", "laws", draw, relative_error, (error, seconds), rivals, seeds=3
    )


CASES = [
    *(_case(*each) for each in LIST),
    _case(*LIST[0], rows=3000),
    _case(*LIST[5], rows=3000),
]
