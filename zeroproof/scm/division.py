"""N / D with an explicit ⊥: the one division that every room uses.

Numba's loops take ordinary float32 tensors in eager mode; everything else goes through
`operation.evaluate`. Both run `slopes`.
"""

import math
from typing import Any

import torch
from torch import Tensor

from zeroproof.autodiff.compiled import compiling
from zeroproof.autodiff.policies import rule, scoped
from zeroproof.autodiff.trace import note
from zeroproof.native import loops_for, ordinary
from zeroproof.scm.operation import Operation, evaluate, pull

__all__ = ["divide", "divisible", "quotients", "slopes"]

conj = torch.conj  # `division_loops` has its twin for numbers


def slopes(g, N, D):  # pyright: ignore[reportMissingParameterType] - of tensors or of numbers
    """Return dL/dN and dL/dD for g = dL/d(N / D)."""
    # not by D², which underflows; and g with N / D first, which is finite: no inf meets a 0
    return g / conj(D), -(g * conj(N / D)) / conj(D)


_DIVISION = Operation(torch.div, slopes, safe=(0, 1), partial=True)  # 1 cannot overflow


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
    found = quotients(N, D, bottom, fixed=fixed) if N.shape == bottom.shape else None
    if found is not None:
        return found[:2]
    if not compiling():  # there a quotient is looked at in any case, and one by 0 is not finite
        bottom = bottom | (D == 0)
    return evaluate(_DIVISION, bottom, N, D, fixed=fixed)


def _paired(N: Tensor, D: Tensor) -> bool:
    """Tell whether shapes are equal, or D has one entry for each row of N; and not empty."""
    if N.shape != D.shape and (N.ndim != D.ndim or D.shape != (*N.shape[:-1], 1)):
        return False
    return N.numel() > 0


def divisible(N: Tensor, D: Tensor) -> bool:
    """Tell whether tuples have values that may be looked at, and shapes that belong together."""
    return _paired(N, D) and ordinary(N, D)


def quotients(
    N: Tensor,
    D: Tensor,
    bottom: Tensor | None = None,
    sound: tuple[float, float] = (0.0, math.inf),
    safe: tuple[float, float] | None = None,
    fixed: int = -1,
) -> tuple[Tensor, Tensor, Tensor | None] | None:
    r"""Return (N / D, ⊥, gap) by Numba's loops; `None` where they do not serve.

    Args:
        N: Numerators.
        D: Denominators, in the shape of N or one for each row.
        bottom: Further ⊥ entries, in the shape of N. N / D is ⊥ too where it or D is not finite.
        sound: The least \|D\| and the largest \|N / D\| that are not ⊥.
        safe: Those that are not in the gap; no gap without them.
        fixed: Policy code of a layer, -1 to follow the context while backward runs.
    """
    loops = loops_for("scm.division_loops", N, D) if _paired(N, D) else None
    if loops is None:
        return None
    if torch.is_grad_enabled() and (N.requires_grad or D.requires_grad):
        found = _Quotients.apply(N, D, (loops, bottom, sound, safe), scoped(fixed))
    else:
        found = loops.divide(N, D, bottom, sound, safe)
    note(found[0], N, D)
    return found


class _Quotients(torch.autograd.Function):
    # `setup_context` is left out: with it, torch inspects a signature at every call
    @staticmethod
    def forward(
        ctx: Any, N: Tensor, D: Tensor, how: tuple[Any, ...], fixed: int
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        loops, *given = how
        value, lost, gap = loops.divide(N, D, *given)
        ctx.fixed = fixed
        ctx.save_for_backward(N, D, lost)
        ctx.mark_non_differentiable(*(x for x in (lost, gap) if x is not None))
        ctx.set_materialize_grads(False)  # those of the masks
        return value, lost, gap

    @staticmethod
    def backward(ctx: Any, g: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        if g is None:
            return (None,) * 4
        N, D, lost = ctx.saved_tensors
        # a gradient of gradients needs operations that record; what is raw, plain ones
        plain = torch.is_grad_enabled() or N.shape != D.shape
        loops = None if plain else loops_for("scm.division_loops", g, N, D)
        if loops and (ruling := rule(g, ctx.fixed)).masked and not ruling.closed:
            found = loops.pullback(g, N, D, lost, ruling.bound)
        else:
            found = pull(_DIVISION, g, lost, (N, D), ctx.fixed)
        wanted = zip(found, ctx.needs_input_grad[:2], strict=True)
        return (*(x if want else None for x, want in wanted), None, None)
