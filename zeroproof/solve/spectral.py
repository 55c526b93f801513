"""Spectral readout: the projective head in closed form, an extreme singular vector."""

from collections.abc import Iterable
from typing import NamedTuple, Unpack

import torch
from torch import Tensor

from zeroproof.solve._algebra import condition
from zeroproof.solve._rows import Parts, re_iterable
from zeroproof.solve._sweeps import ReadoutOptions, checked_options, clearance_warning, sweep

__all__ = ["Readout", "ReadoutOptions", "spectral_readout", "streamed_readout"]


class Readout(NamedTuple):
    r"""A projective head in closed form: N = H_N a, D = H_D b.

    Attributes:
        a: Weights of N, `(k_N,)`, or `(k_N, m)` where the targets are `(n, m)`.
        b: Weights of D, `(k_D,)`, or `(k_D, 1)` if shared, `(k_D, m)` if not. The gauge is that
            of unit mean square of (N, D), the largest weight of b positive.
        objective: Weighted mean of the squared chordal distance, in [0, 1].
        rho: The ρ asked for.
        clearance: min\|p\| / median\|p\| over the rows, p the modulus of (N, D): near 0 where N
            and D have a common zero. Of separate denominators, the smallest.
        condition: Larger condition number of H_N and H_D (their factors are never inverted).
    """

    a: Tensor
    b: Tensor
    objective: float
    rho: float
    clearance: float
    condition: float


def spectral_readout(
    H_N: Tensor,
    Y_n: Tensor,
    Y_d: Tensor,
    *,
    H_D: Tensor | None = None,
    weight: Tensor | None = None,
    **options: Unpack[ReadoutOptions],
) -> Readout:
    r"""Solve for the projective head on given features: N = H_N a, D = H_D b.

    Formula: minimise (Σ w t² \|Y_d H_N a - Y_n H_D b\|² / Σw + ρ(‖a‖² + ‖b‖²)) over the mean of
    \|N\|² + \|D\|² (of \|D\|² where several outputs share D), with tuples of unit size and
    t = 1/‖(N, D)‖ of the sweep before (Sanathanan & Koerner, IEEE Trans. Autom. Control 8, 1963).
    Each sweep is the global optimum of its problem, the extreme singular vector of triangular
    factors, and no start is needed.

    Args:
        H_N: Features of N, `(n, k_N)`, real or complex.
        Y_n: Numerators of the targets, `(n,)` or `(n, m)`; a complex one makes a and b complex.
        Y_d: Denominators, the same shape, or `(n, 1)`. Lift targets as everywhere: finite y →
            ⟨y / s, 1⟩ with s the scale of y, ±inf → ⟨±1, 0⟩, nan → ⟨1, 0⟩. A row ⟨0, 0⟩ states
            nothing and is left out.
        H_D: Features of D, `(n, k_D)`, if they are not those of N.
        weight: Row weights, `(n,)`, at least 0; 2 is a row twice. (1 + (y / s)²)^p with p = 1
            suits noise in proportion to y.
        **options: See `ReadoutOptions`.

    Returns:
        A `Readout` on the device of H_N. The objective is computed on the rows given.

    Raises:
        ShapeError: Arguments that do not belong together.
        DataError: No row, a row that is not finite, or an output without a finite target.
        RangeError: A negative weight, or an option that is not legal.

    Warns:
        UserWarning: Fewer rows than weights, or N and D vanish together (raise ρ).

    Examples:
        >>> x = torch.linspace(-1, 1, 50, dtype=torch.float64)
        >>> H = torch.stack([torch.ones_like(x), x], 1)
        >>> fit = spectral_readout(H, torch.ones_like(x), x - 0.25)  # 1 / (x - 0.25)
        >>> print(f"pole at {-fit.b[0] / fit.b[1]:.6f}")
        pole at 0.250000
    """
    blocks = [(H_N, H_D, Y_n, Y_d, weight)]
    return _readout(blocks, options, distributed=False)


def streamed_readout(
    blocks: Iterable[Parts], *, distributed: bool = True, **options: Unpack[ReadoutOptions]
) -> Readout:
    """Solve for the projective head on rows that arrive in blocks, in O(k² + block) memory.

    The answer is that of `spectral_readout` on all rows together. The blocks are read once more
    than there are sweeps.

    Args:
        blocks: `(H_N, H_D, Y_n, Y_d)` or `(H_N, H_D, Y_n, Y_d, weight)`, as in `spectral_readout`;
            H_D may be None, and a block may have no row. They must come again in every sweep: a
            list, a DataLoader, any object with `__iter__`, but not a generator.
        distributed: Where `torch.distributed` is initialised (as under Accelerate), every process
            passes its own blocks, perhaps none; all have to call, and all get the same answer, on
            the CPU.
        **options: See `ReadoutOptions`.

    Raises:
        ShapeError, DataError, RangeError: As `spectral_readout`; also for a one-shot iterator.

    Examples:
        >>> x = torch.linspace(-1, 1, 50, dtype=torch.float64)
        >>> H = torch.stack([torch.ones_like(x), x], 1)
        >>> blocks = [(H[i::5], None, torch.ones(10), x[i::5] - 0.25) for i in range(5)]
        >>> fit = streamed_readout(blocks)
        >>> print(f"pole at {-fit.b[0] / fit.b[1]:.6f}")
        pole at 0.250000
    """
    return _readout(re_iterable(blocks), options, distributed=distributed)


def _readout(blocks: Iterable[Parts], options: ReadoutOptions, *, distributed: bool) -> Readout:
    settings = checked_options(options)
    flat, found = sweep(blocks, settings, distributed=distributed)
    a = torch.cat([each.a for each in found], 1)
    b = torch.cat([each.b for each in found], 1)
    clearance = min(each.clearance for each in found)
    clearance_warning(clearance)
    return Readout(
        a[:, 0] if flat else a,
        b[:, 0] if flat else b,
        sum(each.error for each in found) / len(found),
        settings.rho,
        clearance,
        max(condition(each.factors) for each in found),
    )
