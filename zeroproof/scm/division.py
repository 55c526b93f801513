"""N / D with an explicit ⊥: the one division that every room uses."""

import torch
from torch import Tensor

from zeroproof.scm.operation import Operation, evaluate

__all__ = ["divide"]


def _pullback(g: Tensor, N: Tensor, D: Tensor) -> tuple[Tensor, Tensor]:
    # not by D², which underflows; and g with N / D first, which is finite: no inf meets a 0
    return g / D.conj(), -(g * (N / D).conj()) / D.conj()


_DIVISION = Operation(torch.div, _pullback, safe=(0, 1), partial=True)  # 1 cannot overflow


def divide(N: Tensor, D: Tensor, bottom: Tensor, fixed: int = -1) -> tuple[Tensor, Tensor]:
    """Divide where `bottom` is false; the policy acts on dL/dN and dL/dD.

    Formula: value = N / D, nan at ⊥. A quotient that overflows is ⊥ too.

    Args:
        N: Numerators.
        D: Denominators, broadcastable with N.
        bottom: True where the answer is ⊥ whatever N / D gives; must hold wherever D is 0 or an
            operand is not finite. It has the broadcast shape.
        fixed: Policy code of a layer, -1 to follow the context while backward runs.

    Returns:
        (value, bottom) in the broadcast shape.
    """
    return evaluate(_DIVISION, bottom, N, D, fixed=fixed)
