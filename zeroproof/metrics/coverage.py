"""How many answers are finite, and how many of them are risky: counts that add up."""

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Share", "coverage_share", "gap_share", "rate"]


class Share(NamedTuple):
    """So many of so many; shares of several batches or ranks add up field by field.

    Attributes:
        hits: Entries that have the property, a whole number `()`.
        entries: Entries that could have it, a whole number `()`.
    """

    hits: Tensor
    entries: Tensor


def rate(share: Share) -> Tensor:
    """Return hits / entries, a scalar `()` in [0, 1]; nan where nothing was counted.

    Examples:
        >>> rate(coverage_share(torch.tensor([False, False, False, True])))
        tensor(0.7500)
    """
    return share.hits / share.entries


def coverage_share(bottom_mask: Tensor) -> Share:
    """Count the finite answers among all.

    Args:
        bottom_mask: True at ⊥, boolean of any shape; `strict_inference` gives one.

    Returns:
        Finite answers of all answers, whole numbers on the device of the mask.
    """
    return _share(~bottom_mask)


def gap_share(gap_mask: Tensor) -> Share:
    """Count the risky answers among all, ⊥ included: coverage minus this is the share of the safe.

    Args:
        gap_mask: True where an answer is finite but risky, boolean of any shape.

    Returns:
        Answers in the gap of all answers, whole numbers on the device of the mask.

    Examples:
        >>> gap_share(torch.tensor([[False, True]]))
        Share(hits=tensor(1), entries=tensor(2))
    """
    return _share(gap_mask)


def _share(mask: Tensor) -> Share:
    # a tensor, not an int, so that shares can be reduced over ranks; nothing is read by the host
    return Share(mask.sum(), mask.new_full((), mask.numel(), dtype=torch.long))
