"""The parts of the loss on a block of rows: values, and derivatives by N and D.

A block `x` has eight arrays: N, D, Y_n, Y_d, 1 where the row counts, where its outputs do, where
those of the entry are finite, and where the sign of the target is known.
"""

# Numba takes arrays and numbers, no objects of ours, and finds their types itself
# pyright: reportMissingParameterType=false

import math
from typing import NamedTuple

import numpy as np

from zeroproof.native._compiler import kernel, summing

__all__ = [
    "Options",
    "Slopes",
    "add_signs",
    "any_below",
    "coverage_slopes",
    "fit_slopes",
    "fit_values",
    "lacking",
    "margin_slopes",
    "margin_values",
    "mask_origin",
    "pick_singular",
    "score_slopes",
    "scores",
    "sign_slopes",
    "sum_covered",
]

_TINY = float(np.finfo(np.float32).tiny)
_LARGEST = float(np.finfo(np.float32).max)


class Options(NamedTuple):
    """What is asked for: numbers, and which formulas."""

    fit: int  # 0 detached, 1 attached, 2 chordal, 3 oriented, -1 none
    angle_score: bool
    angle_sign: bool
    relative: bool
    margin: bool
    sign: bool
    coverage: bool
    gamma: float
    tau: float
    scale: float
    temperature: float
    tau_sing: float


class Slopes(NamedTuple):
    """dL / d(loss of one entry) of every part, and what the policy asks for."""

    fit: float
    margin: float
    sign: float
    coverage: float
    bound: float
    masked: bool


@kernel
def _size(n, d, y_n, y_d, gamma):
    """S + γ; never so small beside the tuples that a quotient would leave the range of float32."""
    a, b = d * y_d, n * y_n
    larger = max(abs(n), abs(d)) * max(abs(y_n), abs(y_d))
    return max(a * a + b * b + gamma, 4 * _TINY * larger * larger)


@kernel
def _turned(n, d, y_n, y_d):
    """1 - cos, from unit vectors, which keep its digits; and both lengths, 0 at ⟨0, 0⟩."""
    size, Y_size = math.sqrt(n * n + d * d), math.sqrt(y_n * y_n + y_d * y_d)
    by, Y_by = 1.0 / max(size, 1e-300), 1.0 / max(Y_size, 1e-300)
    across, along = n * by - y_n * Y_by, d * by - y_d * Y_by
    return (across * across + along * along) / 2, size, Y_size


@kernel
def _side(n, d, y_n, y_d, known):
    """-1 where a target of unknown sign is on the other side of the output, else 1."""
    return -1.0 if (known == 0) & (n * y_n + d * y_d < 0) else 1.0


@kernel
def fit_values(x, options, turns, out):
    n, d, y_n, y_d, known = x[0], x[1], x[2], x[3], x[7]
    for_all = range(out.shape[0])
    if options.fit == 0:
        for i in for_all:
            E = n[i] * y_d[i] - d[i] * y_n[i]
            size = _size(n[i], d[i], y_n[i], y_d[i], options.gamma)
            # where both are 0, E is too
            out[i] = E * E / (size if size > 0 else 1.0)
    elif options.fit == 1:
        for i in for_all:
            E = n[i] * y_d[i] - d[i] * y_n[i]
            size = (d[i] * y_d[i]) ** 2 + (n[i] * y_n[i]) ** 2 + options.gamma
            value = min(E * E / max(size, 1e-300), _LARGEST / 4)
            out[i] = 1.0 if _at_origin(n[i], d[i], y_n[i], y_d[i]) else value
    elif options.fit == 2:
        for i in for_all:
            E = n[i] * y_d[i] - d[i] * y_n[i]
            size = (n[i] ** 2 + d[i] ** 2) * (y_n[i] ** 2 + y_d[i] ** 2)
            out[i] = min(E * E / size, 1.0) if size > 0 else 1.0
    else:
        for i in for_all:
            side = _side(n[i], d[i], y_n[i], y_d[i], known[i]) if turns else 1.0
            turned, size, Y_size = _turned(n[i], d[i], side * y_n[i], side * y_d[i])
            out[i] = 2 * turned if (size > 0) & (Y_size > 0) else 2.0


@kernel
def _at_origin(n, d, y_n, y_d):
    return ((n == 0) & (d == 0)) | ((y_n == 0) & (y_d == 0))


