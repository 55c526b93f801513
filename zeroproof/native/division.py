"""Division and decoding by native kernels: from tensors to arrays and back."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from zeroproof.autodiff.gate import Ruling
from zeroproof.native import _division_kernels as kernels
from zeroproof.native.door import array, in_parts

__all__ = ["backward", "decode", "forward"]


def _flat(*tensors: Tensor | None) -> list[Any]:
    return [None if x is None else array(x) for x in tensors]


def _cut(arrays: list[Any], start: int, stop: int) -> list[Any]:
    return [None if x is None else x[start:stop] for x in arrays]


def forward(N: Tensor, D: Tensor, known: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return (N / D, ⊥), nan at ⊥, of tensors of one shape; `known` marks further ⊥ entries."""
    value, bottom = torch.empty(N.shape), torch.empty(N.shape, dtype=torch.bool)
    arrays = _flat(N, D, known, value, bottom)
    in_parts(lambda *part: kernels.divide(*_cut(arrays, *part)), N.numel())
    return value, bottom


def backward(
    g: Tensor, N: Tensor, D: Tensor, bottom: Tensor, ruling: Ruling
) -> tuple[Tensor, Tensor]:
    """Return dL/dN and dL/dD of tensors of one shape, under a policy that masks ⊥."""
    if ruling.closed:
        return torch.zeros_like(N), torch.zeros_like(D)
    found, bound = (torch.empty(N.shape), torch.empty(N.shape)), np.float32(ruling.bound)
    arrays, out = _flat(g, N, D, bottom), _flat(*found)

    def run(*part: int) -> None:
        kernels.pullback(*_cut(arrays, *part), bound, *_cut(out, *part))

    in_parts(run, N.numel())
    return found


def decode(
    N: Tensor,
    D: Tensor,
    known: Tensor | None,
    thresholds: tuple[float, float],
    scale: float | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return (N / D, ⊥, gap).

    Args:
        N: Numerators, `(*batch, k)`.
        D: Denominators, the same shape or `(*batch, 1)`.
        known: Where further entries are ⊥, broadcastable with N.
        thresholds: τ_infer and τ_train.
        scale: Of the angle score; `None` for the modulus of D.
    """
    value, bottom, gap = (
        torch.empty(N.shape, dtype=kind) for kind in (N.dtype, torch.bool, torch.bool)
    )
    known = None if known is None else known.expand(N.shape)
    arrays, out = _flat(N, D.expand(N.shape), known), _flat(value, bottom, gap)
    taus = map(np.float32, thresholds)
    options = (*taus, None if scale is None else float(scale))

    def run(*part: int) -> None:
        kernels.decode(*_cut(arrays, *part), *options, *_cut(out, *part))

    in_parts(run, N.numel())
    return value, bottom, gap
