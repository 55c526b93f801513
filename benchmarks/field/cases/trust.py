"""Group 14: what ⊥ and the gap say under noise. ⊥: the fit does not know; trusted: it does."""

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.special import gamma

from benchmarks.field.case import Array, Case, Draw, drawn, most, told
from benchmarks.field.measures import RELATIVE, Ours, relative_error

FRESH = 20_000


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


def _finely(f: Any, low: Any, high: Any, rows: int, noise: float) -> Callable[[int], Draw]:
    """Return rows judged on so many fresh ones that some lie next to a pole."""
    few = drawn(f, low, high, rows, noise)

    def draw(seed: int) -> Draw:
        box = np.atleast_1d(low), np.atleast_1d(high)
        T = np.random.default_rng(1000 + seed).uniform(*box, (FRESH, len(box[0])))
        return few(seed)._replace(T=T, truth=f(*T.T))

    return draw


def _case(name: str, f: Any, low: Any, high: Any, rows: int, noise: float) -> Case:
    measures = (
        RELATIVE,
        told("⊥ rows right within 10 %", false_bottom, most("mean", 0.05)),
        told("trusted rows off by > 100 %", trusted_wrong, most("mean", 0.01)),
    )
    draw = _finely(f, low, high, rows, noise)
    return Case(f"{name}, trust at {noise:.0%}", "trust", draw, relative_error, measures)


def _two(x: Array) -> Array:
    return 1 / (x - 0.3) - 0.5 / (x + 0.6) + 2


LAWS = [
    ("two poles", _two, -1, 1, 300),
    ("tan 3x", lambda x: np.tan(3 * x), -1, 1, 300),
    ("gamma", gamma, -3.5, 3.5, 300),
    ("resonance", lambda x: 1 / ((x - 1) ** 2 + 1e-3) + 0.5, 0, 2, 200),
    ("xy/(x - y)", lambda x, y: x * y / (x - y), (1, 1), (3, 3), 400),
]
CASES = [_case(*law, noise) for noise in (0.01, 0.1) for law in LAWS]
