"""Complex signals over frequency, declared or as two real columns, and resonances in spectra."""

from typing import Any

import numpy as np

from benchmarks.field.case import (
    FLOOR,
    Array,
    Case,
    Draw,
    Formula,
    Function,
    Measure,
    drawn,
    error_line,
    least,
    most,
    over,
    told,
)
from benchmarks.field.measures import (
    NO_POLES,
    RELATIVE,
    Ours,
    covered,
    fitted,
    one_pair,
    pair_error,
    relative_error,
    spread_error,
    stable_right,
)

# --- impedances
WIDE = np.array([1e-4, 1e-2, 1.0, 10.0, 100.0])
DECADE = np.array([1e-3, 1e-2, 1e-1, 1.0, 10.0])
OMEGA = 2 * np.pi * np.logspace(-2.5, 4, 66)
FIT = ("vector fitting",)


def _ladder(tau: Array) -> Function:
    return lambda w: 0.002 + (0.01 / (1 + 1j * w[:, None] * tau)).sum(1)


def _warburg(w: Array) -> Array:
    return 0.016 + 0.01 / (1 + 1j * w * 0.01) + 0.02 / np.sqrt(20j * w) + 1j * w * 1e-8


def _randles(w: Array) -> Array:
    branch = 50 + 30 / np.sqrt(1j * w)
    return 10 + 1 / (1 / branch + 1j * w * 2e-5)


def _over_declared(draw: Draw, ours: Ours) -> float:
    """Return the error of two columns over that of the same rows declared complex."""
    y = draw.y[:, 0] + 1j * draw.y[:, 1]
    answer = np.asarray(fitted(CASES[0], draw.X, y)[0].predict(draw.T))
    declared = relative_error(np.c_[answer.real, answer.imag], draw)
    return max(ours.error, FLOOR) / max(declared, FLOOR)


def _measures(noise: float, tau: Array | None, parts: bool) -> list[Measure]:
    if parts:
        found = [error_line("relative error", most("median", 3 * noise or 1e-11))]
        bounds = (most("median", 3),) if noise else ()
        return [*found, told("error / declared", _over_declared, *bounds)]
    bounds = () if noise or tau is None else (most("median", 1e-12),)
    found = [error_line("relative error", *bounds)]
    if noise:
        found.append(over(FIT, most("median", 1.2)))
    if tau is not None:
        right = stable_right(0.1 if noise else 1e-6)
        found.append(told("poles right", right, least("mean", 0.8 if noise else 1)))
    if tau is not None and noise:
        found.append(told("poles in ±3 se", covered("position", 3), least("mean", 0.95)))
    return found


def _impedance(
    name: str, f: Any, noise: float, tau: Any = None, *, parts: bool = False, far: bool = False
) -> Case:
    at = np.append(OMEGA, 1e4 * OMEGA[-1]) if far else OMEGA
    known = {} if tau is None else {"poles": 1j / tau}  # over frequency; -1 / tau in s
    ends = OMEGA[0], OMEGA[-1]
    draw = drawn(f, *ends, noise=noise, at=at, fresh=300, wide=True, parts=parts, **known)
    measures = tuple(_measures(noise, tau, parts))
    name += ", 0.3 %" * bool(noise) + ", re and im" * parts
    rivals, right = ("boosting",) if parts else ("AAA",), () if parts else FIT
    seeds = (3 if parts else 5) if noise else 1
    return Case(
        name,
        "impedance",
        draw,
        relative_error,
        measures,
        rivals,
        right,
        None,
        seeds,
        conjugate=True,
    )


IMPEDANCES = [
    _impedance("five RC, wide", _ladder(WIDE), 0, WIDE),
    _impedance("five RC, wide", _ladder(WIDE), 0.003, WIDE),
    _impedance("five RC, decades", _ladder(DECADE), 0.003, DECADE),
    _impedance("five RC, wide", _ladder(WIDE), 0, WIDE, parts=True),
    _impedance("Warburg", _warburg, 0.003),
    _impedance("Randles", _randles, 0.003, parts=True),
    _impedance("five RC, far point", _ladder(WIDE), 0.003, WIDE, far=True),
    _impedance("two RC", _ladder(WIDE[1:3]), 0.003, WIDE[1:3]),
    _impedance("Warburg", _warburg, 0, parts=True),
    _impedance("five RC, wide", _ladder(WIDE), 0.003, WIDE, parts=True),
]

