"""Rows that no model explains: found by a fit that they cannot move.

Trimming after an ordinary fit fails, since outliers hide behind the fit they made. So random few
rows begin, and each step keeps the rows with the smallest angles (least trimmed squares, Rousseeuw
1984, concentration steps of Rousseeuw & Van Driessen 1999), on the linearised rational fit.
"""

from typing import Any

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray

__all__ = ["heavy_tailed", "trimmed_rows"]

_KEPT = 0.8  # of the rows that a fit has to explain
_FAR = 9.0  # times the median angle: 6 standard deviations of Gaussian errors
_STARTS, _STEPS, _MOST_DEGREE = 20, 8, 8
_ROUNDING = 1e-13
FEWEST = 30  # distinct inputs


def heavy_tailed(error: NDArray[np.float64]) -> bool:
    """Tell whether up to a fifth of the errors lie beyond what Gaussian noise would bring."""
    share = float((error > _FAR * np.median(error) + 1e-300).mean())
    return 0 < share < 1 - _KEPT


def trimmed_rows(x: NDArray[Any], y: NDArray[Any], seed: int = 0) -> NDArray[np.bool_]:
    """Mark the rows of one column that a robust rational fit explains.

    Degrees rise until twice the smallest error, corrected for the number of coefficients, is
    reached; rows beyond nine times the median angle are not explained.

    Args:
        x: `(n,)`.
        y: Finite targets, `(n,)`.
        seed: Of the random starts.
    """
    n, rng = len(x), np.random.default_rng(seed)
    Y = y / (np.median(np.abs(y)) or 1.0)
    u = (2 * x - x.max() - x.min()) / np.ptp(x)
    size, kept = np.hypot(1, Y), int(_KEPT * n)
    found = []
    for degree in range(_MOST_DEGREE + 1):
        free = 2 * degree + 1
        if 2 * free > kept:
            break
        H = chebyshev.chebvander(u, degree)
        A = np.hstack([H, -Y[:, None] * H]) / size[:, None]
        rows = np.stack([rng.permutation(n)[: min(2 * free + 2, kept)] for _ in range(_STARTS)])
        angle = np.zeros((_STARTS, n))
        for _ in range(_STEPS):
            v = np.linalg.svd(np.linalg.qr(A[rows], mode="r"))[2][:, -1]
            N, D = v[:, : degree + 1] @ H.T, v[:, degree + 1 :] @ H.T
            angle = np.abs(v @ A.T) / np.maximum(np.hypot(N, D), 1e-300)
            rows = np.argpartition(angle, kept - 1, axis=1)[:, :kept]
        squares = np.take_along_axis(angle, rows, 1) ** 2
        best = int(squares.mean(1).argmin())
        error = max(float(np.sqrt(squares[best].mean())), 1e-15) * n / max(kept - free, 1)
        found.append((error, angle[best]))
    if not found:
        return np.ones(n, bool)
    least = min(error for error, _ in found)
    angle = next(angle for error, angle in found if error <= 2 * least)
    return angle <= _FAR * np.median(angle) + _ROUNDING
