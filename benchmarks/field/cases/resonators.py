"""Group 6: resonances, one pair of complex poles."""

from collections.abc import Callable

import numpy as np

from benchmarks.field.case import Array, Case, Draw, Formula, column, least, most, noisy, over, told
from benchmarks.field.measures import (
    NO_POLES,
    RELATIVE,
    one_pair,
    pair_error,
    relative_error,
    spread_error,
)

CENTRE, GROUP = 5.9e9, "resonators"


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
    name = f"resonator Q {quality:.0e}{', 0.5 %' * bool(noise)}{', re and im' * columns}"
    pair = told("one pair", one_pair, least("mean", 1))
    exact = told("frequency/1e-9, width/1e-4", pair_error(1e-9, 1e-4), most("worst", 1))
    rough = told("frequency/(1e-2/Q), width/2 %", pair_error(0.01 / quality, 0.02), most("p90", 1))
    measures = (RELATIVE, pair, rough if noise else exact)
    draw, seeds = _resonator(quality, noise, columns), 5 if noise else 3
    rivals = ("boosting",) if columns else ("vector fitting", "AAA")
    return Case(name, GROUP, draw, relative_error, measures, rivals, seeds=seeds)


def _circuit(quality: float, noise: float, columns: bool) -> Case:
    """Return a resonance of a real system: a pair in s, with a real constant."""
    half = CENTRE / (2 * quality)

    def f(x: Array) -> Array:
        pole = np.array([-half + 1j * CENTRE])
        ways = ((0.7 + 0.2j, pole), (0.7 - 0.2j, pole.conj()))
        return 0.3 + sum(half * r / (1j * x - p) for r, p in ways)

    def draw(seed: int) -> Draw:
        random = np.random.default_rng(seed)
        x = np.linspace(CENTRE - 12 * half, CENTRE + 10 * half, 201)
        t = random.uniform(x[0], x[-1], 300)
        y, truth = noisy(f(x), random, noise), f(t)
        if columns:
            y, truth = (np.c_[z.real, z.imag] for z in (y, truth))
        return Draw(column(x), y, column(t), truth, np.array([CENTRE + 1j * half]))

    case = _case(quality, noise, columns)
    name = case.name.replace("resonator", "circuit")
    return case._replace(name=name, draw=draw, conjugate=True)


def _lorentzian(x: Array, a: float, c: float, w: float, b: float) -> Array:
    return a / ((x - c) ** 2 + w**2) + b


def _peaks(x: Array, a: float, c: float, w: float, b: float, d: float, v: float) -> Array:
    return a * np.exp(-(((x - c) / w) ** 2)) + b * np.exp(-(((x - d) / v) ** 2))


def _spectrum(f: Callable[..., Array], true: tuple[float, ...], rows: int) -> Case:
    def draw(seed: int) -> Draw:
        random = np.random.default_rng(seed)
        x, t = np.linspace(0, 20, rows), random.uniform(0, 20, 400)
        y = f(x, *true) + 0.3 * random.standard_normal(rows)
        return Draw(column(x), y, column(t), f(t, *true), np.array([true[1] + 1j * true[2]]))

    bell = f is _lorentzian
    name = f"{'Lorentzian + constant' if bell else 'two noisy peaks'}, {rows} rows"
    claimed = told("one pair", one_pair, least("mean", 0.95)) if bell else NO_POLES
    measures = (over(("curve_fit",), most("median", 1.5 if bell else 2)), claimed)
    rivals, right = ("AAA", "network"), ("curve_fit",)
    return Case(name, GROUP, draw, spread_error, measures, rivals, right, Formula(f, (true,)))


LORENTZIAN, PEAKS = (17.0, 9.24, 1.25, 0.5), (8.0, 7.0, 1.0, 5.0, 12.0, 2.0)
CASES = [
    _case(1e2),
    _case(1e4, 0.005),
    _case(1e6),
    _spectrum(_lorentzian, LORENTZIAN, 401),
    _case(1e4, columns=True),
    _case(1e2, 0.005),
    _spectrum(_peaks, PEAKS, 201),
    _case(1e6, 0.005, columns=True),
    _spectrum(_lorentzian, LORENTZIAN, 41),
    _circuit(1e6, 0, columns=False),
    _circuit(1e4, 0.005, columns=False),
    _circuit(1e4, 0, columns=True),
]
