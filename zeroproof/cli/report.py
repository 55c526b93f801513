"""What both ways of fitting say at their end."""

from collections.abc import Mapping
from typing import Any

__all__ = ["diagnosis_lines", "error_line"]


def error_line(label: str, rms: float, relative: float) -> str:
    """Return the errors of some rows in one line."""
    return f"  {label}: RMS error {rms:.4g}, median relative error {relative:.2g}"


def diagnosis_lines(found: Mapping[str, Any]) -> list[str]:
    """Return the smallest score, the distance to the nearest pole, and the verdict."""
    nearest = found["nearest_pole"]
    pole = (
        "no pole was found"
        if nearest is None
        else f"nearest pole {nearest:.3g} standard deviations of the inputs from a row"
    )
    return [f"  smallest score {found['smallest_score']:.3g}; {pole}", f"  {found['verdict']}"]
