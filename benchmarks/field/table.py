"""How the default fit does on the data people measure, beside the best rival on the same rows.

    python -m benchmarks.field.table                    # two thirds of the cases
    python -m benchmarks.field.table --held-back        # all of them
    python -m benchmarks.field.table doses outliers     # groups, or names of cases
    python -m benchmarks.field.table --smoke            # the first of each group, one seed
    python -m benchmarks.field.table --brief            # a line for each case, and misses

Ours: median, the figure that nine of ten seeds keep, the worst seed. Seconds are the processor's.
"""

import argparse
import math
import multiprocessing
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor

from benchmarks.field.case import Bound, Case
from benchmarks.field.cases import CASES
from benchmarks.field.runs import Row, Run, figure, rows, run

HEAD = "| case | rows, seeds | measure | median / 90 % / worst | best rival | bound | | CPU s |"
FIGURES = ("median", "p90", "worst")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="group or case")
    parser.add_argument("--seeds", type=int, help="of every case; each case has its own number")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--held-back", action="store_true", help="with the third held back")
    parser.add_argument("--no-rivals", action="store_true", help="only those a bound needs")
    parser.add_argument("--brief", action="store_true", help="one line a case, and what is missed")
    parser.add_argument("--smoke", action="store_true", help="the first of each group, one seed")
    asked = parser.parse_args()
    try:
        cases = chosen(asked.names, held_back=asked.held_back, smoke=asked.smoke)
    except KeyError as unknown:
        parser.error(f"no group or case is called {unknown}")
    seeds = asked.seeds or (1 if asked.smoke else None)
    print(HEAD + "\n|---|---|---|---|---|---|---|---|")
    shown: list[Row] = []
    for case, runs in results(cases, seeds, asked.jobs, not asked.no_rivals):
        told = rows(case, runs)
        shown += told
        if asked.brief:
            bounded = [row for row in told if row.verdict]
            told = [row for i, row in enumerate(bounded) if not i or row.verdict != "MET"]
        for i, row in enumerate(told):
            print(line(row, first=not i), flush=True)
        print(f"{case.name}: {sum(map(_seconds, runs)):.0f} s of ours", file=sys.stderr)
    print("\n" + summary(shown))


def chosen(names: Iterable[str], *, held_back: bool = False, smoke: bool = False) -> list[Case]:
    """Return the cases asked for; a case asked for by its name is never held back."""
    first = {case.group: case.name for case in reversed(CASES.values())}
    groups = set(first)
    names = tuple(names) or tuple(first.values() if smoke else groups)
    for name in names:
        if name not in CASES and name not in groups:
            raise KeyError(name)
    return [
        case
        for case in CASES.values()
        if case.name in names or (case.group in names and (held_back or not case.held_back))
    ]


def results(
    cases: list[Case], seeds: int | None, jobs: int, rivals: bool
) -> Iterator[tuple[Case, list[Run]]]:
    """Run the seeds of the cases, in order; with one job in this process."""
    if jobs == 1:
        for case in cases:
            yield case, [run(case.name, seed, rivals) for seed in range(seeds or case.seeds)]
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        waiting = [
            [pool.submit(run, case.name, seed, rivals) for seed in range(seeds or case.seeds)]
            for case in cases
        ]
        for case, futures in zip(cases, waiting, strict=True):
            yield case, [future.result() for future in futures]


def line(row: Row, *, first: bool = True) -> str:
    """Return a row in Markdown; the name of a case stands at its first."""
    bounds, ours = row.measure.bounds, "–"
    if row.values and bounds and all(bound.figure == "mean" for bound in bounds):
        ours = f"mean {short(figure('mean', row.values))} of {len(row.values)}"
    elif row.values:
        least = any(bound.least for bound in bounds)
        ours = " / ".join(short(figure(each, row.values, least)) for each in FIGURES)
    ours += f" ({row.failure})" if row.failure else ""
    others = {name: value for name, value in row.others.items() if math.isfinite(value)}
    best = min(others, key=lambda name: others[name]) if others else ""
    rival = f"{best} {short(others[best])}" if best else ""
    name, size, cost = row.case.name, f"{row.size}, {row.seeds}", short(row.seconds)
    name += " (held back)" * row.case.held_back
    if not first:
        name = size = cost = ""
    limits = ", ".join(map(_written, bounds))
    cells = (name, size, row.measure.name, ours, rival, limits, row.verdict, cost)
    return f"| {' | '.join(cells)} |"


def summary(shown: list[Row]) -> str:
    """Count the verdicts, by group and in all."""
    groups: dict[str, Counter[str]] = {}
    for row in shown:
        groups.setdefault(row.case.group, Counter())[row.verdict] += bool(row.verdict)
    lines = [_counted(name, verdicts) for name, verdicts in groups.items()]
    return "\n".join([*lines, _counted("all", sum(groups.values(), Counter()))])


def _counted(name: str, verdicts: Counter[str]) -> str:
    told = f", {verdicts['not told']} not told" if verdicts["not told"] else ""
    return f"{name}: {verdicts['MET']} bounds met, {verdicts['missed']} missed{told}"


def _written(bound: Bound) -> str:
    sign = "≥" if bound.least else "≤"
    return f"{bound.figure} {sign} {bound.limit:g}"


def _seconds(one: Run) -> float:
    return one.seconds if math.isfinite(one.seconds) else 0.0


def short(value: float) -> str:
    """Write a number in few letters."""
    if not math.isfinite(value):
        return str(value)
    if value == 0 or 1e-2 <= abs(value) < 1e3:
        return f"{value:.3g}"
    return f"{value:.1e}"


if __name__ == "__main__":
    main()
