"""N / D with its masks and its gradients in Numba's loops, one pass over memory each."""

# Numba takes arrays and numbers, no objects of ours, and finds their types itself
# pyright: reportMissingParameterType=false

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zeroproof.native import array, empty, for_numbers, in_parts, kernel
from zeroproof.scm import division

__all__ = ["bounded", "divide", "pullback", "slopes"]

slopes = for_numbers([division.slopes], {"conj": kernel(lambda x: x)})["slopes"]


@kernel
def bounded(g, bound):
    """Return g within ±bound; nan stays nan."""
    g = bound if g > bound else g
    return -bound if g < -bound else g


@kernel
def _divide(N, D, known, sound, safe, value, bottom, gap):
    """Write N / D, and where it is ⊥ or risky: known so, not finite, or beyond limits."""
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
def _pullback(g, N, D, bottom, bound, g_N, g_D):
    """Write dL/dN and dL/dD, bounded; 0 at ⊥."""
    zero = N.dtype.type(0)
    for i in range(N.shape[0]):
        number = bottom[i] == 0
        by_N, by_D = slopes(g[i], N[i], D[i])
        g_N[i] = bounded(by_N, bound) if number else zero
        g_D[i] = bounded(by_D, bound) if number else zero


def _over(run: Callable[..., Any], *tensors: Any) -> None:
    """Call `run` with parts of flat arrays; what is no tensor goes to each."""
    arrays = [array(x) if isinstance(x, Tensor) else x for x in tensors]

    def part(start: int, stop: int) -> None:
        run(*(x[start:stop] if isinstance(x, np.ndarray) else x for x in arrays))

    in_parts(part, tensors[0].numel())


def divide(
    N: Tensor,
    D: Tensor,
    bottom: Tensor | None,
    sound: tuple[float, float],
    safe: tuple[float, float] | None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return (N / D, ⊥, gap), nan at ⊥; arguments as in `division.quotients`."""
    value, lost = (empty(N.shape, kind) for kind in (N.dtype, torch.bool))
    gap = None if safe is None else empty(N.shape, torch.bool)
    limits = (tuple(map(np.float32, pair)) for pair in (sound, safe or sound))
    _over(_divide, N, D.expand(N.shape), bottom, *limits, value, lost, gap)
    return value, lost, gap


def pullback(g: Tensor, N: Tensor, D: Tensor, lost: Tensor, bound: float) -> tuple[Tensor, Tensor]:
    """Return dL/dN and dL/dD of tensors of one shape, 0 where N / D is `lost`."""
    found = empty(N.shape, N.dtype), empty(N.shape, N.dtype)
    _over(_pullback, g, N, D, lost, np.float32(bound), *found)
    return found
