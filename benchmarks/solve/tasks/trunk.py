"""A network trained by the trainer, then the closed-form head as its last step."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from benchmarks.solve import poles as clean
from benchmarks.solve.baselines import HIDDEN, RATE
from benchmarks.solve.measure import Array, Effort, Problem, Row, errors
from benchmarks.solve.tasks.line_poles import problem_of
from zeroproof.layers import ProjectiveMLP
from zeroproof.projective import target_scale
from zeroproof.training import SCMTrainer, SCMTrainingLoss, TrainingConfig

BATCH = 250
FACTOR = 100.0


def trunk(effort: Effort) -> Iterator[Row]:
    """Three poles, 2x64 tanh: near error before over near error after."""
    one = next(each for each in clean.PROBLEMS if each.name == "three poles")
    problem = problem_of(one)
    runs = [_run(problem, seed, effort.steps) for seed in range(effort.seeds)]
    before, after, kept = (list(values) for values in zip(*runs, strict=True))
    fall = [old / new for old, new in zip(before, after, strict=True)]
    note = f"readout kept in {sum(kept)} of {len(kept)}"
    name = "2x64 tanh by the trainer, three poles"
    yield Row(name, "near, fall by the readout", fall, FACTOR, {}, note=note, least=True)
    yield Row(name, "near, after", after, None, {"before the readout": before})


def _run(problem: Problem, seed: int, steps: int) -> tuple[float, float, bool]:
    """Return the near error before and after the readout, and whether it was kept."""
    X, y = problem.sample(seed)
    scale = target_scale(torch.from_numpy(y))
    torch.manual_seed(seed)
    model = ProjectiveMLP(1, 1, hidden=HIDDEN)
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    x, target = torch.from_numpy(X).float(), torch.from_numpy(y)[:, None].float()
    loader = [(x[i : i + BATCH], target[i : i + BATCH]) for i in range(0, len(x), BATCH)]
    config = TrainingConfig(
        max_epochs=steps // len(loader),
        target_scale=scale,
        coverage_threshold=0,
        seed=seed,
        progress=False,
        scheduler_cadence="step",
    )
    loss = SCMTrainingLoss(normalizer="chordal", lambda_margin=0, lambda_sign=0, lambda_rejection=0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    trainer = SCMTrainer(model, optimizer, loss, loader, config=config, scheduler=schedule)
    trainer.fit()
    before = errors(problem, lambda X: _decoded(model, X, scale), seed)["near"]
    result: Any = trainer.readout(dtype=torch.float64)
    after = errors(problem, lambda X: _decoded(model, X, scale), seed)["near"]
    return before, after, bool(result.kept)


def _decoded(model: ProjectiveMLP, X: Array, scale: float) -> Array:
    with torch.no_grad():
        N, D = model(torch.from_numpy(X))
    return np.asarray(scale * (N.double() / D.double())[:, 0].numpy())
