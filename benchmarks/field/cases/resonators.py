"""Group 6: resonances, one pair of complex poles."""

from collections.abc import Callable

import numpy as np

from benchmarks.field.case import (
    Array,
    Case,
    Draw,
    Formula,
    column,
    error_line,
    least,
    most,
    noisy,
    over,
    told,
)
from benchmarks.field.measures import (
    one_pair,
    pair_error,
    poles_claimed,
    relative_error,
    spread_error,
)

CENTRE = 5.9e9


def _resonator(quality: float, noise: float, columns: bool) -> Callable[[int], Draw]:
    half = CENTRE / (2 * quality)

    def f(x: Array) -> Array:
        return 0.9 * np.exp(0.3j) * (1 - 0.7 / (1 + 1j * (x - CENTRE) / half))

    def draw(seed: int) -> Draw:
        random = np.random.default_rng(seed)
        x = np.linspace(CENTRE - 12 * half, CENTRE + 10 * half, 201)
        t = random.uniform(x[0], x[-1], 300)
        y, truth = noisy(f(x), random, noise), f(t)
        if columns:
            y, truth = (np.c_[z.real, z.imag] for z in (y, truth))
        return Draw(column(x), y, column(t), truth, np.array([CENTRE + 1j * half]))

    return draw


def _case(quality: float, noise: float = 0.0, columns: bool = False) -> Case:
    name = (
        f"resonator Q {quality:.0e}"
        + (", 0.5 %" if noise else "")
        + (", re and im" if columns else "")
    )
    pair = told("one pair", one_pair, least("mean", 1))
    exact = told("frequency/1e-9, width/1e-4", pair_error(1e-9, 1e-4), most("worst", 1))
    rough = told("frequency/(1e-2/Q), width/2 %", pair_error(0.01 / quality, 0.02), most("p90", 1))
    measures = (error_line("relative error"), pair, rough if noise else exact)
    rivals = ("boosting",) if columns else ("vector fitting", "AAA")
    return Case(
        name, "resonators", _resonator(quality, noise, columns), relative_error, measures, rivals
    )


def _lorentzian(x: Array, a: float, c: float, w: float, b: float) -> Array:
    return a / ((x - c) ** 2 + w**2) + b


def _peaks(x: Array, a: float, c: float, w: float, b: float, d: float, v: float) -> Array:
    return a * np.exp(-(((x - c) / w) ** 2)) + b * np.exp(-(((x - d) / v) ** 2))


def _spectrum(
    f: Callable[..., Array], true: tuple[float, ...], rows: int, noise: float, pole: complex | None
) -> Callable[[int], Draw]:
    def draw(seed: int) -> Draw:
        random = np.random.default_rng(seed)
        x, t = np.linspace(0, 20, rows), random.uniform(0, 20, 400)
        y = f(x, *true) + noise * random.standard_normal(rows)
        return Draw(
            column(x), y, column(t), f(t, *true), None if pole is None else np.array([pole])
        )

    return draw


LORENTZIAN, PEAKS = (17.0, 9.24, 1.25, 0.5), (8.0, 7.0, 1.0, 5.0, 12.0, 2.0)


def _bell(rows: int) -> Case:
    ratio = over(("curve_fit",), most("median", 1.5))
    measures = (ratio, told("one pair", one_pair, least("mean", 0.95)))
    draw = _spectrum(_lorentzian, LORENTZIAN, rows, 0.3, 9.24 + 1.25j)
    formula = Formula(_lorentzian, (LORENTZIAN, (10.0, 8.0, 2.0, 0.0)))
    return Case(
        f"Lorentzian + constant, {rows} rows",
        "resonators",
        draw,
        spread_error,
        measures,
        ("AAA",),
        ("curve_fit",),
        formula,
        10,
    )


def _two_peaks() -> Case:
    measures = (
        over(("curve_fit",), most("median", 2)),
        told("poles claimed", poles_claimed, most("worst", 0)),
    )
    draw = _spectrum(_peaks, PEAKS, 201, 0.2, None)
    formula = Formula(_peaks, (PEAKS,))
    return Case(
        "two noisy peaks",
        "resonators",
        draw,
        spread_error,
        measures,
        ("AAA", "network"),
        ("curve_fit",),
        formula,
    )


CASES = [
    _case(1e2),
    _case(1e4, 0.005),
    _case(1e6),
    _bell(401),
    _case(1e4, columns=True),
    _case(1e2, 0.005),
    _two_peaks(),
    _case(1e6, 0.005, columns=True),
    _bell(41),
]
