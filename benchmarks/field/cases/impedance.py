"""Group 5: impedances over angular frequency, declared complex or as two real columns."""

from collections.abc import Callable

import numpy as np

from benchmarks.field.case import (
    Array,
    Case,
    Draw,
    column,
    error_line,
    least,
    most,
    noisy,
    over,
    told,
)
from benchmarks.field.measures import covered, relative_error, stable_right

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
        poles = None if tau is None else np.sort(-1 / tau)
        return Draw(column(w), y, column(t), truth, poles)

    return draw


def _case(
    name: str,
    f: Callable[[Array], Array],
    noise: float,
    *,
    tau: Array | None = None,
    columns: bool = False,
    far: bool = False,
) -> Case:
    measures = [
        error_line(
            "relative error",
            *([] if noise else [most("median", 1e-12 if tau is not None else 1e-3)]),
        )
    ]
    if columns:
        measures = [error_line("relative error", most("median", 3 * noise or 1e-11))]
    elif noise:
        measures.append(over(("vector fitting",), most("median", 1.2)))
    if tau is not None and not columns:
        right = least("mean", 0.8 if noise else 1)
        measures.append(told("poles right", stable_right(0.1 if noise else 1e-6), right))
    if tau is not None and not columns and noise:
        measures.append(told("poles in ±3 se", covered("position", 3), least("mean", 0.95)))
    name += ", 0.3 %" if noise else ""
    name += ", re and im" if columns else ""
    rivals = ("linear", "boosting") if columns else ("AAA",)
    draw = _draw(f, noise, tau, columns, far)
    references = () if columns else ("vector fitting",)
    return Case(
        name, "impedance", draw, relative_error, tuple(measures), rivals, references, conjugate=True
    )


CASES = [
    _case("five RC, wide", _ladder(WIDE), 0, tau=WIDE),
    _case("five RC, wide", _ladder(WIDE), 0.003, tau=WIDE),
    _case("five RC, decades", _ladder(DECADE), 0.003, tau=DECADE),
    _case("five RC, wide", _ladder(WIDE), 0, tau=WIDE, columns=True),
    _case("Warburg", _warburg, 0.003),
    _case("Randles", _randles, 0.003, columns=True),
    _case("five RC, far point", _ladder(WIDE), 0.003, tau=WIDE, far=True),
    _case("two RC", _ladder(WIDE[1:3]), 0.003, tau=WIDE[1:3]),
    _case("Warburg", _warburg, 0, columns=True),
]
