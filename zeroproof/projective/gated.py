"""Tuples under the policy that is registered on a layer."""

import torch
from torch import Tensor

from zeroproof.autodiff.gate import gate
from zeroproof.projective.pair import Pair

__all__ = ["gated"]


def gated(N: Tensor, D: Tensor, fixed: int) -> Pair:
    """Let the policy registered on a layer act on dL/dN and dL/dD; without one they pass.

    A tuple is ⊥ where it is ⟨0, 0⟩ or not finite; ⟨±1, 0⟩ is an ordinary point at infinity.
    """
    if fixed < 0:
        return Pair(N, D)
    bottom = ((N == 0) & (D == 0)) | ~torch.isfinite(N) | ~torch.isfinite(D)
    return Pair(*gate(N, D, bottom, fixed))
