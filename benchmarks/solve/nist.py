"""NIST StRD, rational class: residual sums of least squares fits without start values.

    python -m benchmarks.solve.nist

LRE = -log10(|RSS - certified| / certified): certified values have 11 digits.
"""

import csv
import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zeroproof.solve.rational import least_squares

DATA = Path(__file__).parents[2] / "examples" / "data"
SEEDS = range(5)
BOUND = 10.0


def certified() -> dict[str, dict[str, Any]]:
    """Return the degrees and certified residual sum of each set, by its name."""
    return json.loads((DATA / "certified.json").read_text(encoding="utf-8"))


def table(name: str) -> tuple[Tensor, Tensor]:
    """Return (x, y) of one set."""
    with (DATA / f"{name}.csv").open(encoding="utf-8") as file:
        rows = list(csv.reader(file))[1:]
    x, y = torch.tensor([[float(value) for value in row] for row in rows], dtype=torch.float64).T
    return x, y


def lre(value: float, certified: float) -> float:
    """Return the number of digits in which `value` agrees with the certified one."""
    return -math.log10(max(abs(value - certified) / abs(certified), 1e-16))


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    print(f"30 linearised starts, no start values; worst of {len(SEEDS)} seeds; bound: {BOUND:g}")
    print(f"{'set':9}{'degrees':9}{'RSS':>18}{'certified':>16}{'LRE':>7}{'s':>6}")
    for name, facts in certified().items():
        degrees = facts["numerator_degree"], facts["denominator_degree"]
        target = facts["certified_residual_sum_of_squares"]
        begin = time.perf_counter()
        sums = [least_squares(*table(name), degrees, seed=seed)[1] for seed in SEEDS]
        seconds = (time.perf_counter() - begin) / len(SEEDS)
        worst = min(sums, key=lambda value: lre(value, target))
        digits = lre(worst, target)
        print(f"{name:9}{degrees!s:9}{worst:18.10f}{target:16.10f}{digits:7.1f}{seconds:6.2f}")


if __name__ == "__main__":
    main()
