"""How the errors of targets grow with their size, read off residuals."""

import torch
from torch import Tensor

__all__ = ["POWERS", "noise_power", "row_weight"]

POWERS = (0, 1, 2)
_BODY = 0.95


def noise_power(residual: Tensor, answer: Tensor) -> int:
    r"""Return the p for which errors grow as (1 + \|y\|²)^(1 - p/2), from a line through logs.

    p = 0: errors of the angle, 1: in proportion to y, 2: of one size. The slope of log \|residual\|
    over log √(1 + \|y\|²) is 2 - p; single rows that the fit misses hardly turn it. The largest
    twentieth of the answers is left out: next to a pole errors are those of the fit.

    Args:
        residual: Errors over the scale of y, on rows that were not fitted, `(n,)`.
        answer: The answers there, over the scale of y.

    Examples:
        >>> y = torch.logspace(-1, 2, 50, dtype=torch.float64)
        >>> noise_power(0.01 * y * (-1) ** torch.arange(50), y)
        1
    """
    error, level = residual.abs(), (1 + answer.abs().square()).log() / 2
    fine = torch.isfinite(error) & torch.isfinite(level) & (error > 0)
    error, level = error[fine].log(), level[fine]
    if len(level):
        inner = level <= level.quantile(_BODY)
        error, level = error[inner], level[inner]
    spread = level - level.mean() if len(level) else level
    variance = float(spread.square().sum())
    if not variance:
        return 2
    slope = float((spread * error).sum()) / variance
    return min(POWERS, key=lambda p: abs(2 - p - slope))


def row_weight(y: Tensor, power: int, answer: Tensor | None = None) -> Tensor:
    r"""Return weights that make chordal errors those that `noise_power` describes.

    Formula: (1 + \|y\|²)^p, or (1 + \|y\|²)(1 + \|ŷ\|²)^(p - 1) with answers ŷ of an earlier fit,
    which do not share the errors of y.

    Args:
        y: Targets over their scale, `(n,)` or `(n, m)`, of which the mean over the outputs counts;
            rows that are not finite weigh as the median of the others.
        power: p.
        answer: ŷ, of the shape of y; it counts for at most three times as much as y.
    """
    size, theirs = _size(y), None if answer is None else _size(answer)
    fine = torch.isfinite(size)
    size = 1 + torch.where(fine, size, 0)
    if theirs is None:
        weight = size**power
    else:
        near = torch.where(torch.isfinite(theirs), 1 + theirs, size)
        weight = size * torch.minimum(near, 9 * size) ** (power - 1)
    return torch.where(fine, weight, weight[fine].median() if bool(fine.any()) else 1)


def _size(y: Tensor) -> Tensor:
    square = y.abs().square()
    return square if square.ndim == 1 else square.mean(1)
