"""N / D with an explicit ⊥: the one division that every room uses."""

from torch import Tensor

from zeroproof.autodiff.compiled import compiling
from zeroproof.scm.operation import evaluate
from zeroproof.scm.quotients import DIVISION, divisible, quotients

__all__ = ["divide"]


def divide(N: Tensor, D: Tensor, bottom: Tensor, fixed: int = -1) -> tuple[Tensor, Tensor]:
    """Divide where `bottom` is false; the policy acts on dL/dN and dL/dD.

    Formula: value = N / D, nan at ⊥. A quotient that overflows is ⊥ too, and so is one by 0.

    Args:
        N: Numerators.
        D: Denominators, broadcastable with N.
        bottom: True where the answer is ⊥ whatever N / D gives; must hold wherever an operand is
            not finite. It has the broadcast shape.
        fixed: Policy code of a layer, -1 to follow the context while backward runs.

    Returns:
        (value, bottom) in the broadcast shape.
    """
    if N.shape == bottom.shape and divisible(N, D):
        value, lost, _ = quotients(N, D, bottom=bottom, fixed=fixed)
        return value, lost
    if not compiling():  # there a quotient is looked at in any case, and one by 0 is not finite
        bottom = bottom | (D == 0)
    return evaluate(DIVISION, bottom, N, D, fixed=fixed)
