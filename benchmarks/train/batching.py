"""Whether anything depends on how rows are dealt out to batches, windows and processes.

Also a program: `torchrun --nproc-per-node 2 -m benchmarks.train.batching CASE 5 float64` prints
history and weights as JSON, and so does one process without torchrun, whose batches are those of
both together.
"""

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.train.rows import Row

TINY = 1e-4  # relative is to no less than this: a share of no rows is 0 everywhere
CASES: dict[str, tuple[int, dict[str, Any]]] = {  # number of rows, options
    "rows that divide": (512, {}),
    "rows that do not": (501, {}),
    "windows of 2": (501, {"grad_accumulation_steps": 2}),
    "the defaults, readout and thresholds too": (501, {"readout": "auto", "calibrate": True}),
}


def rows(count: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return two columns of labels, ±inf and ⊥ among them."""
    x = torch.linspace(-1, 1, count, dtype=dtype)[:, None]
    y = torch.cat([1 / (x - 0.3), x], 1)
    y[5, 0], y[20, 1], y[21], y[40, 0] = math.inf, -math.inf, math.nan, math.nan
    return x, y


def trainer(train: Any, val: Any, dtype: torch.dtype, rate: float, **more: Any) -> Any:
    """Return a trainer whose loss counts something in every part, for one epoch or more."""
    from zeroproof.layers import ProjectiveMLP
    from zeroproof.training import SCMTrainer, SCMTrainingLoss, TrainingConfig

    torch.manual_seed(0)
    model = ProjectiveMLP(1, 2, hidden=(16, 16), shared_denominator=False).to(dtype)
    loss = SCMTrainingLoss(tau_train=0.5, temperature=0.5, lambda_separation=0.1)
    options = {"max_epochs": 1, "readout": None, "calibrate": False, "coverage_threshold": 0}
    callbacks = more.pop("callbacks", ())
    config = TrainingConfig(**{**options, "progress": False, "seed": 0, **more})
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    return SCMTrainer(model, optimizer, loss, train, val, config=config, callbacks=callbacks)


class Gradient:
    """Keeps the gradient of the latest step."""

    def on_backward_end(self, trainer: Any) -> None:
        """Copy it."""
        self.found = torch.cat([p.grad.flatten() for p in trainer.model.parameters()])


def step(parts: int, size: int, dtype: torch.dtype) -> tuple[float, Tensor]:
    """Return val_loss in batches of a size, and the gradient of one step of so many batches."""
    x, y = rows(97, dtype)
    train = list(zip(x.tensor_split(parts), y.tensor_split(parts), strict=True))
    val, seen = list(zip(x.split(size), y.split(size), strict=True)), Gradient()
    made = trainer(train, val, dtype, 0.0, grad_accumulation_steps=parts, callbacks=(seen,))
    return made.fit()[0]["val_loss"], seen.found


def windows(*, quick: bool) -> Iterator[Row]:
    """Compare val_loss over batch sizes, and the gradient of a step over accumulated batches."""
    sizes, parts = (range(1, 51), range(1, 9)) if not quick else ((1, 7, 50), (1, 3, 8))
    found: dict[torch.dtype, tuple[float, float]] = {}
    for dtype in (torch.float64, torch.float32):
        loss, gradient = step(1, 97, dtype)
        losses = [abs(step(1, size, dtype)[0] / loss - 1) for size in sizes]
        gradients = [(step(k, 97, dtype)[1] - gradient).norm() / gradient.norm() for k in parts]
        found[dtype] = max(losses), float(max(gradients))
    names = (f"val_loss, {len(sizes)} batch sizes to 50", f"gradient, 1 … {max(parts)} batches")
    for k, name in enumerate(names):
        note = f"97 rows in float64; in float32 {found[torch.float32][k]:.2g}"
        measure = f"{name}: largest relative difference"
        yield Row("windows", measure, [found[torch.float64][k]], 1e-6, note)


def main() -> None:
    """Train as one of the processes, or alone; the first prints what it has."""
    from torch.utils.data import DataLoader, TensorDataset

    torch.set_num_threads(1)
    case, epochs, name = sys.argv[1:]
    (count, options), dtype = CASES[case], getattr(torch, name)
    data = TensorDataset(*rows(count, dtype))
    size = 32 // int(os.environ.get("WORLD_SIZE", "1"))
    loaders = [DataLoader(data, batch_size=size, shuffle=shuffle) for shuffle in (True, False)]
    made = trainer(*loaders, dtype, 0.1, max_epochs=int(epochs), **options)
    history = made.fit()
    if made.accelerator.is_main_process:
        weights = torch.cat([p.detach().flatten() for p in made.model.parameters()]).tolist()
        print(json.dumps({"history": list(history), "weights": weights}))
    if made.accelerator.num_processes > 1:
        torch.distributed.destroy_process_group()


def told(count: int, *arguments: str) -> dict[str, Any]:
    """Return what processes print that were started in an environment without Accelerate."""
    launcher = [sys.executable]
    if count > 1:
        torchrun = Path(sys.executable).with_name("torchrun")
        launcher = [str(torchrun), "--standalone", "--nproc-per-node", str(count)]
    command = [*launcher, "-m", "benchmarks.train.batching", *arguments]
    bare = {k: v for k, v in os.environ.items() if not k.startswith("ACCELERATE")}
    environment = bare | {"OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return json.loads(ended.stdout.splitlines()[-1])


def apart(case: str, epochs: int, dtype: str) -> tuple[float, float]:
    """Return how far two processes are from one: in the history, in the weights."""
    one, two = (told(count, case, str(epochs), dtype) for count in (1, 2))
    history = max(
        abs(value - other[key]) / max(abs(value), abs(other[key]), TINY)
        for row, other in zip(one["history"], two["history"], strict=True)
        for key, value in row.items()
        if not key.startswith("time_")
    )
    a, b = (torch.tensor(each["weights"], dtype=torch.float64) for each in (one, two))
    return history, float((a - b).abs().max() / a.abs().max())


def ranks(*, quick: bool) -> Iterator[Row]:
    """Compare two processes with one on batches twice as large."""
    epochs = 1 if quick else 5
    for case in list(CASES)[: 1 if quick else None]:
        # rounding differs, and training makes more of it with every step: in float64 that is little
        precise = apart(case, epochs, "float64")
        rough = precise if quick else apart(case, epochs, "float32")
        for k, what in enumerate(("history, by value", "weights, by the largest")):
            note = f"{epochs} epochs in float64; in float32 {rough[k]:.2g}"
            yield Row("ranks", f"{case}: {what}, largest difference", [precise[k]], 1e-5, note)


if __name__ == "__main__":
    main()
