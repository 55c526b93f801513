"""Decoding in compiled graphs: one loop, whose masks follow from the decoded value."""

import torch
from torch import Tensor

from zeroproof.autodiff.compiled import either, finite
from zeroproof.autodiff.masks import as_two_masks
from zeroproof.scm.division import divide

__all__ = ["traced_decoding"]


def traced_decoding(
    N: Tensor, D: Tensor, score: Tensor, tau_infer: float, tau_train: float, fixed: int = -1
) -> tuple[Tensor, Tensor, Tensor]:
    """Return (value, ⊥, gap) for real tuples and scores already computed."""
    # a quotient of anything else that is not finite, or by 0, is not finite itself
    value, _ = divide(N, D, either(~(score >= tau_infer), ~finite(D)), fixed)
    sound = finite(value.detach())
    flags = torch.where(sound, torch.where(score < tau_train, 2.0, 0.0), 1.0).to(torch.uint8)
    return value, *as_two_masks(flags)
