"""How good the solver is: our figure beside each bound, and what others reach on the same rows.

    python -m benchmarks.solve.table                     # every task: about forty minutes
    python -m benchmarks.solve.table poles noise         # some of them
    python -m benchmarks.solve.table arm --trained-seeds 0   # without the trained baselines

Figures are medians over the seeds, with the worst seed in brackets. An error is the median of
the relative errors over the points of a place; `near` is 1e-3 … 1e-1 from a singularity (of the
determinant, for arms). Networks: 2x64 tanh, Adam with a cosine schedule, the same steps for each.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator

import torch

from benchmarks.solve.measure import Effort, Row, judged, line, rows_of
from benchmarks.solve.tasks import (
    arms,
    finite,
    high,
    impedance,
    line_poles,
    plane,
    precision,
    resonator,
    strd,
    times,
    trunk,
)

TASKS: dict[str, Callable[[Effort], Iterator[Row]]] = {
    "poles": line_poles.poles,
    "noise": line_poles.noise,
    "nist": strd.nist,
    "resonances": impedance.resonances,
    "measured": impedance.measured,
    "arm": arms.arm,
    "plane": plane.plane,
    "resonator": resonator.resonator,
    "ridge": high.ridge,
    "analytic": high.analytic,
    "arm3": arms.arm3,
    "float32": precision.float32,
    "trunk": trunk.trunk,
    "times": times.times,
    "finite": finite.finite,
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="task", help=", ".join(TASKS))
    parser.add_argument("--seeds", type=int, default=Effort().seeds)
    parser.add_argument("--trained-seeds", type=int, default=Effort().trained_seeds)
    parser.add_argument("--steps", type=int, default=Effort().steps)
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(TASKS)
    if unknown:
        parser.error(f"tasks are {', '.join(TASKS)}; got {', '.join(sorted(unknown))}")
    torch.set_num_threads(1)  # small matrices: threads only wait for each other
    effort = Effort(arguments.seeds, arguments.trained_seeds, arguments.steps)
    show([TASKS[name] for name in arguments.names or TASKS], effort)


def show(tasks: list[Callable[[Effort], Iterator[Row]]], effort: Effort) -> None:
    """Run tasks and print their rows as they come."""
    print(
        f"{effort.seeds} seeds: median (worst); networks {effort.trained_seeds} seeds, "
        f"{effort.steps} steps; one thread\n"
    )
    print("| task | measure | ours | bound | | others, median |\n|---|---|---|---|---|---|")
    verdicts = []
    for task in tasks:
        start = time.perf_counter()
        for row in rows_of(task, effort):
            print(line(row), flush=True)
            verdicts.append(judged(row))
        print(f"{task.__name__}: {time.perf_counter() - start:.0f} s", file=sys.stderr)
    print(f"\n{verdicts.count('MET')} bounds met, {verdicts.count('missed')} missed")


if __name__ == "__main__":
    main()