@kernel
def fit_slopes(x, options, turns, factor, by_n, by_d):
    n, d, y_n, y_d, counts, known = x[0], x[1], x[2], x[3], x[4], x[7]
    for_all = range(by_n.shape[0])
    if options.fit == 0:
        for i in for_all:
            E = n[i] * y_d[i] - d[i] * y_n[i]
            size = _size(n[i], d[i], y_n[i], y_d[i], options.gamma)
            steep = 2 * factor * counts[i] * E / (size if size > 0 else 1.0)
            by_n[i] = steep * y_d[i]
            by_d[i] = -steep * y_n[i]
    elif options.fit == 1:
        for i in for_all:
            E = n[i] * y_d[i] - d[i] * y_n[i]
            size = max((d[i] * y_d[i]) ** 2 + (n[i] * y_n[i]) ** 2 + options.gamma, 1e-300)
            sound = 0.0 if _at_origin(n[i], d[i], y_n[i], y_d[i]) else counts[i]
            steep = 2 * factor * sound * E / size
            common = (y_d[i] ** 3 * d[i] + y_n[i] ** 3 * n[i]) / size
            rest = options.gamma / size
            by_n[i] = steep * (rest * y_d[i] + d[i] * common)
            by_d[i] = -steep * (rest * y_n[i] + n[i] * common)
    elif options.fit == 2:
        for i in for_all:
            E = n[i] * y_d[i] - d[i] * y_n[i]
            along = n[i] * y_n[i] + d[i] * y_d[i]
            size = n[i] ** 2 + d[i] ** 2
            product = size * size * (y_n[i] ** 2 + y_d[i] ** 2)
            steep = 2 * factor * counts[i] * E * along / product if product > 0 else 0.0
            by_n[i] = steep * d[i]
            by_d[i] = -steep * n[i]
    else:
        for i in for_all:
            side = _side(n[i], d[i], y_n[i], y_d[i], known[i]) if turns else 1.0
            E = side * (n[i] * y_d[i] - d[i] * y_n[i])
            steep = 2 * factor * counts[i] * _turn(n[i], d[i], y_n[i], y_d[i], E)
            by_n[i] = steep * d[i]
            by_d[i] = -steep * n[i]


@kernel
def _turn(n, d, y_n, y_d, E):
    """d(1 - cos) / dn is this times d, d(1 - cos) / dd this times -n."""
    size = n * n + d * d
    lengths = size * math.sqrt(size * (y_n * y_n + y_d * y_d))
    return E / lengths if lengths > 0 else 0.0


@kernel
def scores(x, options, out):
    n, d = x[0], x[1]
    if options.angle_score:
        inverse = 1.0 / options.scale
        for i in range(out.shape[0]):
            size = (n[i] * inverse) ** 2 + d[i] ** 2
            out[i] = abs(d[i]) / math.sqrt(size) if size > 0 else 0.0
    else:
        for i in range(out.shape[0]):
            out[i] = abs(d[i])


@kernel
def score_slopes(x, options, slope, straight, by_n, by_d):
    """Turn dL/ds into dL/dN and dL/dD; at D = 0 that of D → 0+, or 0 if `straight`."""
    n, d = x[0], x[1]
    at_zero = 0.0 if straight else 1.0
    if options.angle_score:
        inverse = 1.0 / options.scale
        at_origin = math.sqrt(options.scale)
        for i in range(by_n.shape[0]):
            side = math.copysign(1.0, d[i]) if d[i] != 0 else 1.0
            ratio = n[i] * inverse
            size = ratio * ratio + d[i] * d[i]
            root = size * math.sqrt(size)
            common = slope[i] * side * ratio / root if size > 0 else 0.0
            by_n[i] = -common * d[i] * inverse
            by_d[i] = common * ratio if size > 0 else slope[i] * at_origin
    else:
        for i in range(by_n.shape[0]):
            side = 1.0 if d[i] > 0 else at_zero
            by_d[i] = slope[i] * (-1.0 if d[i] < 0 else side)
            by_n[i] = 0.0


@kernel
def margin_values(score, options, out):
    unit = 1.0 / options.tau if options.relative else 1.0
    for i in range(out.shape[0]):
        gap = max(options.tau - score[i], 0.0) * unit
        out[i] = gap * gap


@kernel
def margin_slopes(x, score, options, slopes, out):
    unit = 1.0 / options.tau**2 if options.relative else 1.0
    counts = x[5]
    for i in range(out.shape[0]):
        out[i] = -2 * slopes.margin * unit * max(options.tau - score[i], 0.0) * counts[i]


