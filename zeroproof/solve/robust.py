"""Rows that no model explains: found by a fit that they cannot move.

Trimming after an ordinary fit fails, since outliers hide behind the fit they made. So random few
rows begin, and each step keeps the rows with the smallest angles (least trimmed squares, Rousseeuw
1984, concentration steps of Rousseeuw & Van Driessen 1999), on the linearised rational fit; then
all rows within the cut are fitted, so that those where a good fit is least good stay in. A sum
of angles, minimised by weights of 1 / angle, ends in other minima for laws like x y / (x - z);
concentration finds their rows from any start, with 140 coefficients too.
"""

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

__all__ = ["FEWEST", "heavy_tailed", "trimmed_rows"]

Array = NDArray[Any]
Basis: TypeAlias = Callable[[Array], Array]  # features, `(n, k)`, of rows

_KEPT = 0.8  # of the rows that a fit has to explain
_FAR = 9.0  # times the median angle: 6 standard deviations of Gaussian errors
_STEPS, _MOST_STARTS, _FEWEST_STARTS = 8, 20, 4
_MOST_OUT = 0.1  # of the rows, in an exact fit that needs no larger basis
_ALIKE = 3  # starts that end in the smallest error: no others are needed
_ENTRIES = 2**22  # of the matrices of all starts; more columns get fewer starts
_MOST_ROWS = 3000
_NOTICED = 1e-6  # of the size of y: a smaller error is no outlier's
_AS_GOOD = 1.25  # times the smallest error: a simpler basis is taken
_ROUNDING = 1e-13
_POPULATION = 3.0  # times the cut, which half of the outliers exceed
_CHANCE = 0.01  # of a gap in front of the outliers that is none
_TOGETHER = 0.25  # of the outliers may have an outlier as their nearest neighbour
FEWEST = 30  # distinct inputs


def heavy_tailed(error: Array) -> bool:
    """Tell whether some errors, over the size of y, lie beyond what Gaussian noise would bring."""
    return bool((error > _FAR * np.median(error) + _NOTICED).any())


def trimmed_rows(X: Array, bases: Iterable[Basis], y: Array, seed: int = 0) -> NDArray[np.bool_]:
    """Mark the rows that a robust rational fit explains.

    Each basis serves N and D. The first is taken whose error, corrected for the number of
    coefficients, is nearly the smallest; rows beyond nine times the median angle are not
    explained, if they are a population of their own.

    Args:
        X: Rows, `(n, d)`.
        bases: Functions from rows to their features, simple ones first.
        y: Finite targets, `(n,)`.
        seed: Of the random starts.
    """
    n, rng = len(y), np.random.default_rng(seed)
    Y = y / (np.median(np.abs(y)) or 1.0)
    drawn = rng.permutation(n)[:_MOST_ROWS]
    kept = int(_KEPT * len(drawn))
    found, wide = [], 1
    for basis in bases:
        A, H = _system(basis, X[drawn], Y[drawn])
        free = A.shape[1] - 1
        if 2 * free > kept:
            continue
        v, wide = _concentrated(A, H, kept, rng), max(wide, free)
        angle = _angle(A, H, v)
        rows = _within(angle, _length(H, v))
        error = float(np.sqrt(np.mean(np.sort(angle)[:kept] ** 2)))
        # at rounding only the rows that are left out tell bases apart
        missed = float((~rows).mean()) * _ROUNDING if error < _ROUNDING else error
        found.append((missed * len(drawn) / max(kept - free, 1), basis, v))
        if missed < _MOST_OUT * _ROUNDING and _apart(X[drawn], angle, rows):
            break
    if not found:
        return np.ones(n, bool)
    least = min(each[0] for each in found)
    _, basis, v = next(each for each in found if each[0] <= _AS_GOOD * least)
    angle, length = np.empty(n), np.empty(n)
    for part in np.array_split(np.arange(n), 1 + n * wide // _ENTRIES):
        A, H = _system(basis, X[part], Y[part])
        angle[part], length[part] = _angle(A, H, v), _length(H, v)
    explained = _within(angle, length)
    alone = not explained.all() and _apart(X, angle, explained)
    return explained if alone else np.ones(n, bool)


def _system(basis: Basis, X: Array, Y: Array) -> tuple[Array, Array]:
    """Return the rows of N - Y D = 0, over their size, and the features."""
    H = basis(X)
    return np.hstack([H, -Y[:, None] * H]) / np.hypot(1, Y)[:, None], H


def _concentrated(A: Array, H: Array, kept: int, rng: np.random.Generator) -> Array:
    """Return the best (a, b) of some random starts, fitted to the rows within its cut."""
    n, wide = A.shape
    starts = int(np.clip(_ENTRIES // (kept * wide), _FEWEST_STARTS, _MOST_STARTS))
    ends: list[tuple[float, Array]] = []
    while len(ends) < starts:
        rows = rng.permutation(n)[: min(2 * wide, kept)]
        v = _smallest(A[rows])
        for _ in range(_STEPS):
            rows = np.argpartition(_angle(A, H, v), kept - 1)[:kept]
            v = _smallest(A[rows])
        ends.append((float(np.sqrt(np.mean(_angle(A, H, v)[rows] ** 2))), v))
        least = min(error for error, _ in ends)
        if sum(error <= 1.01 * least + _ROUNDING for error, _ in ends) >= _ALIKE:
            break
    v = min(ends, key=lambda end: end[0])[1]
    for _ in range(_STEPS):
        v = _smallest(A[_within(_angle(A, H, v), _length(H, v))])
    return v


def _smallest(A: Array) -> Array:
    """Return the singular vector of the smallest singular value."""
    return np.linalg.svd(np.linalg.qr(A, mode="r"))[2][-1]


def _within(angle: Array, length: Array) -> NDArray[np.bool_]:
    # rounding of N - y D is that of terms of size 1, as v has that length
    return angle <= _FAR * np.median(angle) + _ROUNDING / length


def _angle(A: Array, H: Array, v: Array) -> Array:
    return np.abs(A @ v) / _length(H, v)


def _length(H: Array, v: Array) -> Array:
    k = H.shape[1]
    return np.maximum(np.hypot(H @ v[:k], H @ v[k:]), 1e-300)


def _apart(X: Array, error: Array, kept: NDArray[np.bool_]) -> bool:
    """Tell whether rows left out are a population of their own, strewn among the others.

    The tail of one distribution ends soon beyond a cut: with a finite mean, half of it lies within
    twice the cut. Its k largest of a tail of power 2 are beyond a gap of ratio r with probability
    r^(-2k). And where a model fails, it fails for neighbours too.

    Args:
        X: Rows, `(n, d)`.
        error: Their errors under a fit of the rows kept, `(n,)`.
        kept: Which rows were kept.
    """
    if kept.all():
        return True
    typical, largest = np.median(error[kept]), error[kept].max()
    far = np.median(error[~kept]) > _POPULATION * _FAR * typical
    gap = np.log(error[~kept].min() / max(largest, 1e-300)) * 2 * (~kept).sum()
    if not far and gap < -np.log(_CHANCE):
        return False
    Z = X / np.where((spread := X.std(0)) > 0, spread, 1)
    out = np.flatnonzero(~kept)
    near = np.asarray(KDTree(Z).query(Z[out], k=2)[1])
    nearest = np.where(near[:, 0] == out, near[:, 1], near[:, 0])
    return float((~kept)[nearest].mean()) <= max(_TOGETHER, 2 / len(out))