# --- resonators: one pair of complex poles
CENTRE = 5.9e9


def _resonance(quality: float, noise: float = 0.0, parts: bool = False, real: bool = False) -> Case:
    """Return a resonator over frequency, or a circuit: a real system, with a pair in s."""
    half = CENTRE / (2 * quality)

    def resonator(x: Array) -> Array:
        return 0.9 * np.exp(0.3j) * (1 - 0.7 / (1 + 1j * (x - CENTRE) / half))

    def circuit(x: Array) -> Array:
        pole = -half + 1j * CENTRE
        ways = ((0.7 + 0.2j, pole), (0.7 - 0.2j, pole.conjugate()))
        return 0.3 + sum(half * r / (1j * x - p) for r, p in ways)

    f, ends = circuit if real else resonator, (CENTRE - 12 * half, CENTRE + 10 * half)
    at, pole = np.linspace(*ends, 201), [CENTRE + 1j * half]
    draw = drawn(f, *ends, noise=noise, at=at, fresh=300, parts=parts, poles=pole)
    name = f"{f.__name__} Q {quality:.0e}{', 0.5 %' * bool(noise)}{', re and im' * parts}"
    pair = told("one pair", one_pair, least("mean", 1))
    exact = told("frequency/1e-9, width/1e-4", pair_error(1e-9, 1e-4), most("worst", 1))
    rough = told("frequency/(1e-2/Q), width/2 %", pair_error(0.01 / quality, 0.02), most("p90", 1))
    measures = (RELATIVE, pair, rough if noise else exact)
    rivals, seeds = ("boosting",) if parts else ("vector fitting", "AAA"), 5 if noise else 1
    return Case(
        name, "resonators", draw, relative_error, measures, rivals, seeds=seeds, conjugate=real
    )


def _lorentzian(x: Array, a: float, c: float, w: float, b: float) -> Array:
    return a / ((x - c) ** 2 + w**2) + b


def _peaks(x: Array, a: float, c: float, w: float, b: float, d: float, v: float) -> Array:
    return a * np.exp(-(((x - c) / w) ** 2)) + b * np.exp(-(((x - d) / v) ** 2))


def _spectrum(f: Function, true: tuple[float, ...], rows: int) -> Case:
    bell, pole = f is _lorentzian, [true[1] + 1j * true[2]]
    at = np.linspace(0, 20, rows)
    draw = drawn(lambda x: f(x, *true), 0, 20, noise=0.3, of="one", at=at, poles=pole)
    name = f"{'Lorentzian + constant' if bell else 'two noisy peaks'}, {rows} rows"
    claimed = told("one pair", one_pair, least("mean", 0.95)) if bell else NO_POLES
    measures = (over(("curve_fit",), most("median", 1.5 if bell else 2)), claimed)
    rivals, right, formula = ("AAA", "network"), ("curve_fit",), Formula(f, (true,))
    return Case(name, "resonators", draw, spread_error, measures, rivals, right, formula)


LORENTZIAN, PEAKS = (17.0, 9.24, 1.25, 0.5), (8.0, 7.0, 1.0, 5.0, 12.0, 2.0)
CASES = [
    *IMPEDANCES,
    _resonance(1e2),
    _resonance(1e4, 0.005),
    _resonance(1e6),
    _spectrum(_lorentzian, LORENTZIAN, 401),
    _resonance(1e4, parts=True),
    _resonance(1e2, 0.005),
    _spectrum(_peaks, PEAKS, 201),
    _resonance(1e6, 0.005, parts=True),
    _spectrum(_lorentzian, LORENTZIAN, 41),
    _resonance(1e6, real=True),
    _resonance(1e4, 0.005, real=True),
    _resonance(1e4, parts=True, real=True),
]
