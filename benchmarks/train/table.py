"""What the trainer costs, and what is learned with it: our figure beside each bound.

    python -m benchmarks.train.table              # every task: about two hours
    python -m benchmarks.train.table loop         # some of them
    python -m benchmarks.train.table --quick      # a few steps, to see that it works

On one core `success` takes some forty minutes, `recipe` thirty, `scales` twenty, the others twenty
together. Figures are medians, with the middle half of what was measured beside them; where a
measure says worst or largest, it is that of all runs.
"""

import argparse
import os
from collections.abc import Callable, Iterator

import torch

from benchmarks.train.batching import ranks, windows
from benchmarks.train.loop import loop, trace
from benchmarks.train.memory import memory
from benchmarks.train.poles import readout, scales
from benchmarks.train.processes import processes
from benchmarks.train.recipe import recipe
from benchmarks.train.rows import Row, judged, line
from benchmarks.train.sound import sound
from benchmarks.train.success import success
from benchmarks.train.trinity import trinity

TASKS: dict[str, Callable[..., Iterator[Row]]] = {
    "loop": loop,
    "processes": processes,
    "memory": memory,
    "success": success,
    "recipe": recipe,
    "scales": scales,
    "readout": readout,
    "sound": sound,
    "windows": windows,
    "ranks": ranks,
    "trace": trace,
    "trinity": trinity,
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="task", help=", ".join(TASKS))
    parser.add_argument("--quick", action="store_true", help="too few steps to judge by")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(TASKS)
    if unknown:
        parser.error(f"tasks are {', '.join(TASKS)}; got {', '.join(sorted(unknown))}")
    torch.set_num_threads(1)
    show([TASKS[name] for name in arguments.names or TASKS], quick=arguments.quick)


def show(tasks: list[Callable[..., Iterator[Row]]], *, quick: bool) -> None:
    """Run tasks and print their rows as they come."""
    print(f"one thread for each process; {load()} before\n")
    print("| task | measure | median | middle half | bound | | |\n|---|---|---|---|---|---|---|")
    verdicts = []
    for task in tasks:
        for row in task(quick=quick):
            print(line(row), flush=True)
            verdicts.append(judged(row))
    met, missed = verdicts.count("MET"), verdicts.count("missed")
    print(f"\n{met} bounds met, {missed} missed; {load()} after")


def load() -> str:
    """Say how busy the machine is: timings of a shared one say little."""
    return f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"


if __name__ == "__main__":
    main()
