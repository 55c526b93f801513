"""Group 10: exact laws of three to eight columns, rational of a total degree up to four."""

from math import comb
from typing import Any

from benchmarks.field.case import Array, Case, Draw, drawn, error_line, most, told
from benchmarks.field.measures import Ours, relative_error


def _box(columns: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return (-1.0,) * columns, (1.0,) * columns


def _oscillator(q: Array, E: Array, m: Array, w0: Array, w: Array) -> Array:
    return q * E / (m * (w0**2 - w**2))


def _parallel(a: Array, b: Array, c: Array) -> Array:
    return a * b * c / (a * b + b * c + a * c)


def _plane(a: Array, b: Array, c: Array, d: Array, e: Array, f: Array, g: Array, h: Array) -> Array:
    return (a * b + c) / (d * e - f + g * h)


def _fourth(x: Array, y: Array, z: Array) -> Array:
    return (1 + x**3 * y) / (x**4 + y**2 * z**2 - z - 0.5)


# name, law, lowest and highest inputs, total degree
LIST: list[tuple[str, Any, Any, Any, int]] = [
    ("oscillator", _oscillator, (1, 1, 1, 0.5, 0.5), (3, 3, 3, 2, 2), 3),
    ("lens 1/(1/f - 1/u)", lambda f, u, m: m / (1 / f - 1 / u), (1, 1, 1), (3, 3, 2), 3),
    ("parallel resistors", _parallel, *_box(3), 3),
    ("(1 + xy)/(z - xy)", lambda x, y, z: (1 + x * y) / (z - x * y), *_box(3), 2),
    ("determinant", lambda a, b, c, d, u, v: (d * u - b * v) / (a * d - b * c), *_box(6), 2),
    ("plane", _plane, *_box(8), 2),
    ("velocities", lambda u, v, c: (u + v) / (1 + u * v / c**2), (-2, -2, 0.5), (2, 2, 2), 3),
    ("Coulomb", lambda q, p, x, y: q * p / (x**2 - y**2), (1, 1, -1, -1), (2, 2, 1, 1), 2),
    ("sums", lambda a, b, c, d: (a + b * c) / (a * b - c * d), *_box(4), 2),
    ("degree four", _fourth, *_box(3), 4),
]


def _seconds(draw: Draw, ours: Ours) -> float:
    return ours.seconds


def _case(name: str, law: Any, low: Any, high: Any, degree: int, rows: int = 0) -> Case:
    coefficients = 2 * comb(len(low) + degree, degree)
    rows = rows or int(1.4 * coefficients) + 1
    error = error_line("relative error", most("median", 1e-12))
    seconds = told("CPU seconds", _seconds, most("median", 5 if coefficients <= 700 else 10))
    draw = drawn(law, low, high, rows)
    name, rivals = f"{name}, {rows} rows", ("boosting", "ridge, squares")
    return Case(name, "laws", draw, relative_error, (error, seconds), rivals, seeds=2)


CASES = [*(_case(*each) for each in LIST), _case(*LIST[0], rows=3000), _case(*LIST[5], rows=3000)]
