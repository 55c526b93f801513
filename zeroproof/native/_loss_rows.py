"""Blocks of rows in work space: float64, one entry per output, and what of them counts."""


# pyright: reportMissingParameterType=false

import numpy as np

from zeroproof.native._compiler import kernel, summing

__all__ = ["dot", "load", "settle", "store", "total", "views"]

_LARGEST = float(np.finfo(np.float32).max)


@kernel
def views(work, count, width):
    """Return eight rows as arrays of their own, whose entries are known to be neighbours."""
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
def load(N, D, Y_n, Y_d, known, width, start, x):
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
        _count_rows(x, width)
    if known is not None:
        flags = _dense(known, N.shape[0], width, start, spread[0])
        for i in range(count):
            x[7][i] = flags[i]


@kernel
def _count_rows(x, width):
    """A row counts if all of its outputs do."""
    x[5][:] = x[6]
    for row in range(0, x[4].shape[0], width):
        for counts in (x[4][row : row + width], x[5][row : row + width]):
            counts[:] = counts.min()


@kernel
def _dense(x, size, width, start, spread):
    """Return a block with one entry per output; what outputs share is written into `spread`."""
    if x.shape[0] == size:
        return x[start : start + spread.shape[0]]
    for row in range(spread.shape[0] // width):
        for j in range(width):
            spread[row * width + j] = x[start // width + row]
    return spread


@summing
def dot(a, b):
    """Return Σ a · b."""
    found = 0.0
    for i in range(a.shape[0]):
        found += a[i] * b[i]
    return found


@summing
def total(a):
    """Return Σ a."""
    found = 0.0
    for i in range(a.shape[0]):
        found += a[i]
    return found


@kernel
def settle(by_n, by_d, bound, width, g_n, g_d):
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
def store(g, out):
    """Write gradients as float32, inside its range."""
    for i in range(out.shape[0]):
        out[i] = np.float32(min(max(g[i], -_LARGEST), _LARGEST))
