"""Group 9: many simple poles."""

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.field.case import Case, Draw, column, error_line, least, most, noisy, told
from benchmarks.field.measures import covered, found_share, relative_error


def _draw(count: int, rows: int, noise: float) -> Callable[[int], Draw]:
    def draw(seed: int) -> Draw:
        random = np.random.default_rng(seed)
        poles = np.linspace(-0.97, 0.97, count)
        residues = random.standard_normal(count)

        def f(x: Any) -> Any:
            return (residues / (x[:, None] - poles)).sum(1)

        x, t = random.uniform(-1, 1, rows), random.uniform(-1, 1, 400)
        return Draw(column(x), noisy(f(x), random, noise), column(t), f(t), poles, residues)

    return draw


def _case(count: int, rows: int, noise: float, seeds: int) -> Case:
    bounds = () if noise else (most("median", 1e-12),)
    measures = [
        error_line("relative error", *bounds),
        told("share of the poles", found_share, least("mean", 1)),
    ]
    if noise:
        measures.append(told("poles in ±3 se", covered("position", 3), least("mean", 0.95)))
    name = f"{count} poles, {rows} rows" + (f", {noise:.1%}" if noise else "")
    draw = _draw(count, rows, noise)
    return Case(name, "many poles", draw, relative_error, tuple(measures), ("AAA",), seeds=seeds)


CASES = [
    _case(45, 3000, 0, 2),
    _case(20, 300, 0, 5),
    _case(80, 3000, 0, 2),
    _case(20, 1000, 0.001, 3),
    _case(10, 100, 0, 5),
]
