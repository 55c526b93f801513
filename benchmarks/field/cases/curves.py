"""Functions of one column: clean ones with and without poles, noisy ones, and what ⊥ says there."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.special import digamma, factorial, gamma, j0, j1, jn_zeros

from benchmarks.field.case import Array, Case, Draw, drawn, error_line, least, most, told
from benchmarks.field.measures import (
    AS_AAA,
    NO_POLES,
    RELATIVE,
    Ours,
    all_right,
    bottom_on_rows,
    covered,
    found_share,
    relative_error,
    spread_error,
)

Curve = Callable[[Array], Array]

# --- shapes: no pole, and points that are no pole: steps, kinks, logarithms
WHOLE = told("⊥ on rows", bottom_on_rows, most("worst", 0))
SIGMOID = error_line("RMSE / std", most("median", 1e-9))
POLE = told("true pole", found_share, least("worst", 1))


def _shape(name: str, draw: Any, error: Any, *measures: Any) -> Case:
    return Case(name, "shapes", draw, error, measures, (), ("AAA",), seeds=1)


def _sigmoid(T: float, rows: int = 300) -> Case:
    draw = drawn(lambda x: 1 / (1 + np.exp(np.clip(T * x, -700, 700))), -1, 1, rows)
    return _shape(
        f"sigmoid T = {T}, {rows} rows", draw, spread_error, SIGMOID, NO_POLES, WHOLE
    )._replace(seeds=2)


def _bells(rows: int) -> Case:
    def f(x: Array) -> Array:
        return np.exp(-((x - 0.3) ** 2) / 0.02) + 0.6 * np.exp(-((x + 0.4) ** 2) / 0.05)

    name, draw = f"two Gaussians, {rows} rows", drawn(f, -1, 1, rows)
    return _shape(name, draw, spread_error, AS_AAA, NO_POLES, WHOLE)._replace(seeds=3)


def _odd(name: str, f: Curve, rows: int = 300, low: float = -1.0, pole: float = np.nan) -> Case:
    known = {} if np.isnan(pole) else {"poles": [pole]}
    draw, claimed = drawn(f, low, 1, rows, **known), POLE if known else NO_POLES
    return _shape(f"{name}, {rows} rows", draw, relative_error, AS_AAA, claimed)


SHAPES = [
    *map(_sigmoid, (1, 12, 20, 50, 100, 1000)),
    _sigmoid(12, 30),
    _bells(300),
    _bells(30),
    _odd("step", lambda x: np.where(x > 0.15, 1.0, -0.5)),
    _odd("abs x", np.abs),
    _odd("abs x + pole", lambda x: np.abs(x) + 0.1 / (x - 0.4), pole=0.4),
    _odd("log abs x", lambda x: np.log(np.abs(x))),
    _odd("abs x^-0.5", lambda x: np.abs(x) ** -0.5),
    _odd("sqrt", np.sqrt, low=0.0),
    _odd("exp(1/x)", lambda x: np.exp(1 / x), low=0.05),
    _odd("log abs x", lambda x: np.log(np.abs(x)), 30),
]

# --- clean: functions with poles, few rows and many
THIRD = math.pi / 6  # poles of tan(3 x)
SUM = lambda x: 1 / (x - 0.3) - 0.5 / (x + 0.6) + x  # noqa: E731
# name, f, interval, rows, true poles (each once), bound of the error or None: as AAA's
FUNCTIONS: list[tuple[str, Curve, tuple[float, float], int, list[float], Any]] = [
    ("1/(x - 0.3)", lambda x: 1 / (x - 0.3), (-1, 1), 8, [0.3], 1e-12),
    ("(x - 0.3)^-2", lambda x: (x - 0.3) ** -2, (-1, 1), 8, [0.3], 1e-12),
    ("1/(1 + 400 x²)", lambda x: 1 / (1 + 400 * x**2), (-1, 1), 8, [], 1e-12),
    ("tan 3x", lambda x: np.tan(3 * x), (-1, 1), 30, [-THIRD, THIRD], None),
    ("tan 3x", lambda x: np.tan(3 * x), (-1, 1), 300, [-THIRD, THIRD], None),
    (
        "tan 3x + double",
        lambda x: np.tan(3 * x) + 0.2 / (x - 0.1) ** 2,
        (-1, 1),
        300,
        [-THIRD, 0.1, THIRD],
        None,
    ),
    ("cot", lambda x: 1 / np.tan(x), (-4, 4), 30, [-math.pi, 0, math.pi], None),
    ("gamma", gamma, (-4.5, 4.5), 300, [-4, -3, -2, -1, 0], None),
    ("Bose 1/(e^x - 1)", lambda x: 1 / np.expm1(x), (-3, 5), 300, [0], None),
    ("twin poles", lambda x: 1 / (x - 0.2) + 1 / (x - 0.201), (-1, 1), 300, [0.2, 0.201], None),
    ("1/(1 + 400 x²)", lambda x: 1 / (1 + 400 * x**2), (-1, 1), 30, [], 1e-12),
    ("two poles", SUM, (-1, 1), 30, [-0.6, 0.3], 1e-12),
]


def _clean(name: str, f: Curve, span: Any, rows: int, poles: Any, bound: Any) -> Case:
    error = error_line("relative error", most("median", bound)) if bound else AS_AAA
    measures = (error, told("all poles right", all_right, least("mean", 1)))
    name, draw = f"{name}, {rows} rows", drawn(f, *span, rows, poles=poles)
    return Case(name, "clean", draw, relative_error, measures, (), ("AAA",), seeds=1)


# --- noisy poles: what is claimed at 1 % noise, and how surely. So many seeds that some twenty
# poles are counted, and 0.9 to 0.99 of them is possible.
SURELY = (
    RELATIVE,
    told("all poles right", all_right, least("mean", 0.95)),
    told("poles in ±1.96 se", covered("position", 1.96), least("mean", 0.9), most("mean", 0.99)),
    told("residues in ±1.96 se", covered("residue", 1.96), least("mean", 0.85), most("mean", 0.99)),
)


def _moving(seed: int) -> Draw:
    random = np.random.default_rng(seed)
    a, size = random.uniform(-0.7, 0.7), random.uniform(0.3, 2)
    f = lambda x: size / (x - a) + np.sin(3 * x)  # noqa: E731
    return drawn(f, -1, 1, 300, 0.01, poles=[a], residues=[size])(random)


def _at_one_percent(f: Curve, low: float, high: float, poles: Any, residues: Any) -> Any:
    return drawn(f, low, high, 300, 0.01, poles=np.array(poles, float), residues=residues)


PI, WHOLES, ZEROS = math.pi, np.arange(-4, 1), jn_zeros(0, 6)
NOISY: dict[str, tuple[int, Any]] = {
    "gamma": (5, _at_one_percent(gamma, -4.5, 4.5, WHOLES, (-1.0) ** WHOLES / factorial(-WHOLES))),
    "cot": (7, _at_one_percent(lambda x: 1 / np.tan(x), -4, 4, [-PI, 0, PI], np.ones(3))),
    "J1/J0": (5, _at_one_percent(lambda x: j1(x) / j0(x), 0, 20, ZEROS, -np.ones(6))),
    "moving pole": (20, _moving),
    "digamma": (7, _at_one_percent(digamma, -2.5, 3, [-2, -1, 0], -np.ones(3))),
}


def _noisy(name: str, seeds: int, draw: Any) -> Case:
    name, right = f"{name}, 1 %", ("AAA",)
    return Case(name, "noisy poles", draw, relative_error, SURELY, ("network",), right, seeds=seeds)


# --- many poles
def _many(count: int, rows: int, noise: float, seeds: int) -> Case:
    poles = np.linspace(-0.97, 0.97, count)

    def draw(seed: int) -> Draw:
        random = np.random.default_rng(seed)
        r = random.standard_normal(count)
        f = lambda x: (r / (x[:, None] - poles)).sum(1)  # noqa: E731
        return drawn(f, -1, 1, rows, noise, poles=poles, residues=r)(random)

    bounds = () if noise else (most("median", 1e-12),)
    share = told("share of the poles", found_share, least("mean", 1))
    measures = (error_line("relative error", *bounds), share)
    if noise:
        measures += (told("poles in ±3 se", covered("position", 3), least("mean", 0.95)),)
    name = f"{count} poles, {rows} rows" + (f", {noise:.1%}" if noise else "")
    return Case(name, "many poles", draw, relative_error, measures, ("AAA",), seeds=seeds)


SIZES = [(45, 3000, 0, 1), (20, 300, 0, 2), (80, 3000, 0, 1), (20, 1000, 0.001, 3), (10, 100, 0, 3)]


# --- trust: ⊥ says that the fit does not know, an answer outside the gap that it does
def _wrong(draw: Draw, ours: Ours) -> tuple[Array, Array, Array]:
    """Return the relative errors of the plain quotients, and which rows are ⊥ and in the gap."""
    N, D = (np.asarray(part, float)[:, 0] for part in ours.model.tuples(draw.T))
    _, bottom, gap = ours.model.predict_strict(draw.T)
    return np.abs(N / D - draw.truth) / np.abs(draw.truth), bottom, gap


def false_bottom(draw: Draw, ours: Ours) -> float | None:
    """Return the share of the ⊥ rows whose plain quotient is right within 10 %."""
    wrong, bottom, _ = _wrong(draw, ours)
    return float(np.mean(wrong[bottom] < 0.1)) if bottom.any() else None


def trusted_wrong(draw: Draw, ours: Ours) -> float:
    """Return the share of the rows neither ⊥ nor in the gap that are off by more than 100 %."""
    wrong, bottom, gap = _wrong(draw, ours)
    return float(np.mean(wrong[~bottom & ~gap] > 1))


TRUSTED = (
    RELATIVE,
    told("⊥ rows right within 10 %", false_bottom, most("mean", 0.05)),
    told("trusted rows off by > 100 %", trusted_wrong, most("mean", 0.01)),
)
LAWS = [
    ("two poles", lambda x: 1 / (x - 0.3) - 0.5 / (x + 0.6) + 2, -1, 1, 300),
    ("tan 3x", lambda x: np.tan(3 * x), -1, 1, 300),
    ("gamma", gamma, -3.5, 3.5, 300),
    ("resonance", lambda x: 1 / ((x - 1) ** 2 + 1e-3) + 0.5, 0, 2, 200),
    ("xy/(x - y)", lambda x, y: x * y / (x - y), (1, 1), (3, 3), 400),
]


def _trust(name: str, f: Any, low: Any, high: Any, rows: int, noise: float) -> Case:
    few, fresh = drawn(f, low, high, rows, noise), drawn(f, low, high, fresh=100_000)

    def draw(seed: int) -> Draw:
        finely = fresh(1000 + seed)  # so many that some lie next to a pole
        return few(seed)._replace(T=finely.T, truth=finely.truth)

    name = f"{name}, trust at {noise:.0%}"
    return Case(name, "trust", draw, relative_error, TRUSTED, seeds=10)


CASES = [
    *SHAPES,
    *(_noisy(name, *each) for name, each in NOISY.items()),
    *(_many(*size) for size in SIZES),
    *(_clean(*each) for each in FUNCTIONS),
    *(_trust(*law, noise) for noise in (0.01, 0.1) for law in LAWS),
]
