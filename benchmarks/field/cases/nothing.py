"""Group 3: noise about a constant, where the mean is all there is."""

from collections.abc import Callable

import numpy as np

from benchmarks.field.case import Array, Case, Draw, column, most, over, told
from benchmarks.field.measures import poles_claimed, spread_error


def _draw(rows: int, heavy: bool = False) -> Callable[[int], Draw]:
    def draw(seed: int) -> Draw:
        random = np.random.default_rng(seed)
        x, t = random.uniform(0, 10, rows), random.uniform(0, 10, 400)

        def noise(count: int) -> Array:
            return random.standard_t(3, count) if heavy else random.standard_normal(count)

        return Draw(column(x), 3 + noise(rows), column(t), 3 + noise(400))

    return draw


def _case(rows: int, heavy: bool = False) -> Case:
    bounds = (most("median", 1.05), most("worst", 1.15)) if rows >= 15 else (most("p90", 1.3),)
    claimed = told("poles claimed", poles_claimed, most("mean", 0.01))
    measures, right = (over(("mean",), *bounds), claimed), ("mean",)
    name = f"{'student t(3)' if heavy else 'normal'} noise, {rows} rows"
    rivals = ("linear", "network", "AAA")
    return Case(name, "noise", _draw(rows, heavy), spread_error, measures, rivals, right, seeds=10)


CASES = [_case(5), _case(8), _case(12), _case(15), _case(25), _case(30, heavy=True), _case(50)]
