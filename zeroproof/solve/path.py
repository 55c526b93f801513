"""The whole path of the penalty ρ from one factorisation, and its choice on held-out rows."""

from collections.abc import Sequence
from typing import NamedTuple, Unpack

import torch
from torch import Tensor

from zeroproof._checks import positive
from zeroproof.errors import DataError, RangeError
from zeroproof.projective.angle import chordal_distance
from zeroproof.solve.spectral import (
    Block,
    Factors,
    ReadoutOptions,
    RowIndex,
    Settings,
    checked_options,
    checked_spec,
    path_pairs,
    slices,
    sweep,
)

__all__ = ["RHOS", "ReadoutPath", "RhoChoice", "choose_rho", "readout_path"]

RHOS = tuple(10.0**-exponent for exponent in range(0, 34, 2))  # below, float64 resolves nothing


class ReadoutPath(NamedTuple):
    """Projective heads along ρ: N = H_N a[i], D = H_D b[i].

    Attributes:
        rhos: ρ, largest first.
        a: Weights of N, `(r, k_N)`, or `(r, k_N, m)` where the targets are `(n, m)`.
        b: Weights of D, `(r, k_D)` or `(r, k_D, 1)`; the gauge is that of `Readout`.
    """

    rhos: tuple[float, ...]
    a: Tensor
    b: Tensor


class RhoChoice(NamedTuple):
    """ρ chosen on held-out rows.

    Attributes:
        rho: The best of `rhos`.
        error: Its weighted mean squared chordal distance on the held-out rows.
        rhos: All that were tried, largest first.
        errors: The held-out error of each.
    """

    rho: float
    error: float
    rhos: tuple[float, ...]
    errors: tuple[float, ...]


def readout_path(
    H_N: Tensor,
    Y_n: Tensor,
    Y_d: Tensor,
    *,
    H_D: Tensor | None = None,
    weight: Tensor | None = None,
    rhos: Sequence[float] = RHOS,
    **options: Unpack[ReadoutOptions],
) -> ReadoutPath:
    """Solve for the projective head at many ρ, after one factorisation of the rows.

    The sweeps run at one pilot, the option `rho`; its weights 1/‖(N, D)‖ serve the whole path, and
    each ρ costs six steps of inverse iteration, warm from the larger ρ before. Outputs share one
    denominator; call once for each output otherwise.

    Args:
        H_N: Features of N, `(n, k_N)`.
        Y_n: Numerators of the targets, `(n,)` or `(n, m)`.
        Y_d: Denominators of the targets, the same shape or `(n, 1)`.
        H_D: Features of D, if they are not those of N.
        weight: Row weights, `(n,)`.
        rhos: ρ in any order.
        **options: See `ReadoutOptions`; `rho` is the pilot.

    Returns:
        A `ReadoutPath`.

    Raises:
        ShapeError, DataError: As `spectral_readout`.
        RangeError: As `spectral_readout`; also separate denominators, or no ρ.

    Examples:
        >>> x = torch.linspace(-1, 1, 50, dtype=torch.float64)
        >>> H = torch.stack([torch.ones_like(x), x], 1)
        >>> path = readout_path(H, torch.ones_like(x), x - 0.25)
        >>> path.b.shape
        torch.Size([17, 2])
    """
    settings, ordered = _checked(options, rhos)
    flat, (found,) = sweep([(H_N, H_D, Y_n, Y_d, weight)], settings)
    return _path(found.factors, ordered, flat=flat)


def choose_rho(
    H_N: Tensor,
    Y_n: Tensor,
    Y_d: Tensor,
    train: RowIndex,
    held: RowIndex,
    *,
    H_D: Tensor | None = None,
    weight: Tensor | None = None,
    rhos: Sequence[float] = RHOS,
    **options: Unpack[ReadoutOptions],
) -> RhoChoice:
    """Choose ρ by the chordal error on held-out rows.

    One path with all rows alike, then one with the weights 1/‖(N, D)‖ of the best ρ. Refit on all
    rows with it: `spectral_readout(..., rho=choice.rho)`.

    Args:
        H_N: Features of N, `(n, k_N)`.
        Y_n: Numerators of the targets, `(n,)` or `(n, m)`.
        Y_d: Denominators of the targets, the same shape or `(n, 1)`.
        train: Rows to fit: a slice, a boolean mask or indices.
        held: Rows to choose on; at least one, of weight above 0.
        H_D: Features of D, if they are not those of N.
        weight: Row weights, `(n,)`.
        rhos: ρ to try.
        **options: See `ReadoutOptions`; `rho` is the first pilot.

    Returns:
        A `RhoChoice`.

    Raises:
        ShapeError, DataError, RangeError: As `readout_path`; DataError also for no held-out row.

    Examples:
        >>> x = torch.rand(100, dtype=torch.float64) * 2 - 1
        >>> H = torch.stack([torch.ones_like(x), x], 1)
        >>> choice = choose_rho(H, torch.ones_like(x), x - 2, slice(0, 80), slice(80, None))
        >>> choice.error < 1e-28
        True
    """
    settings, ordered = _checked(options, rhos)
    block = Block(H_N, H_D, Y_n, Y_d, weight)
    checked_spec(block)
    fit, test = block.cut(train), block.cut(held)
    errors: list[float] = []
    # at first all rows weigh alike: a pilot that is too small for noisy rows would ruin the weights
    for sweeps in (1, settings.sweeps):
        _, (found,) = sweep([fit], settings._replace(sweeps=sweeps))
        path = _path(found.factors, ordered, flat=False)
        errors = _errors(path, test, settings)
        best = min(range(len(ordered)), key=errors.__getitem__)
        settings = settings._replace(rho=ordered[best])
    return RhoChoice(settings.rho, min(errors), ordered, tuple(errors))


def _checked(options: ReadoutOptions, rhos: Sequence[float]) -> tuple[Settings, tuple[float, ...]]:
    settings = checked_options(options)
    if not settings.shared_denominator:
        raise RangeError("a path has one shared denominator; call once for each output instead")
    if not len(rhos):
        raise RangeError("rhos must hold at least one value, got none")
    return settings, tuple(sorted((positive(rho, "rho") for rho in rhos), reverse=True))


@torch.no_grad()
def _path(factors: Factors, rhos: tuple[float, ...], *, flat: bool) -> ReadoutPath:
    a, b = (torch.stack(z) for z in zip(*path_pairs(factors, rhos), strict=True))
    return ReadoutPath(rhos, a[..., 0] if flat else a, b[..., 0] if flat else b)


@torch.no_grad()
def _errors(path: ReadoutPath, block: Block, settings: Settings) -> list[float]:
    errors, weights = torch.zeros(len(path.rhos), dtype=torch.float64), 0.0
    for _, rows in slices([block], settings.dtype, check=True):
        for i, (a, b) in enumerate(zip(path.a, path.b, strict=True)):
            N, D = rows.H_N @ a, rows.H_D @ b
            chordal = chordal_distance(N, D, rows.Y_n, rows.Y_d).square()
            errors[i] += (rows.weight * chordal).sum().item()
        weights += rows.weight.sum().item()
    if not weights > 0:
        raise DataError("held must pick a row with weight above 0, got none")
    return (errors / weights).tolist()
