"""How fast the parts are: figures beside bounds, written into docs/performance.md.

    python -m benchmarks.speed.table                    # everything, about fifteen minutes
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
from typing import NamedTuple

import torch

from benchmarks import import_time
from benchmarks.speed.cases import CASES, Bounds, Case, Step
from benchmarks.speed.gate import gate_rows
from benchmarks.speed.measure import Figures, compare, copy_speed, keep_memory, kept_bytes
from zeroproof import native

PAGE = Path(__file__).parents[2] / "docs" / "performance.md"
SIZES = (10**3, 10**4, 10**5, 10**6, 10**7)
WAYS = ("torch", "native", "compiled")


class Row(NamedTuple):
    """One line of the first table."""

    case: str
    way: str
    figure: str
    bound: str
    verdict: str
    microseconds: str
    kept: str
    share: str


def ways(compiling: bool) -> tuple[str, ...]:
    """Return how the cases can be computed here."""
    return tuple(
        way
        for way in WAYS
        if (way != "compiled" or compiling) and (way != "native" or native.available())
    )


def measured(case: Case, way: str, n: int) -> tuple[Figures, float]:
    """Return a case beside its anchor, and the bytes kept for backward."""
    torch.manual_seed(0)
    ours, anchor = case.make(n)
    if way == "compiled":
        torch.compiler.reset()
        ours = ours._replace(function=torch.compile(ours.function, fullgraph=True, dynamic=False))
    if way == "native":
        found = compare({"mine": ours.run, "anchor": anchor.run})
        return Figures(found["mine"], found["anchor"]), _kept(ours)
    with native.disabled():
        found = compare({"mine": ours.run, "anchor": anchor.run})
        return Figures(found["mine"], found["anchor"]), _kept(ours)


def _kept(step: Step) -> float:
    return kept_bytes(step.outputs) if step.wanted else 0.0


def row(case: Case, way: str, speed: float) -> Row:
    """Return the line of a case."""
    figures, kept = measured(case, way, case.size)
    bounds = case.compiled if way == "compiled" else case.eager
    least = case.least_bytes * case.size / speed  # microseconds, at the speed of a copy
    return Row(
        case.name,
        way,
        f"{figures.ratio:.2f} × {case.anchor_name}",
        _bound(bounds),
        _verdict(figures.ratio, bounds),
        f"{figures.mine.median:.0f} beside {figures.anchor.median:.0f}",
        f"{kept / case.size:.0f}" if kept else "",
        f"{100 * least / figures.mine.median:.0f} %" if case.size > 10**4 else "",
    )


def _bound(bounds: Bounds | None) -> str:
    return "" if bounds is None else f"≤ {bounds.must:g}, aim {bounds.aim:g}"


def _verdict(figure: float, bounds: Bounds | None) -> str:
    if bounds is None:
        return ""
    return "aim met" if figure <= bounds.aim else "met" if figure <= bounds.must else "missed"


def first_table(cases: list[Case], compiling: bool) -> Iterator[str]:
    """Yield the lines of the table of bounds."""
    yield "| case | computed by | figure | bound | | µs | bytes kept | share of copy speed |"
    yield "|---|---|---|---|---|---|---|---|"
    speed = copy_speed()
    for case in cases:
        for way in ways(compiling and case.size > 10**4):
            yield _line(row(case, way, speed))


def second_table(cases: list[Case], compiling: bool) -> Iterator[str]:
    """Yield how the ratios move with the size."""
    yield "| ratio to the anchor | computed by | " + " | ".join(f"{n:.0e}" for n in SIZES) + " |"
    yield "|---|---|" + "---|" * len(SIZES)
    for case in cases:
        if case.size != 10**6:
            continue
        for way in ways(compiling and case.compiled is not None):
            ratios = (f"{measured(case, way, n)[0].ratio:.2f}" for n in SIZES)
            yield _line((case.name, way, *ratios))


def anchors() -> Iterator[str]:
    """Yield what the anchors themselves take; relu swings from process to process."""
    n = 10**6
    x, ones = torch.randn(n, requires_grad=True), torch.ones(n)
    steps = {
        "relu": Step(torch.relu, (x,), (x,), ones),
        "gelu": Step(torch.nn.functional.gelu, (x,), (x,), ones),
        "a copy": Step(lambda x: torch.empty_like(x).copy_(x), (x.detach(),)),
    }
    found = compare({name: step.run for name, step in steps.items()})
    yield "| anchor | µs, median | µs, least |\n|---|---|---|"
    for name, timed in found.items():
        yield _line((name, f"{timed.median:.0f}", f"{min(timed.times):.0f}"))


def small(compiling: bool) -> Iterator[str]:
    """Yield what is counted in absolute time."""
    yield "| case | computed by | figure | bound | |\n|---|---|---|---|---|"
    for cells in (*gate_rows(ways(compiling=False)), *import_time.rows()):
        yield _line(cells)


def _line(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cells) + " |"


def load() -> str:
    """Say how busy the machine is: timings of a shared one say little."""
    return f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"


def write(tables: dict[str, list[str]]) -> None:
    """Put tables between their marks in the page."""
    text = PAGE.read_text(encoding="utf-8")
    for name, lines in tables.items():
        start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        head, _, rest = text.partition(start)
        text = head + start + "\n" + "\n".join(lines) + "\n\n" + end + rest.partition(end)[2]
    PAGE.write_text(text, encoding="utf-8")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="cases with this in their names")
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--no-sizes", action="store_true", help="without the table of sizes")
    parser.add_argument("--write", action="store_true", help="write them into the page")
    options = parser.parse_args()
    torch.set_num_threads(1)
    kept, compiling = keep_memory(), not options.no_compile
    cases = [case for case in CASES if options.only in case.name]
    pieces = {"bounds": first_table(cases, compiling)}
    if not options.only:
        pieces |= {"small": small(compiling), "anchors": anchors()}
    if not options.no_sizes:
        pieces["sizes"] = second_table(cases, compiling)
    print(f"one thread, float32; {load()} before; allocator keeps memory: {kept}", flush=True)
    tables: dict[str, list[str]] = {}
    for name, lines in pieces.items():
        print(f"\n{name}\n")
        tables[name] = []
        for line in lines:
            print(line, flush=True)
            tables[name].append(line)
    print(f"\n{load()} after")
    if options.write:
        write(tables)


if __name__ == "__main__":
    main()
