"""What a fit costs, and what it says where its budget ends early; of the processor, one thread."""

import signal
import time
from types import SimpleNamespace
from typing import Any

import numpy as np

from benchmarks.field.case import Array, Case, Draw, drawn, least, most, told
from benchmarks.field.measures import RELATIVE, Ours, cpu_seconds, fitted, relative_error
from zeroproof.solve import race

BUDGET = 3.0  # seconds, of which a busy machine leaves next to nothing
AFTER = 0.5  # seconds before an interrupt


def told_if_cut(times: float) -> Any:
    """Return a measure: 1 if a clock so many times faster changes nothing, or that is told."""

    def of(draw: Draw, ours: Ours) -> float:
        fits = []
        for rate in (0.0, times):
            fake = SimpleNamespace(process_time=lambda rate=rate: rate * time.process_time())
            race.time = fake  # type: ignore[assignment]
            try:
                fits.append(fitted(CASES[0], draw.X, draw.y, time_budget=BUDGET)[0])
            finally:
                race.time = time
        idle, busy = fits
        if busy.fit_.cut and set(busy.fit_.cut) != set(idle.fit_.cut):
            return float(busy.fit_.cut[0] in busy.summary())
        return float(np.array_equal(idle.predict(draw.T), busy.predict(draw.T)))

    return of


def after_interrupt(draw: Draw, ours: Ours) -> float | None:
    """Return the seconds that a fit goes on after an interrupt; None if it ended before."""
    due = time.process_time() + AFTER

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    old = signal.signal(signal.SIGVTALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_VIRTUAL, AFTER)
        fitted(CASES[0], draw.X, draw.y)
    except KeyboardInterrupt:
        return time.process_time() - due
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, old)
    return None


def _cost(name: str, draw: Any, bound: float, *more: Any) -> Case:
    seconds = told("CPU seconds", cpu_seconds, most("worst", bound))
    return Case(name, "time", draw, relative_error, (RELATIVE, seconds, *more), seeds=2)


def _busy(name: str, draw: Any) -> Case:
    measures = (
        RELATIVE,
        told("clock 8 x: same or told", told_if_cut(8), least("worst", 1)),
        told("clock 200 x: same or told", told_if_cut(200), least("worst", 1)),
    )
    return Case(f"{name}, busy machine", "time", draw, relative_error, measures, seeds=1)


def _box(columns: int) -> tuple[list[float], list[float]]:
    return [-1.0] * columns, [1.0] * columns


def _seven(*x: Array) -> Array:
    return np.tan(2 * x[0] + x[6] ** 2)


def _waves(x: Array, y: Array, z: Array) -> Array:
    return np.sin(4 * x) / (np.cos(3 * y) + z**2 - 0.4)


STOPS = told("CPU s after an interrupt", after_interrupt, most("worst", 1.5))
FIVE = drawn(lambda *x: x[0] * x[1] / (x[2] - x[3]) + x[4], *_box(5), 100_000, 0.01)
CASES = [
    _cost("2000 x 1", drawn(lambda x: np.tan(4 * x), -1, 1, 2000, 0.01), 3),
    _cost("2000 x 7", drawn(_seven, *_box(7), 2000, 0.05), 12, STOPS),
    _cost("1e5 x 5", FIVE, 30)._replace(seeds=1),
    _cost("20 x 1000", drawn(lambda *x: x[0] + x[1], *_box(1000), 20, 0.05), 10),
    _busy("waves", drawn(_waves, *_box(3), 500)),
    _busy("many poles", drawn(lambda x: np.tan(12 * x), -1, 1, 900, 0.05, of="one")),
]
