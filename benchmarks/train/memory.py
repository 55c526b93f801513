"""Whether memory stays where it is over 1e5 steps, in a process of its own.

Also a program: `python -m benchmarks.train.memory STEPS TRACED` prints, as JSON, what was held
after a tenth of the steps and after all.
"""

import gc
import json
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from typing import Any

import psutil
import torch

from benchmarks.train.rows import Row
from zeroproof.layers import ProjectiveMLP
from zeroproof.training import Callback, SCMTrainer, TrainingConfig

MEBI = 2.0**20
PER_EPOCH = 1000
RESIDENT, TRACED = 1.0, 0.25  # MiB; 90 rows of history are some 0.06


class Watch(Callback):
    """Looks at the process after a tenth of the epochs, and at the end."""

    def __init__(self, epochs: int) -> None:
        self._when = (epochs // 10, epochs)
        self.seen: list[dict[str, float]] = []

    def on_fit_begin(self, trainer: Any) -> None:
        """Look once for itself: the list of all objects is 2 MiB that stay with the allocator."""
        _look()

    def on_epoch_end(self, trainer: Any) -> None:
        """Look, when it is time."""
        if trainer.epoch + 1 in self._when:
            self.seen.append(_look())


def _look() -> dict[str, float]:
    gc.collect()
    return {
        "resident": psutil.Process().memory_info().rss / MEBI,
        "traced": tracemalloc.get_traced_memory()[0] / MEBI,
        "tensors": sum(issubclass(type(x), torch.Tensor) for x in gc.get_objects()),
        "objects": len(gc.get_objects()),
    }


def main() -> None:
    """Train a tiny model for as many steps as the first argument says."""
    torch.set_num_threads(1)
    steps, traced = int(sys.argv[1]), sys.argv[2] == "True"
    torch.manual_seed(0)
    x = torch.linspace(-1, 1, 8)[:, None]
    model = ProjectiveMLP(1, 1, hidden=(4,))
    watch = Watch(steps // PER_EPOCH)
    config = TrainingConfig(
        max_epochs=steps // PER_EPOCH,
        tau_train_min=1e-4,
        tau_train_max=1e-3,
        log_every=50,
        coverage_threshold=0,
        progress=False,
        device="cpu",
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    data = [(x, 1 / (x - 0.3))] * PER_EPOCH
    if traced:
        tracemalloc.start()
    SCMTrainer(model, optimizer, cross, data, config=config, callbacks=[watch]).fit()
    print(json.dumps(watch.seen))


def cross(outputs: Any, targets: Any) -> torch.Tensor:
    """Return the mean of (N·Y_d - D·Y_n)²: a loss that takes little time."""
    return (outputs[0] * targets[1] - outputs[1] * targets[0]).square().mean()


def grown(steps: int, *, traced: bool) -> dict[str, float]:
    """Return how much more there was after all steps than after a tenth of them."""
    command = [sys.executable, "-m", "benchmarks.train.memory", str(steps), str(traced)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    before, after = json.loads(ended.stdout.splitlines()[-1])
    return {name: after[name] - before[name] for name in after}


def memory(*, quick: bool) -> Iterator[Row]:
    """Look at the process from outside, at its tensors, and at what Python has allocated."""
    steps = 10 * PER_EPOCH if quick else 100 * PER_EPOCH
    more = grown(steps, traced=False)
    between = f"{steps // 10:.0e} to {steps:.0e} steps"
    epochs = steps // PER_EPOCH * 9 // 10
    note = f"a history of {epochs} epochs included"
    yield Row("memory", f"resident, MiB more, {between}", [more["resident"]], RESIDENT, note)
    yield Row("memory", f"tensors more, {between}", [more["tensors"]], 0)
    yield Row("memory", f"objects that gc follows more, {between}", [more["objects"]], 10)
    steps = 10 * PER_EPOCH if quick else 20 * PER_EPOCH
    more, between = grown(steps, traced=True), f"{steps // 10:.0e} to {steps:.0e} steps"
    yield Row("memory", f"allocated by Python, MiB more, {between}", [more["traced"]], TRACED)


if __name__ == "__main__":
    main()
