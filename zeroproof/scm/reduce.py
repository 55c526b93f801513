"""Reductions over the values that are not ⊥, and the share of those."""

import torch
from torch import Tensor

from zeroproof.scm.value import SCM

__all__ = ["coverage", "masked_mean", "masked_sum"]

Dim = int | tuple[int, ...] | None


def _sum(x: Tensor, dim: Dim, keepdim: bool) -> Tensor:
    return x.sum() if dim is None and not keepdim else x.sum(_axes(x, dim), keepdim=keepdim)


def _axes(x: Tensor, dim: Dim) -> int | tuple[int, ...]:
    return tuple(range(x.ndim)) if dim is None else dim


def masked_sum(x: SCM, dim: Dim = None, *, keepdim: bool = False) -> SCM:
    """Sum the values that are not ⊥; over none of them the sum is 0.

    Unlike `x + y`, in which ⊥ absorbs, ⊥ is left out. A sum that overflows is ⊥.

    Args:
        x: Values of any shape.
        dim: Dimensions to reduce, all of them by default.
        keepdim: Keep reduced dimensions with size 1.

    Returns:
        Sums; no gradient reaches ⊥ entries, whatever the policy.

    Examples:
        >>> masked_sum(SCM(torch.tensor([1.0, float("nan"), 2.0]))).payload
        tensor(3.)
    """
    return SCM(_sum(torch.where(x.bottom, 0, x.payload), dim, keepdim))


def masked_mean(x: SCM, dim: Dim = None, *, keepdim: bool = False) -> SCM:
    """Average the values that are not ⊥; over none of them the mean is ⊥.

    Args:
        x: Values of any shape.
        dim: Dimensions to reduce, all of them by default.
        keepdim: Keep reduced dimensions with size 1.

    Returns:
        Means; no gradient reaches ⊥ entries, whatever the policy.

    Examples:
        >>> masked_mean(SCM(torch.tensor([[1.0, 3.0], [float("nan"), float("nan")]])), dim=1)
        SCM(payload=tensor([2., nan]), bottom=tensor([False,  True]))
    """
    count = _sum(~x.bottom, dim, keepdim)
    # divided before the sum: a mean of large values must not overflow where none of them does
    weight = _sum(~x.bottom, dim, keepdim=True).clamp(min=1).to(x.payload.dtype)
    return SCM(_sum(torch.where(x.bottom, 0, x.payload) / weight, dim, keepdim), count == 0)


def coverage(x: SCM, dim: Dim = None, *, keepdim: bool = False) -> Tensor:
    """Return the share of values that are not ⊥, in [0, 1]; nan over no value at all.

    It has no gradient; a soft coverage for training is in `zeroproof.losses.coverage`.

    Examples:
        >>> coverage(SCM(torch.tensor([1.0, float("nan")])))
        tensor(0.5000)
    """
    covered = (~x.bottom).to(torch.get_default_dtype())
    return covered.mean(_axes(covered, dim), keepdim=keepdim)
