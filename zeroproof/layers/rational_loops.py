"""P(x) / Q(x) and its pullback in one pass over memory each.

Coefficients come as tuples, whose length is known when a kernel is compiled, so that the loops over
them unroll. `chebyshev` is `None` for monomials and a number for Chebyshev polynomials, which also
decides at compile time.
"""

# Numba takes arrays and numbers, no objects of ours, and finds their types itself
# ruff: noqa: PLR0913, PLR0917
# pyright: reportMissingParameterType=false

import numpy as np

from zeroproof.native import kernel, summing
from zeroproof.scm.division_loops import bounded

__all__ = ["pullback", "quotient"]

_BLOCK = 1024  # entries whose work space stays in the first cache


@kernel
def _value(t, c, chebyshev):
    """Σ c_k B_k(t) by Horner's or Clenshaw's rule."""
    last = len(c) - 1
    value = c[last]
    if chebyshev is None:
        for k in range(last - 1, -1, -1):
            value = value * t + c[k]
        return value
    ahead = value - value
    for k in range(last - 1, 0, -1):
        ahead, value = value, (t + t) * value - ahead + c[k]
    return t * value - ahead + c[0] if last else value


@kernel
def _value_and_slope(t, c, chebyshev):
    """Σ c_k B_k(t) and its derivative by t."""
    last = len(c) - 1
    value = c[last]
    slope = value - value
    if chebyshev is None:
        for k in range(last - 1, -1, -1):
            slope = slope * t + value
            value = value * t + c[k]
        return value, slope
    ahead, slope_ahead = slope, slope
    for k in range(last - 1, 0, -1):
        slope_ahead, slope = slope, (t + t) * slope + (value + value) - slope_ahead
        ahead, value = value, (t + t) * value - ahead + c[k]
    if last:
        return t * value - ahead + c[0], t * slope + value - slope_ahead
    return value, slope


@kernel
def quotient(x, known, P, Q, centre, half, limit, chebyshev, value, bottom):
    """Write P / Q and where it is ⊥: beyond reach, known so, or not finite."""
    zero, nan, inf = x.dtype.type(0), x.dtype.type(np.nan), x.dtype.type(np.inf)
    for i in range(x.shape[0]):
        t = x[i]
        if chebyshev is not None:
            t = (t - centre) / half
        sound = abs(t) <= limit
        if known is not None:
            sound = sound & (known[i] == 0)
        t = t if sound else zero
        y = _value(t, P, chebyshev) / _value(t, Q, chebyshev)
        sound = sound & (abs(y) < inf)
        value[i] = y if sound else nan
        bottom[i] = not sound


@kernel
def pullback(x, g, known, P, Q, centre, half, limit, bound, chebyshev, g_x, g_P, g_Q):
    """Write dL/dx, and add the gradients of the coefficients; 0 where P / Q is ⊥."""
    zero, inf = x.dtype.type(0), x.dtype.type(np.inf)
    work = np.empty((3, _BLOCK), x.dtype)
    for start in range(0, x.shape[0], _BLOCK):
        n = min(_BLOCK, x.shape[0] - start)
        # slices: an index that is a sum might be negative, and would be looked at every time
        at, g_in, g_out = x[start : start + n], g[start : start + n], g_x[start : start + n]
        flags = known if known is None else known[start : start + n]
        u, v, ts = work[0, :n], work[1, :n], work[2, :n]
        for i in range(n):
            t = at[i]
            if chebyshev is not None:
                t = (t - centre) / half
            sound = abs(t) <= limit
            if flags is not None:
                sound = sound & (flags[i] == 0)
            t = t if sound else zero
            p, slope_p = _value_and_slope(t, P, chebyshev)
            q, slope_q = _value_and_slope(t, Q, chebyshev)
            y = p / q
            sound = sound & (abs(y) < inf)
            by_p = g_in[i] / q
            by_q = -by_p * y
            by_p = bounded(by_p, bound) if sound else zero
            by_q = bounded(by_q, bound) if sound else zero
            slope = by_p * slope_p + by_q * slope_q
            g_out[i] = slope if chebyshev is None else slope / half
            u[i], v[i], ts[i] = by_p, by_q, t
        _add_moments(u, ts, g_P, chebyshev)
        _add_moments(v, ts, g_Q, chebyshev)


@kernel
def _add_moments(g, t, sums, chebyshev):
    """Add Σ g · B_k(t) to every sum; g is used up."""
    if chebyshev is None:
        for k in range(0, len(sums), 6):
            _six_powers(g, t, sums, k)
    else:
        before = np.zeros_like(g)
        for k in range(len(sums)):
            _next_row(g, before, t, sums, k)


@summing
def _six_powers(g, t, sums, k):
    s0 = g.dtype.type(0)
    s1, s2, s3, s4, s5 = s0, s0, s0, s0, s0
    for i in range(g.shape[0]):
        x = t[i]
        y = g[i]
        s0 += y
        y *= x
        s1 += y
        y *= x
        s2 += y
        y *= x
        s3 += y
        y *= x
        s4 += y
        y *= x
        s5 += y
        g[i] = y * x
    for j, s in enumerate((s0, s1, s2, s3, s4, s5)):
        if k + j < len(sums):
            sums[k + j] += s


@summing
def _next_row(g, before, t, sums, k):
    """Add Σ of row k and go on to row k + 1: the first step is by t, the others by 2t."""
    total = g.dtype.type(0)
    twice = g.dtype.type(1 if k == 0 else 2)
    for i in range(g.shape[0]):
        y = g[i]
        total += y
        g[i] = twice * t[i] * y - before[i]
        before[i] = y
    sums[k] += total