@kernel
def mask_origin(x, shared, slope):
    """No gradient at ⟨0, 0⟩: where outputs share a denominator, if all of them are there."""
    n, d = x[0], x[1]
    if shared == 1:
        for i in range(slope.shape[0]):
            slope[i] = 0.0 if (n[i] == 0) & (d[i] == 0) else slope[i]
        return
    for row in range(0, slope.shape[0], shared):
        if d[row] == 0 and not n[row : row + shared].any():
            slope[row : row + shared] = 0


@kernel
def lacking(score, options, out, whole):
    """Write exp((τ - s) / T) as float32, which is as exact as an answer can be told.

    Powers of 2 are put together from their bits; the next term of the series is below rounding.
    """
    f = np.float32
    scale = math.log2(math.e) / options.temperature
    powers = whole.view(np.float32)
    for i in range(out.shape[0]):
        z = f(min(max((options.tau - score[i]) * scale, -127.0), 125.0))  # 2^-127 becomes 0
        nearest = f(math.floor(z + f(0.5)))
        out[i] = (z - nearest) * f(math.log(2))
        whole[i] = (np.int32(nearest) + np.int32(127)) << np.int32(23)
    for i in range(out.shape[0]):
        r = out[i]
        series = f(1 / 720)
        series = series * r + f(1 / 120)
        series = series * r + f(1 / 24)
        series = series * r + f(1 / 6)
        series = series * r + f(1 / 2)
        series = series * r + f(1)
        series = series * r + f(1)
        out[i] = series * powers[i]


@summing
def sum_covered(lacking, finite):
    """Return Σ σ((s - τ) / T) over entries that are finite."""
    total = 0.0
    one = np.float32(1)
    for i in range(lacking.shape[0]):
        total += finite[i] * (one / (one + lacking[i]))
    return total


@kernel
def coverage_slopes(x, lacking, options, slopes, out):
    factor = slopes.coverage / options.temperature
    one, beyond = np.float32(1), np.float32(2.0**124)  # where `lacking` stopped growing
    finite = x[6]
    for i in range(out.shape[0]):
        inverse = one / (one + lacking[i])
        slope = lacking[i] * inverse * inverse
        out[i] = factor * finite[i] * (slope if lacking[i] < beyond else 0)


@kernel
def any_below(score, tau):
    found = 0  # counted: a loop that may end early is not made of vectors
    for i in range(score.shape[0]):
        found += score[i] < tau
    return found > 0


@kernel
def pick_singular(x, knows, options, picked):
    """Write the indices of singular targets that count and whose sign is known; return how many."""
    y_d, counts, known = x[3], x[4], x[7]
    found = 0
    for i in range(y_d.shape[0]):
        if (abs(y_d[i]) < options.tau_sing) & (counts[i] > 0) & ((not knows) | (known[i] > 0)):
            picked[found] = i
            found += 1
    return found


@kernel
def add_signs(x, picked, options, totals):
    """Add loss and weight of chosen entries to two of the totals."""
    n, d, y_n, y_d, counts = x[0], x[1], x[2], x[3], x[4]
    for i in picked:
        origin = _at_origin(n[i], d[i], y_n[i], y_d[i])
        if options.angle_sign:
            E, along = n[i] * y_d[i] - d[i] * y_n[i], n[i] * y_n[i] + d[i] * y_d[i]
            theta = math.pi / 2 if origin else math.atan2(E, along)
            loss = theta * theta / 2
        else:
            loss = 1.0 if origin else _turned(n[i], d[i], y_n[i], y_d[i])[0]
        totals[4] += counts[i] * loss
        totals[5] += counts[i]


@kernel
def sign_slopes(x, picked, options, slopes, by_n, by_d):
    n, d, y_n, y_d, counts = x[0], x[1], x[2], x[3], x[4]
    by_n[:] = 0
    by_d[:] = 0
    for i in picked:
        if _at_origin(n[i], d[i], y_n[i], y_d[i]):
            continue
        E, along = n[i] * y_d[i] - d[i] * y_n[i], n[i] * y_n[i] + d[i] * y_d[i]
        if options.angle_sign:
            turn = math.atan2(E, along) / (n[i] * n[i] + d[i] * d[i])
        else:
            turn = _turn(n[i], d[i], y_n[i], y_d[i], E)
        turn *= slopes.sign * counts[i]
        by_n[i] = turn * d[i]
        by_d[i] = -turn * n[i]
