"""When to give up: coverage that stays too low."""

from collections.abc import Sequence

__all__ = ["coverage_stalled"]

_RISE = 1e-3


def coverage_stalled(coverages: Sequence[float], threshold: float, patience: int) -> bool:
    """Tell whether coverage stagnates below a threshold.

    The last `patience` epochs all had a coverage below it, and none of them was above the best one
    before them by 0.001. Of the first `patience` epochs the very first counts as the one before.

    Args:
        coverages: Coverage of every epoch so far, in [0, 1].
        threshold: What counts as enough; a coverage equal to it does.
        patience: Consecutive epochs that are awaited, at least 1.

    Examples:
        >>> coverage_stalled([0.95, 0.5, 0.6], threshold=0.9, patience=2)
        True
        >>> coverage_stalled([0.4, 0.5, 0.6], threshold=0.9, patience=2)
        False
    """
    recent = coverages[-patience:]
    if len(recent) < patience or max(recent) >= threshold:
        return False
    return max(recent) < max(coverages[:-patience] or coverages[:1]) + _RISE
