"""The combined loss of float32 rows: sums forward, derivatives backward, one pass each.

Everything is computed in float64, whose range holds the fourth power of any float32: no row needs
special care, and none can overflow. A block of rows is brought into work space in the first cache;
each part of the loss then goes over it in a loop of its own, which the compiler turns into vectors.
"""

# Numba takes arrays and numbers, no objects of ours, and finds their types itself
# ruff: noqa: PLR0913, PLR0917
# pyright: reportMissingParameterType=false

import numpy as np

from zeroproof.native import _loss_parts as parts
from zeroproof.native._compiler import kernel
from zeroproof.native._loss_rows import dot, load, settle, store, total, views

__all__ = ["gradients", "sums"]

_BLOCK = 512  # entries, whose work space stays in the first cache


@kernel
def _space(count):
    """Return scores, chosen entries, and what the coverage needs, for one block."""
    return (
        np.empty(count),
        np.empty(count, np.int64),
        np.empty(count, np.float32),
        np.empty(count, np.int32),
    )


@kernel
def _part(space, count):
    score, picked, lacking, whole = space
    return score[:count], picked[:count], lacking[:count], whole[:count]


@kernel
def sums(N, D, Y_n, Y_d, known, width, options, totals):
    """Add sum and weight of fit, margin, sign and coverage to `totals`, eight numbers."""
    step = max(_BLOCK // width, 1) * width
    work, space = np.empty((9, step)), _space(step)
    for start in range(0, N.shape[0], step):
        count = min(step, N.shape[0] - start)
        x, values = views(work, count, width), work[8][:count]
        score, picked, lacking, whole = _part(space, count)
        load(N, D, Y_n, Y_d, known, width, start, x)
        parts.fit_values(x, options, known is not None, values)
        totals[0] += dot(values, x[4])
        totals[1] += total(x[4])
        if options.margin or options.coverage:
            parts.scores(x, options, score)
        if options.margin:
            if parts.any_below(score, options.tau):
                parts.margin_values(score, options, values)
                totals[2] += dot(values, x[5])
            totals[3] += total(x[5])
        if options.sign:
            found = parts.pick_singular(x, known is not None, options, picked)
            totals[4] += parts.sign_sum(x, picked[:found], options)
            totals[5] += found
        if options.coverage:
            parts.lacking(score, options, lacking, whole)
            totals[6] += parts.sum_covered(lacking, x[6])
            totals[7] += count


@kernel
def _sign(x, knows, options, slopes, picked, by_n, by_d):
    """Write what the sign contributes; false where that is nothing."""
    if not options.sign or slopes.sign == 0:
        return False
    found = parts.pick_singular(x, knows, options, picked)
    if found:
        parts.sign_slopes(x, picked[:found], options, slopes, by_n, by_d)
    return found > 0


@kernel
def _margin(x, options, slopes, shared, score, by_n, by_d):
    """Write what the margin contributes; false where that is nothing."""
    if not options.margin or slopes.margin == 0:
        return False
    parts.scores(x, options, score)
    if not parts.any_below(score, options.tau):
        return False
    parts.margin_slopes(x, score, options, slopes, score)
    if slopes.masked:
        parts.mask_origin(x, shared, score)
    straight = not (options.relative or options.angle_score)
    parts.score_slopes(x, options, score, straight, by_n, by_d)
    return True


@kernel
def _coverage(x, options, slopes, part, by_n, by_d):
    """Write what the coverage contributes; false where that is nothing."""
    if not options.coverage or slopes.coverage == 0:
        return False
    score, _, lacking, whole = part
    parts.scores(x, options, score)
    parts.lacking(score, options, lacking, whole)
    parts.coverage_slopes(x, lacking, options, slopes, score)
    parts.score_slopes(x, options, score, False, by_n, by_d)
    return True


@kernel
def gradients(N, D, Y_n, Y_d, known, width, options, slopes, g_N, g_D):
    """Write dL/dN and dL/dD: what every part contributes, each within the bound of the policy."""
    step = max(_BLOCK // width, 1) * width
    shared = width if D.shape[0] != N.shape[0] else 1
    work, space = np.empty((12, step)), _space(step)
    for start in range(0, N.shape[0], step):
        count = min(step, N.shape[0] - start)
        x, by_n, by_d = views(work, count, width), work[8][:count], work[9][:count]
        g_n, g_d = work[10][:count], work[11][: count // shared]
        part = _part(space, count)
        load(N, D, Y_n, Y_d, known, width, start, x)
        g_n[:] = 0
        g_d[:] = 0
        if slopes.fit != 0:
            parts.fit_slopes(x, options, known is not None, slopes.fit, by_n, by_d)
            settle(by_n, by_d, slopes.bound, width, g_n, g_d)
        if _sign(x, known is not None, options, slopes, part[1], by_n, by_d):
            settle(by_n, by_d, slopes.bound, width, g_n, g_d)
        if _margin(x, options, slopes, shared, part[0], by_n, by_d):
            settle(by_n, by_d, slopes.bound, width, g_n, g_d)
        if _coverage(x, options, slopes, part, by_n, by_d):
            settle(by_n, by_d, np.inf, width, g_n, g_d)
        store(g_n, g_N[start : start + count])
        store(g_d, g_D[start // shared : (start + count) // shared])
