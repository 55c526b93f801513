"""Rows per second of two processes beside one, on a model whose time is spent in computing.

Also a program: `torchrun --nproc-per-node 2 -m benchmarks.train.processes 4096` prints its rows per
second; so does one process without torchrun, on the same number of rows for every step.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from statistics import median

import torch
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.train.rows import Row

BOUND = 1.6
# of every step, on all processes together; the gradients that they exchange are as large for few
# rows as for many, so that few measure the exchange and many the computing
MANY, FEW = 4096, 1024
STEPS, EPOCHS = 4, 3
HIDDEN = (1024, 1024)
LAUNCHER = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
SECONDS = 3.0


def main() -> None:
    """Train as one of the processes, or alone; the first prints rows per second."""
    from zeroproof.layers import ProjectiveMLP
    from zeroproof.training import SCMTrainer, SCMTrainingLoss, TrainingConfig

    rows = int(sys.argv[1])
    torch.set_num_threads(1)
    torch.manual_seed(0)
    x = torch.rand(rows * STEPS, 8)
    data = TensorDataset(x, 1 / (x.sum(1, keepdim=True) - 4))
    model = ProjectiveMLP(8, 1, hidden=HIDDEN)
    trainer = SCMTrainer(
        model,
        torch.optim.Adam(model.parameters(), lr=1e-4),
        SCMTrainingLoss(normalizer="chordal"),
        DataLoader(data, batch_size=rows // int(os.environ.get("WORLD_SIZE", "1"))),
        config=TrainingConfig(
            max_epochs=EPOCHS,
            progress=False,
            coverage_threshold=0,
            seed=0,
            readout=None,  # a minute or more with so wide a layer
            calibrate=False,
        ),
    )
    history = trainer.fit()  # the first epoch warms up
    if trainer.accelerator.is_main_process:
        print(median(row["time_rows_per_s"] for row in history[1:]))
    if trainer.accelerator.num_processes > 1:
        torch.distributed.destroy_process_group()


def rate(rows: int, *launcher: str) -> float:
    """Return the rows per second of a run of its own."""
    command = [sys.executable, *launcher, "-m", "benchmarks.train.processes", str(rows)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1"}
    ended = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return float(ended.stdout.split()[-1])


def ceiling() -> float:
    """Return what two processes that share nothing do together beside one: what the machine has."""
    code = (
        "import time, torch; torch.set_num_threads(1); a = torch.rand(1024, 1024); n = 0\n"
        f"end = time.perf_counter() + {SECONDS}\n"
        "while time.perf_counter() < end: n += len(a @ a)\n"
        "print(n)"
    )

    def together(count: int) -> float:
        runs = [
            subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
            for _ in range(count)
        ]
        return sum(float(run.communicate()[0]) for run in runs)

    one = together(1)
    return together(2) / one


def processes(*, quick: bool) -> Iterator[Row]:
    """Run one process and two in turn."""
    repeats = 1 if quick else 5
    machine: list[float] = []
    for rows, bound in ((MANY, BOUND), (FEW, None))[quick:]:
        ratios, alone = [], []
        for _ in range(repeats):
            machine.append(ceiling())
            alone.append(rate(rows))
            ratios.append(rate(rows, *LAUNCHER) / alone[-1])
        note = f"one alone {median(alone):.0f} rows per second"
        measure = f"hidden {HIDDEN}, {rows} rows: two processes over one"
        yield Row("processes", measure, ratios, bound, note, least=True)
    load = os.getloadavg()[0]
    note = f"products of matrices; load {load:.1f} of {os.cpu_count()} cores at the end"
    yield Row("processes", "two that share nothing, over one", machine, None, note)


if __name__ == "__main__":
    main()
