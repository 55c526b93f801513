"""Group 4: clean curves without a pole, and with points that are no pole: steps, kinks, logs."""

from collections.abc import Callable

import numpy as np

from benchmarks.field.case import Array, Case, curve, error_line, least, most, over, told
from benchmarks.field.measures import (
    bottom_on_rows,
    found_share,
    poles_claimed,
    relative_error,
    spread_error,
)


def _sigmoid(T: float) -> Callable[[Array], Array]:
    return lambda x: 1 / (1 + np.exp(np.clip(T * x, -700, 700)))


def _bells(x: Array) -> Array:
    return np.exp(-((x - 0.3) ** 2) / 0.02) + 0.6 * np.exp(-((x + 0.4) ** 2) / 0.05)


SOUND = (
    told("poles claimed", poles_claimed, most("worst", 0)),
    told("⊥ on rows", bottom_on_rows, most("worst", 0)),
)
UNIT = (-1.0, 1.0)


def _smooth(name: str, f: Callable[[Array], Array], rows: int) -> Case:
    bound = error_line("RMSE / std", most("median", 1e-9))
    if name.startswith("two"):
        bound = over(("AAA",), most("median", 10))
    return Case(
        f"{name}, {rows} rows",
        "shapes",
        curve(f, UNIT, rows),
        spread_error,
        (bound, *SOUND),
        (),
        ("AAA",),
    )


def _odd(
    name: str, f: Callable[[Array], Array], rows: int, span: tuple[float, float] = UNIT
) -> Case:
    poles = told("poles claimed", poles_claimed, most("worst", 0))
    measures = (over(("AAA",), most("median", 10)), poles)
    return Case(
        f"{name}, {rows} rows",
        "shapes",
        curve(f, span, rows),
        relative_error,
        measures,
        (),
        ("AAA",),
    )


def _kink_and_pole(rows: int) -> Case:
    draw = curve(lambda x: np.abs(x) + 0.1 / (x - 0.4), UNIT, rows, poles=[0.4])
    measures = (
        over(("AAA",), most("median", 10)),
        told("true pole", found_share, least("worst", 1)),
    )
    return Case(f"|x| + pole, {rows} rows", "shapes", draw, relative_error, measures, (), ("AAA",))


CASES = [
    *(_smooth(f"sigmoid T = {T}", _sigmoid(T), 300) for T in (1, 12, 20, 50, 100, 1000)),
    _smooth("sigmoid T = 12", _sigmoid(12), 30),
    _smooth("two Gaussians", _bells, 300),
    _smooth("two Gaussians", _bells, 30),
    _odd("step", lambda x: np.where(x > 0.15, 1.0, -0.5), 300),
    _odd("|x|", np.abs, 300),
    _kink_and_pole(300),
    _odd("log|x|", lambda x: np.log(np.abs(x)), 300),
    _odd("|x|^-0.5", lambda x: np.abs(x) ** -0.5, 300),
    _odd("sqrt", np.sqrt, 300, (0.0, 2.0)),
    _odd("exp(1/x)", lambda x: np.exp(1 / x), 300, (0.05, 1.0)),
    _odd("|x|^1.5", lambda x: np.abs(x) ** 1.5, 30),
    _odd("log|x|", lambda x: np.log(np.abs(x)), 30),
]
