"""Group 2: dose-response and kinetics designs of 5 to 24 rows, with replicates."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from benchmarks.field.case import Array, Case, Draw, Formula, column, most, over, told
from benchmarks.field.measures import NO_POLES, outside, spread_error


class Law(NamedTuple):
    """A formula, its parameters, and other starts for curve_fit."""

    f: Callable[..., Array]
    true: tuple[float, ...]
    other: tuple[float, ...]


def _four(c: Array, low: float, high: float, middle: float, slope: float) -> Array:
    with np.errstate(all="ignore"):
        return low + (high - low) / (1 + (c / np.abs(middle)) ** slope)


def _hill(c: Array, top: float, half: float, power: float) -> Array:
    with np.errstate(all="ignore"):
        return top * c**power / (np.abs(half) ** power + c**power)


def _substrate(s: Array, v: float, k: float, inhibition: float) -> Array:
    return v * s / (k + s + s**2 / inhibition)


def _decay(t: Array, a: float, k: float, c: float) -> Array:
    return a * np.exp(-k * t) + c


def _growth(t: Array, a: float, r: float, middle: float) -> Array:
    return a / (1 + np.exp(np.clip(r * (middle - t), -500, 500)))


LAWS = {
    "4PL": Law(_four, (0.0, 1.0, 0.05, 1.8), (0.1, 0.9, 0.2, 1.0)),
    "Hill": Law(_hill, (2.0, 1.0, 2.5), (1.5, 0.5, 1.0)),
    "Michaelis-Menten": Law(lambda s, v, k: v * s / (k + s), (200.0, 0.06), (150.0, 0.2)),
    "substrate inhibition": Law(_substrate, (10.0, 0.5, 4.0), (8.0, 1.0, 10.0)),
    "exponential decay": Law(_decay, (3.0, 0.8, 0.5), (2.0, 0.3, 0.0)),
    "logistic growth": Law(_growth, (5.0, 1.2, 6.0), (4.0, 0.5, 4.0)),
}


def _draw(law: Law, inputs: Array, replicates: int, noise: float) -> Callable[[int], Draw]:
    def draw(seed: int) -> Draw:
        random = np.random.default_rng(seed)
        x = np.repeat(inputs, replicates)
        clean = law.f(x, *law.true)
        y = clean + noise * np.ptp(clean) * random.standard_normal(len(x))
        wide = inputs.min() > 0 and inputs.max() > 30 * inputs.min()
        dense = (np.geomspace if wide else np.linspace)(inputs.min(), inputs.max(), 400)
        return Draw(column(x), y, column(dense), law.f(dense, *law.true))

    return draw


DOSES = 2.0 * 3.0 ** -np.arange(8)
DESIGNS = [
    ("4PL", DOSES, 1, 0.04),
    ("4PL", DOSES, 3, 0.04),
    ("4PL", 0.5 * 10.0 ** -np.arange(0, 3, 0.6), 2, 0.06),
    ("Hill", np.geomspace(0.1, 10, 6), 1, 0.03),
    ("Hill", np.geomspace(0.05, 20, 8), 2, 0.05),
    ("Michaelis-Menten", np.array([0.02, 0.06, 0.11, 0.22, 0.56, 1.1]), 2, 0.05),
    ("Michaelis-Menten", np.array([0.02, 0.06, 0.15, 0.4, 1.1]), 1, 0.03),
    ("substrate inhibition", np.array([0.1, 0.3, 0.6, 1, 2, 4, 8, 16]), 3, 0.03),
    ("exponential decay", np.linspace(0, 6, 10), 1, 0.03),
    ("exponential decay", np.linspace(0, 6, 7), 2, 0.08),
    ("logistic growth", np.linspace(0, 12, 13), 1, 0.03),
    ("logistic growth", np.linspace(0, 12, 8), 3, 0.05),
]
MEASURES = (
    over(("curve_fit",), most("median", 1.2), most("p90", 3)),
    told("outside the range", outside, most("worst", 0.5)),
    NO_POLES,
)


RIVALS, RIGHT = ("linear", "network", "AAA"), ("curve_fit",)


def _case(name: str, inputs: Array, replicates: int, noise: float) -> Case:
    law, design = LAWS[name], f"{name}, {len(inputs)} x {replicates}, {noise:.0%}"
    draw, formula = _draw(law, inputs, replicates, noise), Formula(law.f, (law.true, law.other))
    return Case(design, "doses", draw, spread_error, MEASURES, RIVALS, RIGHT, formula, seeds=10)


CASES = [_case(*design) for design in DESIGNS]
