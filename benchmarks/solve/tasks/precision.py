"""Everything in float32: where the closed form places the poles, worst seed."""

from collections.abc import Iterator

import torch

from benchmarks.solve import readout
from benchmarks.solve.measure import Effort, Row
from zeroproof.projective import target_scale
from zeroproof.solve import spectral_readout

DOUBLE = {"1/(x-a)²": (0.3,), "tan+double": (0.1,)}  # which poles are double
BOUNDS = {"simple": 1e-6, "double": 1e-3}


def float32(effort: Effort) -> Iterator[Row]:
    """100 random tanh features, features and solver in float32."""
    for task in readout.tasks():
        runs = [_pole_errors(task, seed) for seed in range(effort.seeds)]
        for kind in sorted(runs[0], reverse=True):
            values = [run[kind] for run in runs]
            yield Row(f"{task.name}, float32", f"{kind} pole", values, BOUNDS[kind], {}, every=True)


def _pole_errors(task: readout.Task, seed: int) -> dict[str, float]:
    """Return the largest error among the poles of each kind."""
    torch.manual_seed(seed)
    x, y = readout.samples(task)
    scale, phi = target_scale(y), readout.random_features()
    H, Y_n = phi(x).float(), (y / scale).float()
    fit = spectral_readout(H, Y_n, torch.ones_like(Y_n), dtype=torch.float32)
    fit = fit._replace(a=fit.a.double(), b=fit.b.double())
    model = readout.head(fit, phi, phi, scale)
    found: dict[str, float] = {}
    for pole in task.poles.tolist():
        kind = "double" if pole in DOUBLE.get(task.name, ()) else "simple"
        found[kind] = max(found.get(kind, 0.0), readout.pole_error(model, pole))
    return found
