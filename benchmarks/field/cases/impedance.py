"""Group 5: impedances over angular frequency, declared complex or as two real columns."""

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.field.case import (
    FLOOR,
    Array,
    Case,
    Draw,
    Measure,
    column,
    error_line,
    least,
    most,
    noisy,
    over,
    told,
)
from benchmarks.field.measures import Ours, covered, fitted, relative_error, stable_right

WIDE = np.array([1e-4, 1e-2, 1.0, 10.0, 100.0])
DECADE = np.array([1e-3, 1e-2, 1e-1, 1.0, 10.0])


def _ladder(tau: Array) -> Callable[[Array], Array]:
    return lambda w: 0.002 + (0.01 / (1 + 1j * w[:, None] * tau)).sum(1)


def _warburg(w: Array) -> Array:
    return 0.016 + 0.01 / (1 + 1j * w * 0.01) + 0.02 / np.sqrt(20j * w) + 1j * w * 1e-8


def _randles(w: Array) -> Array:
    branch = 50 + 30 / np.sqrt(1j * w)
    return 10 + 1 / (1 / branch + 1j * w * 2e-5)


def _draw(
    f: Callable[[Array], Array], noise: float, tau: Array | None, columns: bool, far: bool
) -> Callable[[int], Draw]:
    def draw(seed: int) -> Draw:
        random = np.random.default_rng(seed)
        w = 2 * np.pi * np.logspace(-2.5, 4, 66)
        t = np.exp(random.uniform(np.log(w[0]), np.log(w[-1]), 300))
        y, truth = noisy(f(w), random, noise), f(t)
        if far:
            w = np.append(w, 1e4 * w[-1])
            y = noisy(f(w), np.random.default_rng(seed), noise)
        if columns:
            y, truth = (np.c_[z.real, z.imag] for z in (y, truth))
        poles = None if tau is None else 1j / tau  # over frequency; -1 / tau in s
        return Draw(column(w), y, column(t), truth, poles)

    return draw


FIT = ("vector fitting",)


def _over_declared(draw: Draw, ours: Ours) -> float:
    """Return the error of two columns over that of the same rows declared complex."""
    case = next(case for case in CASES if case.conjugate)
    y = draw.y[:, 0] + 1j * draw.y[:, 1]
    answer = np.asarray(fitted(case, draw.X, y)[0].predict(draw.T))
    declared = relative_error(np.c_[answer.real, answer.imag], draw)
    return max(ours.error, FLOOR) / max(declared, FLOOR)


def _measures(noise: float, tau: Array | None, columns: bool) -> list[Measure]:
    if columns:
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


def _case(
    name: str, f: Any, noise: float, tau: Any = None, *, columns: bool = False, far: bool = False
) -> Case:
    measures = tuple(_measures(noise, tau, columns))
    name += ", 0.3 %" * bool(noise) + ", re and im" * columns
    draw, rivals = _draw(f, noise, tau, columns, far), ("boosting",) if columns else ("AAA",)
    right = () if columns else FIT
    return Case(name, "impedance", draw, relative_error, measures, rivals, right, conjugate=True)


CASES = [
    _case("five RC, wide", _ladder(WIDE), 0, WIDE),
    _case("five RC, wide", _ladder(WIDE), 0.003, WIDE),
    _case("five RC, decades", _ladder(DECADE), 0.003, DECADE),
    _case("five RC, wide", _ladder(WIDE), 0, WIDE, columns=True),
    _case("Warburg", _warburg, 0.003),
    _case("Randles", _randles, 0.003, columns=True),
    _case("five RC, far point", _ladder(WIDE), 0.003, WIDE, far=True),
    _case("two RC", _ladder(WIDE[1:3]), 0.003, WIDE[1:3]),
    _case("Warburg", _warburg, 0, columns=True),
    _case("five RC, wide", _ladder(WIDE), 0.003, WIDE, columns=True),
]
