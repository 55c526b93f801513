"""Division by native kernels: from tensors to arrays and back."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from zeroproof.autodiff.gate import Ruling
from zeroproof.native import _division_kernels as kernels
from zeroproof.native.door import array, empty, in_parts

__all__ = ["backward", "forward"]


def _flat(*tensors: Tensor | None) -> list[Any]:
    return [None if x is None else array(x) for x in tensors]


def _cut(arrays: list[Any], start: int, stop: int) -> list[Any]:
    return [None if x is None else x[start:stop] for x in arrays]


def _limits(least: float, most: float) -> tuple[np.float32, np.float32]:
    return np.float32(least), np.float32(most)


def forward(
    N: Tensor,
    D: Tensor,
    bottom: Tensor | None,
    sound: tuple[float, float],
    safe: tuple[float, float] | None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    r"""Return (N / D, ⊥, gap), nan at ⊥; no gap without `safe`.

    Args:
        N: Numerators.
        D: Denominators, the same shape, or one for each row.
        bottom: Further ⊥ entries, in the shape of N.
        sound: The least \|D\| and the largest \|N / D\| that are not ⊥.
        safe: Those that are not in the gap.
    """
    value, lost = (empty(N.shape, kind) for kind in (N.dtype, torch.bool))
    gap = None if safe is None else empty(N.shape, torch.bool)
    given, out = _flat(N, D.expand(N.shape), bottom), _flat(value, lost, gap)
    limits = _limits(*sound), _limits(*(safe or sound))

    def run(*part: int) -> None:
        kernels.divide(*_cut(given, *part), *limits, *_cut(out, *part))

    in_parts(run, N.numel())
    return value, lost, gap


def backward(
    g: Tensor, N: Tensor, D: Tensor, lost: Tensor, ruling: Ruling
) -> tuple[Tensor, Tensor]:
    """Return dL/dN and dL/dD of tensors of one shape, under a policy that masks ⊥."""
    found = empty(N.shape, N.dtype), empty(N.shape, N.dtype)
    bound = np.float32(ruling.bound)
    given, out = _flat(g, N, D, lost), _flat(*found)

    def run(*part: int) -> None:
        kernels.pullback(*_cut(given, *part), bound, *_cut(out, *part))

    in_parts(run, N.numel())
    return found
