"""When to give up: coverage that stays too low."""

from collections.abc import Sequence

__all__ = ["coverage_stalled"]


def coverage_stalled(coverages: Sequence[float], threshold: float, patience: int) -> bool:
    """Tell whether the last `patience` epochs all had a coverage below `threshold`.

    Args:
        coverages: Coverage of every epoch so far, in [0, 1].
        threshold: What counts as enough; a coverage equal to it does.
        patience: Consecutive epochs that are awaited, at least 1.

    Examples:
        >>> coverage_stalled([0.95, 0.5, 0.6], threshold=0.9, patience=2)
        True
    """
    recent = coverages[-patience:]
    return len(recent) == patience and all(coverage < threshold for coverage in recent)
