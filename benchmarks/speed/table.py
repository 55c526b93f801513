"""How fast the parts are beside simple anchors: the table of docs/performance.md.

    python -m benchmarks.speed.table                    # everything, some minutes
    python -m benchmarks.speed.table --only loss        # cases with that in their names
    python -m benchmarks.speed.table --no-compile       # without what has to be compiled
    python -m benchmarks.speed.table --write            # into the page

Each case is timed in turn with its anchor in the same process, on one thread; a figure is the
median of the ratios of neighbours.
"""

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks import import_time
from benchmarks.speed.cases import CASES, Case
from benchmarks.speed.gate import gate_rows
from benchmarks.speed.measure import Figures, compare, keep_memory
from zeroproof import native

PAGE = Path(__file__).parents[2] / "docs" / "performance.md"
START, END = "<!-- table -->\n", "<!-- end of table -->"


def measured(case: Case, way: str) -> Figures:
    """Return a case beside its anchor: by `"torch"` alone, by `"numba"` or `"compiled"`."""
    torch.manual_seed(0)
    ours, anchor = case.make(case.size)
    if way == "compiled":
        torch.compiler.reset()
        ours = ours._replace(function=torch.compile(ours.function, fullgraph=True, dynamic=False))
    calls = {"mine": ours.run, "anchor": anchor.run}
    if way == "numba":
        return Figures(**compare(calls))
    with native.disabled():
        return Figures(**compare(calls))


def lines(cases: list[Case], *, compiling: bool, others: bool) -> Iterator[str]:
    """Yield the lines of the table."""
    yield "| case | entries | beside | torch | Numba | compiled | | compiled, ms |"
    yield "|---|---|---|---|---|---|---|---|"
    for case in cases:
        cells = [case.name, f"{case.size:.0e}" if case.size > 999 else str(case.size), case.anchor]
        cells += [f"{measured(case, way).ratio:.2g} ×" for way in ("torch", "numba")]
        if compiling and case.size > 10**4:
            figures = measured(case, "compiled")
            verdict = ""
            if case.compiled is not None:
                verdict = "met" if figures.ratio <= case.compiled else "missed"
                verdict = f"≤ {case.compiled:g}, {verdict}"
            cells += [f"{figures.ratio:.2g} ×", verdict, f"{figures.mine.median / 1e3:.2g}"]
        else:
            cells += ["", "", ""]
        yield "| " + " | ".join(cells) + " |"
    if others:
        for name, torch_alone, numba in gate_rows():
            yield f"| {name} | 100 | N / D | {torch_alone} | {numba} | | | |"
        for name, _, taken, *_ in import_time.rows():
            yield f"| {name} | | | {taken} | | | | |"


def load() -> str:
    """Say how busy the machine is: timings of a shared one say little."""
    return f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="cases with this in their names")
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--write", action="store_true", help="write it into the page")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"one thread, float32; {load()} before; allocator keeps memory: {keep_memory()}\n")
    cases = [case for case in CASES if options.only in case.name]
    table = []
    for line in lines(cases, compiling=not options.no_compile, others=not options.only):
        print(line, flush=True)
        table.append(line)
    print(f"\n{load()} after")
    if options.write:
        text = PAGE.read_text(encoding="utf-8")
        head, rest = text.split(START)[0], text.split(END)[1]
        PAGE.write_text(head + START + "\n" + "\n".join(table) + "\n\n" + END + rest, "utf-8")


if __name__ == "__main__":
    main()
