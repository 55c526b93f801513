"""N / D with its masks and its pullback, in one pass over memory each."""

# Numba takes arrays and numbers, no objects of ours, and finds their types itself
# ruff: noqa: PLR0913, PLR0917
# pyright: reportMissingParameterType=false

import numpy as np

from zeroproof.native._compiler import bounded, kernel

__all__ = ["divide", "pullback"]


@kernel
def divide(N, D, known, sound, safe, value, bottom, gap):
    r"""Write N / D, and where it is ⊥ or risky: known so, not finite, or beyond limits.

    Each of `sound` and `safe` is the least \|D\| and the largest \|N / D\|; `gap` may be `None`.
    """
    inf, nan = N.dtype.type(np.inf), N.dtype.type(np.nan)
    for i in range(N.shape[0]):
        d, y = abs(D[i]), N[i] / D[i]
        size = abs(y)
        # nan is on neither side
        number = (d >= sound[0]) & (d < inf) & (size <= sound[1]) & (size < inf)
        if known is not None:
            number = number & (known[i] == 0)
        value[i] = y if number else nan
        bottom[i] = not number
        if gap is not None:
            gap[i] = number & ((d < safe[0]) | (size > safe[1]))


@kernel
def pullback(g, N, D, bottom, bound, g_N, g_D):
    """Write dL/dN and dL/dD, bounded; 0 at ⊥."""
    zero = N.dtype.type(0)
    for i in range(N.shape[0]):
        number = bottom[i] == 0
        # not by D², which underflows; and g with N / D first, which is finite
        by_N, by_D = g[i] / D[i], -(g[i] * (N[i] / D[i])) / D[i]
        g_N[i] = bounded(by_N, bound) if number else zero
        g_D[i] = bounded(by_D, bound) if number else zero
