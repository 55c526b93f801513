"""Few measured rows: doses and kinetics, noise about a constant, and the NIST reference sets."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from benchmarks.field.case import Array, Case, Draw, Formula, column, drawn, least, most, over, told
from benchmarks.field.measures import (
    NO_POLES,
    RELATIVE,
    Ours,
    fitted,
    outside,
    poles_claimed,
    relative_error,
    spread_error,
)
from benchmarks.solve.nist import BOUND, certified, lre, table


# --- doses: designs of 5 to 24 rows, with replicates
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


def _growth(t: Array, a: float, r: float, middle: float) -> Array:
    return a / (1 + np.exp(np.clip(r * (middle - t), -500, 500)))


LAWS = {
    "4PL": Law(_four, (0.0, 1.0, 0.05, 1.8), (0.1, 0.9, 0.2, 1.0)),
    "Hill": Law(_hill, (2.0, 1.0, 2.5), (1.5, 0.5, 1.0)),
    "Michaelis-Menten": Law(lambda s, v, k: v * s / (k + s), (200.0, 0.06), (150.0, 0.2)),
    "substrate inhibition": Law(_substrate, (10.0, 0.5, 4.0), (8.0, 1.0, 10.0)),
    "exponential decay": Law(
        lambda t, a, k, c: a * np.exp(-k * t) + c, (3.0, 0.8, 0.5), (2.0, 0.3, 0.0)
    ),
    "logistic growth": Law(_growth, (5.0, 1.2, 6.0), (4.0, 0.5, 4.0)),
}
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
AS_FORMULA = (
    over(("curve_fit",), most("median", 1.2), most("p90", 3)),
    told("outside the range", outside, most("worst", 0.5)),
    NO_POLES,
)


def _doses(name: str, inputs: Array, replicates: int, noise: float) -> Case:
    law, ends = LAWS[name], (inputs.min(), inputs.max())
    draw = drawn(
        lambda x: law.f(x, *law.true),
        *ends,
        noise=noise,
        of="range",
        at=np.repeat(inputs, replicates),
        fresh=0,
        wide=0 < 30 * ends[0] < ends[1],
    )
    name, formula = f"{name}, {len(inputs)} x {replicates}, {noise:.0%}", (law.true, law.other)
    rivals, right = ("linear", "network", "AAA"), ("curve_fit",)
    return Case(
        name, "doses", draw, spread_error, AS_FORMULA, rivals, right, Formula(law.f, formula), 20
    )


# --- noise about a constant, where the mean is all there is
def _noise(rows: int, heavy: bool = False) -> Case:
    def draw(seed: int) -> Draw:
        random = np.random.default_rng(seed)
        X, T = (column(random.uniform(0, 10, count)) for count in (rows, 400))
        y, truth = (
            3 + (random.standard_t(3, len(at)) if heavy else random.standard_normal(len(at)))
            for at in (X, T)
        )
        return Draw(X, y, T, truth)

    bounds = (most("median", 1.05), most("worst", 1.15)) if rows >= 15 else (most("p90", 1.3),)
    claimed = told("poles claimed", poles_claimed, most("mean", 0.01))
    measures, rivals = (over(("mean",), *bounds), claimed), ("linear", "network", "AAA")
    name = f"{'student t(3)' if heavy else 'normal'} noise, {rows} rows"
    seeds = 20 if rows < 15 else 10
    return Case(name, "noise", draw, spread_error, measures, rivals, ("mean",), seeds=seeds)


NOISES = [(5,), (8,), (12,), (15,), (25,), (30, True), (50,)]


# --- NIST StRD, rational class: residual sums are certified to 11 digits
def _nist(name: str, facts: dict[str, Any]) -> Case:
    x, y = (part.numpy() for part in table(name))
    degrees = facts["numerator_degree"], facts["denominator_degree"]
    best = facts["certified_residual_sum_of_squares"]

    def draw(seed: int) -> Draw:
        return Draw(column(x), y, column(x), y)

    def digits(draw: Draw, ours: Ours) -> float:
        model, _ = fitted(case, draw.X, draw.y, features="chebyshev", degrees=degrees)
        return lre(float(((model.predict(draw.X) - y) ** 2).sum()), best)

    def sum_left(draw: Draw, ours: Ours) -> float:
        return float(((ours.predicted - y) ** 2).sum() / best)

    measures = (
        RELATIVE,
        told("residual sum / certified", sum_left, most("median", 1.5)),
        told(f"digits, degrees {degrees}", digits, least("worst", BOUND)),
        NO_POLES,
    )
    case = Case(f"NIST {name}", "nist", draw, relative_error, measures, ("AAA",), seeds=1)
    return case


CASES = [
    *(_doses(*design) for design in DESIGNS),
    *(_noise(*each) for each in NOISES),
    *(_nist(name, facts) for name, facts in certified().items()),
]
