"""What fits cost: seconds of a default fit, ratios to one factorisation, growth with the rows."""

from collections.abc import Iterator

import numpy as np
import torch

from benchmarks.solve import poles as clean
from benchmarks.solve.measure import Effort, Row, fit, fit_rows
from benchmarks.solve.stream import POLE, Made, ratios, timed
from benchmarks.solve.tasks.line_poles import problem_of
from zeroproof.solve import spectral_readout

SECONDS, LINEAR = 5.0, 12.0  # 10 times the rows in at most 12 times the time


def times(effort: Effort) -> Iterator[Row]:
    """One thread; ratios within one run."""
    for one in clean.PROBLEMS:
        seconds = [fit(problem_of(one), seed).seconds for seed in range(effort.seeds)]
        yield Row(f"default fit, {one.name}", "seconds", seconds, SECONDS, {}, every=True)
    for features in (100, 200):
        cost = ratios(100_000, features)
        task = f"n = 1e5, {features} features, [H, -yH] has {2 * features} columns"
        yield Row(task, "sweep / torch.linalg.qr of [H, -yH]", [cost.sweep / cost.qr], 2, {})
        yield Row(
            task, "sweep / torch.linalg.qr of H alone", [cost.sweep / cost.qr_features], None, {}
        )
        yield Row(
            task, "17 ρ / 17 solutions, from the factors", [cost.path / cost.singles], 0.2, {}
        )
        yield Row(task, "17 ρ / 17 readouts, with the rows", [cost.whole / cost.readouts], 0.2, {})
    yield from _growth()


def _growth() -> Iterator[Row]:
    torch.manual_seed(0)
    made, spent, fitted = Made(0, 20), [], []
    for n in (100_000, 1_000_000):
        x = torch.rand(n, dtype=torch.float64) * 2 - 1
        H, one = made.of(x), torch.ones_like(x)
        spent.append(timed(lambda H=H, one=one, x=x: spectral_readout(H, one, x - POLE), repeats=2))
        del H
        X, y = x.numpy()[:, None], 1 / (x.numpy() - POLE)
        fitted.append(fit_rows(np.asarray(X), y, 0).seconds)
    name = "1e6 rows / 1e5 rows"
    yield Row(name, "readout, 20 features", [spent[1] / spent[0]], LINEAR, {}, f"{spent[1]:.1f} s")
    note = f"{fitted[1]:.1f} s"
    yield Row(name, "estimator, one column", [fitted[1] / fitted[0]], LINEAR, {}, note)
