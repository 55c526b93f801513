"""The combined loss of float32 rows: sums forward, derivatives backward, one pass each.

Everything is computed in float64, whose range holds the fourth power of any float32: no row needs
special care, and none can overflow. A block of rows is brought into work space in the first cache;
each part of the loss then goes over it in a loop of its own, which the compiler turns into vectors.
"""

# ruff: noqa: PLR0913, PLR0917 - Numba takes arrays and numbers, no objects of ours

import math
from typing import NamedTuple

import numpy as np

from zeroproof.native._compiler import kernel, summing

__all__ = ["Options", "Slopes", "gradients", "sums"]

_BLOCK = 512  # entries, whose work space stays in the first cache
_TINY = float(np.finfo(np.float32).tiny)
_LARGEST = float(np.finfo(np.float32).max)


class Options(NamedTuple):
    """What is asked for: numbers, and which formulas."""

    fit: int  # 0 detached, 1 attached, 2 chordal, 3 oriented
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
def _load(N, D, Y_n, Y_d, known, width, start, x):
    """Fill N, D, Y_n, Y_d, 1 where all four, where outputs of the row, where of the entry, count.

    What is not finite becomes 1, and does not count. The last row of `x` tells known signs.
    """
    count = x[0].shape[0]
    one = np.float32(1)
    inf = np.float32(np.inf)
    spread = np.empty((2, count), np.float32)
    n, y_n = N[start : start + count], Y_n[start : start + count]
    d = _dense(D, N.shape[0], width, start, spread[0])
    y_d = _dense(Y_d, N.shape[0], width, start, spread[1])
    for i in range(count):
        here = (abs(n[i]) < inf) & (abs(d[i]) < inf)
        there = (abs(y_n[i]) < inf) & (abs(y_d[i]) < inf)
        x[0][i] = n[i] if here else one
        x[1][i] = d[i] if here else one
        x[2][i] = y_n[i] if there else one
        x[3][i] = y_d[i] if there else one
        x[4][i] = 1.0 if here & there else 0.0
        x[6][i] = 1.0 if here else 0.0
    if width > 1:
        x[5][:] = x[6]
        for row in range(0, count, width):
            _whole_row(x[4][row : row + width])
            _whole_row(x[5][row : row + width])
    if known is not None:
        flags = known[start : start + count]
        if known.shape[0] == N.shape[0]:
            for i in range(count):
                x[7][i] = flags[i]
        else:
            for row in range(count // width):
                for j in range(width):
                    x[7][row * width + j] = known[start // width + row]


@kernel
def _dense(x, size, width, start, spread):
    """Return a block with one entry per output; what outputs share is written into `spread`."""
    if x.shape[0] == size:
        return x[start : start + spread.shape[0]]
    for row in range(spread.shape[0] // width):
        for j in range(width):
            spread[row * width + j] = x[start // width + row]
    return spread


@kernel
def _whole_row(counts):
    """A row counts if all of its outputs do."""
    least = counts.min()
    counts[:] = least


@summing
def _dot(a, b):
    total = 0.0
    for i in range(a.shape[0]):
        total += a[i] * b[i]
    return total


@summing
def _total(a):
    total = 0.0
    for i in range(a.shape[0]):
        total += a[i]
    return total


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
def _fit_values(x, options, turns, out):
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
def _fit_slopes(x, options, turns, factor, by_n, by_d):
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
def _scores(x, options, out):
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
def _score_slopes(x, options, slope, straight, by_n, by_d):
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
def _margin_values(score, options, out):
    unit = 1.0 / options.tau if options.relative else 1.0
    for i in range(out.shape[0]):
        gap = max(options.tau - score[i], 0.0) * unit
        out[i] = gap * gap


@kernel
def _margin_slopes(x, score, options, slopes, out):
    unit = 1.0 / options.tau**2 if options.relative else 1.0
    counts = x[5]
    for i in range(out.shape[0]):
        out[i] = -2 * slopes.margin * unit * max(options.tau - score[i], 0.0) * counts[i]


@kernel
def _mask_origin(x, shared, slope):
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
def _lacking(score, options, out, whole):
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
def _sum_covered(lacking, finite):
    """Return Σ σ((s - τ) / T) over entries that are finite."""
    total = 0.0
    one = np.float32(1)
    for i in range(lacking.shape[0]):
        total += finite[i] * (one / (one + lacking[i]))
    return total


@kernel
def _coverage_slopes(x, lacking, options, slopes, out):
    factor = slopes.coverage / options.temperature
    one = np.float32(1)
    finite = x[6]
    for i in range(out.shape[0]):
        inverse = one / (one + lacking[i])
        out[i] = factor * finite[i] * (lacking[i] * inverse * inverse)


@kernel
def _any_below(score, tau):
    found = 0  # counted: a loop that may end early is not made of vectors
    for i in range(score.shape[0]):
        found += score[i] < tau
    return found > 0


@kernel
def _pick_singular(x, knows, options, picked):
    """Write the indices of singular targets that count and whose sign is known; return how many."""
    y_d, counts, known = x[3], x[4], x[7]
    found = 0
    for i in range(y_d.shape[0]):
        if (abs(y_d[i]) < options.tau_sing) & (counts[i] > 0) & ((not knows) | (known[i] > 0)):
            picked[found] = i
            found += 1
    return found


@kernel
def _add_signs(x, picked, options, totals):
    n, d, y_n, y_d = x[0], x[1], x[2], x[3]
    totals[5] += picked.shape[0]
    for i in picked:
        origin = _at_origin(n[i], d[i], y_n[i], y_d[i])
        if options.angle_sign:
            E, along = n[i] * y_d[i] - d[i] * y_n[i], n[i] * y_n[i] + d[i] * y_d[i]
            theta = math.pi / 2 if origin else math.atan2(E, along)
            totals[4] += theta * theta / 2
        else:
            totals[4] += 1.0 if origin else _turned(n[i], d[i], y_n[i], y_d[i])[0]


@kernel
def _sign_slopes(x, picked, options, slopes, by_n, by_d):
    n, d, y_n, y_d = x[0], x[1], x[2], x[3]
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
        by_n[i] = slopes.sign * turn * d[i]
        by_d[i] = -slopes.sign * turn * n[i]


@kernel
def _eight(work, count, width):
    """Return rows as arrays of their own, whose entries are known to be neighbours."""
    outputs = 5 if width > 1 else 6  # where a row is an entry, both count alike
    return (
        work[0][:count],
        work[1][:count],
        work[2][:count],
        work[3][:count],
        work[4][:count],
        work[outputs][:count],
        work[6][:count],
        work[7][:count],
    )


@kernel
def sums(N, D, Y_n, Y_d, known, width, options, totals):
    """Add sum and weight of fit, margin, sign and coverage to `totals`, eight numbers."""
    rows = max(_BLOCK // width, 1)
    work, picked = np.empty((10, rows * width)), np.empty(rows * width, np.int64)
    lacking, whole = np.empty(rows * width, np.float32), np.empty(rows * width, np.int32)
    for start in range(0, N.shape[0], rows * width):
        count = min(rows * width, N.shape[0] - start)
        x, values, score = _eight(work, count, width), work[8][:count], work[9][:count]
        _load(N, D, Y_n, Y_d, known, width, start, x)
        _fit_values(x, options, known is not None, values)
        totals[0] += _dot(values, x[4])
        totals[1] += _total(x[4])
        if options.margin or options.coverage:
            _scores(x, options, score)
        if options.margin:
            if _any_below(score, options.tau):
                _margin_values(score, options, values)
                totals[2] += _dot(values, x[5])
            totals[3] += _total(x[5])
        if options.coverage:
            _lacking(score, options, lacking[:count], whole[:count])
            totals[6] += _sum_covered(lacking[:count], x[6])
            totals[7] += count
        if options.sign:
            found = _pick_singular(x, known is not None, options, picked)
            _add_signs(x, picked[:found], options, totals)


@kernel
def _settle(by_n, by_d, bound, width, g_n, g_d):
    """Bound what one part contributes and add it; a shared denominator gets the sum of outputs."""
    for i in range(by_n.shape[0]):
        g_n[i] += min(max(by_n[i], -bound), bound)
    if g_d.shape[0] == by_d.shape[0]:
        for i in range(by_d.shape[0]):
            g_d[i] += min(max(by_d[i], -bound), bound)
    else:
        for row in range(g_d.shape[0]):
            total = 0.0
            for j in range(width):
                total += by_d[row * width + j]
            g_d[row] += min(max(total, -bound), bound)


@kernel
def _store(g, out):
    for i in range(out.shape[0]):
        out[i] = np.float32(min(max(g[i], -_LARGEST), _LARGEST))


@kernel
def gradients(N, D, Y_n, Y_d, known, width, options, slopes, g_N, g_D):
    """Write dL/dN and dL/dD."""
    rows = max(_BLOCK // width, 1)
    shared = width if D.shape[0] != N.shape[0] else 1
    work, picked = np.empty((13, rows * width)), np.empty(rows * width, np.int64)
    lacking, whole = np.empty(rows * width, np.float32), np.empty(rows * width, np.int32)
    for start in range(0, N.shape[0], rows * width):
        count = min(rows * width, N.shape[0] - start)
        x, by_n, by_d = _eight(work, count, width), work[8][:count], work[9][:count]
        score, g_n, g_d = work[10][:count], work[11][:count], work[12][: count // shared]
        _load(N, D, Y_n, Y_d, known, width, start, x)
        g_n[:] = 0
        g_d[:] = 0
        if slopes.fit != 0:
            _fit_slopes(x, options, known is not None, slopes.fit, by_n, by_d)
            _settle(by_n, by_d, slopes.bound, width, g_n, g_d)
        if options.sign and slopes.sign != 0:
            found = _pick_singular(x, known is not None, options, picked)
            if found:
                _sign_slopes(x, picked[:found], options, slopes, by_n, by_d)
                _settle(by_n, by_d, slopes.bound, width, g_n, g_d)
        if options.margin and slopes.margin != 0:
            straight = not (options.relative or options.angle_score)
            _scores(x, options, score)
            if _any_below(score, options.tau):
                _margin_slopes(x, score, options, slopes, score)
                if slopes.masked:
                    _mask_origin(x, shared, score)
                _score_slopes(x, options, score, straight, by_n, by_d)
                _settle(by_n, by_d, slopes.bound, width, g_n, g_d)
        if options.coverage and slopes.coverage != 0:
            _scores(x, options, score)
            _lacking(score, options, lacking[:count], whole[:count])
            _coverage_slopes(x, lacking[:count], options, slopes, score)
            _score_slopes(x, options, score, False, by_n, by_d)
            _settle(by_n, by_d, np.inf, width, g_n, g_d)
        _store(g_n, g_N[start : start + count])
        _store(g_d, g_D[start // shared : (start + count) // shared])
