"""Times beside anchors: in turn, in one process, on one thread, the allocator's habits fixed."""

import ctypes
import statistics
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

__all__ = ["Call", "Figures", "Timed", "compare", "keep_memory"]

Call = Callable[[], object]
REPEATS = 21
LONG_ENOUGH = 2e-3  # seconds of one measurement; short calls are repeated within it

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3


def keep_memory() -> bool:
    """Tell glibc to keep freed memory: page faults swing every timing; false without glibc."""
    try:
        libc = ctypes.CDLL("libc.so.6")
    except OSError:
        return False
    options = ((_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, 2**28), (_M_MMAP_THRESHOLD, 2**30))
    return all(libc.mallopt(*option) for option in options)


class Timed(NamedTuple):
    """Microseconds of one call, repeat by repeat."""

    times: list[float]

    @property
    def median(self) -> float:
        """Return the middle one."""
        return statistics.median(self.times)


class Figures(NamedTuple):
    """A call beside its anchor."""

    mine: Timed
    anchor: Timed

    @property
    def ratio(self) -> float:
        """Return the median of the ratios of neighbours in time."""
        pairs = zip(self.mine.times, self.anchor.times, strict=True)
        return statistics.median(a / b for a, b in pairs)


def compare(calls: Mapping[str, Call], repeats: int = REPEATS) -> dict[str, Timed]:
    """Time calls in turn."""
    counts = {}
    for name, call in calls.items():
        for _ in range(3):
            call()
        start = _clock()
        call()
        counts[name] = max(1, round(LONG_ENOUGH / max(_clock() - start, 1e-7)))
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            start = _clock()
            for _ in range(counts[name]):
                call()
            found[name].append(1e6 * (_clock() - start) / counts[name])
    return {name: Timed(times) for name, times in found.items()}


def _clock() -> float:
    return time.thread_time()  # other programs on the machine count for less
