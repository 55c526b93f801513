"""N / D with its masks and its pullback, in one pass over memory each."""

# Numba takes arrays and numbers, no objects of ours, and finds their types itself
# ruff: noqa: PLR0913, PLR0917
# pyright: reportMissingParameterType=false

import math

import numpy as np

from zeroproof.native._compiler import bounded, kernel

__all__ = ["decode", "divide", "pullback"]


@kernel
def divide(N, D, known, value, bottom):
    """Write N / D and where it is ⊥: known so, D = 0, or a number that is not finite."""
    inf, nan = N.dtype.type(np.inf), N.dtype.type(np.nan)
    for i in range(N.shape[0]):
        y = N[i] / D[i]
        sound = (abs(D[i]) < inf) & (abs(y) < inf)
        if known is not None:
            sound = sound & (known[i] == 0)
        value[i] = y if sound else nan
        bottom[i] = not sound


@kernel
def pullback(g, N, D, bottom, bound, g_N, g_D):
    """Write dL/dN and dL/dD, bounded; 0 at ⊥."""
    zero = N.dtype.type(0)
    for i in range(N.shape[0]):
        sound = bottom[i] == 0
        # not by D², which underflows; and g with N / D first, which is finite
        by_N, by_D = g[i] / D[i], -(g[i] * (N[i] / D[i])) / D[i]
        g_N[i] = bounded(by_N, bound) if sound else zero
        g_D[i] = bounded(by_D, bound) if sound else zero


@kernel
def decode(N, D, known, tau_infer, tau_train, scale, value, bottom, gap):
    """Write N / D, ⊥ and the gap; `scale` is that of the angle score, `None` for the other."""
    inf, nan = N.dtype.type(np.inf), N.dtype.type(np.nan)
    for i in range(N.shape[0]):
        y = N[i] / D[i]
        if scale is None:
            score = abs(D[i])
        else:
            n, d = N[i] / scale, np.float64(D[i])
            score = N.dtype.type(abs(d) / math.sqrt(n * n + d * d))
        # a score that is nan is none; D = 0 is ⊥ even where τ underflows
        sound = (score >= tau_infer) & (abs(D[i]) < inf) & (abs(y) < inf)
        if known is not None:
            sound = sound & (known[i] == 0)
        value[i] = y if sound else nan
        bottom[i] = not sound
        gap[i] = sound & (score < tau_train)
