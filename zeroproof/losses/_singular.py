"""The sign loss of picked entries, and its derivative, written out for `_fused.py`.

Singular targets are few as a rule: to pick them costs less than to compute on all entries.
"""

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Picked", "sign_gradients", "sign_sum"]

Picked = tuple[Tensor, Tensor, Tensor, Tensor]  # finite N, D, Y_n, Y_d, `(n,)` each


class _Directions(NamedTuple):
    """Unit vectors of tuples and of their targets, and where either tuple is ⟨0, 0⟩, if any is."""

    n: Tensor
    d: Tensor
    y_n: Tensor
    y_d: Tensor
    size: Tensor  # a quarter of that of the tuples
    origin: Tensor | None


def _directions(tuples: Picked) -> _Directions:
    # a quarter: the length of two numbers at the end of the range is beyond it
    N, D = torch.stack(tuples[::2]).mul_(0.25), torch.stack(tuples[1::2]).mul_(0.25)
    size, origin = torch.hypot(N, D), None
    if size.amin().item() == 0:
        origin = size == 0
        size.masked_fill_(origin, 1)
        origin = origin.any(0)
    (n, y_n), (d, y_d) = N.div_(size).unbind(), D.div_(size).unbind()
    return _Directions(n, d, y_n, y_d, size[0], origin)


def sign_sum(tuples: Picked, variant: str) -> float:
    """Return the sum of the losses."""
    towards = _directions(tuples)
    if variant == "angle":
        angle = _angle(towards)
        return torch.dot(angle, angle).item() / 2
    n, d, y_n, y_d, _, origin = towards
    across, along = n.sub_(y_n), d.sub_(y_d)
    if origin is not None:  # as much as a right angle
        across.masked_fill_(origin, 1)
        along.masked_fill_(origin, 1)
    return (torch.dot(across, across) + torch.dot(along, along)).item() / 2


def _angle(towards: _Directions) -> Tensor:
    n, d, y_n, y_d, _, origin = towards
    along = torch.mul(n, y_n).addcmul_(d, y_d)
    across = torch.mul(n, y_d).addcmul_(d, y_n, value=-1)
    if origin is not None:
        along.masked_fill_(origin, 0)
        across.masked_fill_(origin, 1)
    return torch.atan2(across, along)


def sign_gradients(tuples: Picked, variant: str, factor: float) -> tuple[Tensor, Tensor]:
    r"""Return `factor` times the derivatives of the losses by N and D.

    Formula: h·(D, -N) / \|(N, D)\|², where h is the sine of the angle, or the angle itself.
    """
    towards = _directions(tuples)
    n, d, y_n, y_d, size, origin = towards
    turn = torch.mul(n, y_d).addcmul_(d, y_n, value=-1) if variant == "cosine" else _angle(towards)
    if origin is not None:
        turn.masked_fill_(origin, 0)
    turn.mul_(factor / 4).div_(size)
    return d.mul_(turn), n.mul_(turn.neg_())
