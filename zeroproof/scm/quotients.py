"""N / D with masks in eager mode on a CPU: chunk by chunk, so that a chunk stays in the cache.

A chunk in which reductions find nothing to be ⊥ or risky is ready after the division. Elsewhere
comparisons write numbers, in place: torch writes truth values several times slower.
"""

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zeroproof.autodiff.eager import any_true, chunk_size, chunks, ordinary, surely_finite
from zeroproof.autodiff.gate import Ruling, rule
from zeroproof.native.door import native
from zeroproof.scm.operation import Operation, pull

__all__ = ["DIVISION", "NO_LIMITS", "Limits", "divisible", "quotients"]


def _pullback(g: Tensor, N: Tensor, D: Tensor) -> tuple[Tensor, Tensor]:
    # not by D², which underflows; and g with N / D first, which is finite: no inf meets a 0
    return g / D.conj(), -(g * (N / D).conj()) / D.conj()


MANY = 4096  # entries from which on a native kernel is the quicker one
DIVISION = Operation(torch.div, _pullback, safe=(0, 1), partial=True)  # 1 cannot overflow


class Limits(NamedTuple):
    """Which quotients are ⊥ though finite, and which are risky."""

    of: str = ""  # "D": its modulus must reach them; "quotient": its modulus must not exceed them
    bottom: float = 0.0
    gap: float | None = None  # without it, nobody asks

    def pair(self, limit: float) -> tuple[float, float]:
        r"""Return the least \|D\| and the largest \|N / D\| that a limit allows."""
        return (limit if self.of == "D" else 0.0), (limit if self.of == "quotient" else math.inf)


NO_LIMITS = Limits()


def divisible(N: Tensor, D: Tensor) -> bool:
    """Tell whether `quotients` takes these: equal shapes, or one D for each row of N."""
    if N.shape != D.shape and (N.ndim != D.ndim or D.shape != (*N.shape[:-1], 1)):
        return False
    return ordinary(N, D) and N.numel() > 0


def quotients(
    N: Tensor, D: Tensor, limits: Limits = NO_LIMITS, bottom: Tensor | None = None, fixed: int = -1
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return (N / D, ⊥, gap) of what is `divisible`; the policy acts on dL/dN and dL/dD.

    Args:
        N: Numerators.
        D: Denominators.
        limits: On D or on the quotients; without any, ⊥ is where N / D or D is not finite.
        bottom: Further ⊥ entries, in the shape of N.
        fixed: Policy code of a layer, -1 to follow the context while backward runs.
    """
    if torch.is_grad_enabled() and (N.requires_grad or D.requires_grad):
        return _Quotients.apply(N, D, limits, bottom, fixed)
    return _forward(N, D, limits, bottom, chunk_size())[:3]


class _Quotients(torch.autograd.Function):
    # `setup_context` is left out: with it, torch inspects a signature at every call
    @staticmethod
    def forward(
        ctx: Any, N: Tensor, D: Tensor, limits: Limits, bottom: Tensor | None, fixed: int
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        ctx.step, ctx.fixed = chunk_size(), fixed
        value, lost, gap, ctx.clean = _forward(N, D, limits, bottom, ctx.step)
        ctx.save_for_backward(N, D, None if ctx.clean and all(ctx.clean) else lost)
        ctx.mark_non_differentiable(*(x for x in (lost, gap) if x is not None))
        ctx.set_materialize_grads(False)  # those of the masks
        return value, lost, gap

    @staticmethod
    def backward(ctx: Any, g: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        if g is None:
            return (None,) * 5
        N, D, lost = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:2]
        if torch.is_grad_enabled() or not ordinary(g):
            found = pull(DIVISION, g, lost, (N, D), ctx.fixed)
            found = (x if want else None for x, want in zip(found, wanted, strict=True))
        else:
            found = _backward((N, D, g, lost), wanted, rule(g, ctx.fixed), ctx)
        return (*found, None, None, None)


def _forward(
    N: Tensor, D: Tensor, limits: Limits, bottom: Tensor | None, step: int
) -> tuple[Tensor, Tensor, Tensor | None, list[bool]]:
    """Return (value, ⊥, gap), and which chunks are free of ⊥: nothing where nobody looked."""
    kernels = native("division", N, D) if N.numel() >= MANY else None
    if kernels is not None:
        safe = None if limits.gap is None else limits.pair(limits.gap)
        return *kernels.forward(N, D, bottom, limits.pair(limits.bottom), safe), []
    whole = N.numel() <= step
    value = torch.div(N, D) if whole else _empty(N)
    lost = torch.zeros_like(value, dtype=torch.bool)
    gap = None if limits.gap is None else torch.zeros_like(lost)
    if whole:
        return value, lost, gap, [_settle(limits, N, D, bottom, value, lost, gap)]
    clean = []
    for n, d, known, out, *masks in chunks(step, D.numel(), N, D, bottom, value, lost, gap):
        torch.div(n, d, out=out)
        clean.append(_settle(limits, n, d, known, out, *masks))
    return value, lost, gap, clean


def _settle(
    limits: Limits,
    N: Tensor,
    D: Tensor,
    known: Tensor | None,
    value: Tensor,
    lost: Tensor,
    gap: Tensor | None,
) -> bool:
    """Make N / D nan at ⊥, write into the masks what is true; return whether surely none is."""
    size = torch.abs(D if limits.of == "D" else value) if limits.of else None
    marks = known if known is not None and any_true(known) else None
    if marks is None and _within(size, limits) and _surely_sound(value, D):
        return True
    if size is not None:
        if gap is not None and limits.gap is not None:
            beyond = torch.lt if limits.of == "D" else torch.gt
            gap.copy_(beyond(size, limits.gap, out=torch.empty_like(size)))
        # 1 or 0, by which the quotient is divided: 1 changes nothing, 0 leaves no finite number
        value.div_(size.ge_(limits.bottom) if limits.of == "D" else size.le_(limits.bottom))
    if not surely_finite(D):  # N / inf is 0
        value.sub_(D - D)
    spoilt = value - value  # 0 or nan
    value.sub_(spoilt)  # not added: -0 - 0 is -0
    lost.copy_(spoilt)
    if marks is not None:
        lost.logical_or_(marks)
        value.masked_fill_(marks, math.nan)
    if gap is not None:
        gap.bitwise_and_(~lost)
    # without limits something is, unless a sum overflowed: not worth another look
    return size is not None and marks is None and not any_true(lost)


def _surely_sound(value: Tensor, D: Tensor) -> bool:
    """Tell that quotients and denominators are finite: 0 · inf is not, nor is a sum with it."""
    if value.ndim == 1 and value.shape == D.shape:
        return math.isfinite(torch.dot(value, D).item())
    return surely_finite(value) and surely_finite(D)


def _within(size: Tensor | None, limits: Limits) -> bool:
    """Tell whether no entry is ⊥ or in the gap for its size."""
    if size is None:
        return True
    limit = limits.bottom if limits.gap is None else limits.gap
    return size.amin().item() >= limit if limits.of == "D" else size.amax().item() <= limit


def _backward(
    tensors: tuple[Tensor, Tensor, Tensor, Tensor | None],
    wanted: tuple[bool, bool],
    ruling: Ruling,
    ctx: Any,
) -> tuple[Tensor | None, Tensor | None]:
    N, D, g, lost = tensors
    if ruling.closed:
        return _where_wanted(torch.zeros_like, N, D, wanted)
    dense = lost is not None and ruling.masked and N.shape == D.shape and N.numel() >= MANY
    kernels = native("division", g, N, D) if dense else None
    if kernels is not None:
        return kernels.backward(g, N, D, lost, ruling)
    if N.numel() <= ctx.step:
        return _pull(N, D, g, lost if ruling.masked else None, wanted, ruling.bound)
    g_N, g_D = _where_wanted(_empty, N, D, wanted)
    parts = chunks(ctx.step, D.numel(), N, D, g, lost, g_N, g_D)
    free = ctx.clean or itertools.repeat(False)
    for (n, d, slope, mask, to_N, to_D), clean in zip(parts, free, strict=False):
        kept = None if clean or not ruling.masked else mask
        _pull(n, d, slope, kept, wanted, ruling.bound, to_N, to_D)
    return g_N, g_D


def _where_wanted(
    make: Callable[[Tensor], Tensor], N: Tensor, D: Tensor, wanted: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    return make(N) if wanted[0] else None, make(D) if wanted[1] else None


def _empty(x: Tensor) -> Tensor:
    return x.new_empty(x.shape)  # contiguous, so that chunks of it are views


def _pull(
    N: Tensor,
    D: Tensor,
    g: Tensor,
    mask: Tensor | None,
    wanted: tuple[bool, bool],
    bound: float,
    to_N: Tensor | None = None,
    to_D: Tensor | None = None,
) -> tuple[Tensor | None, Tensor | None]:
    g_N = g_D = None
    if wanted[0]:
        g_N = torch.div(g, D, out=to_N)
        if mask is not None:
            g_N.masked_fill_(mask, 0)
        if bound < math.inf:
            g_N.clamp_(-bound, bound)
    if wanted[1]:
        shared = D.shape != N.shape
        g_D = torch.div(N, D, out=None if shared else to_D).mul_(g).div_(D).neg_()
        if mask is not None:
            g_D.masked_fill_(mask, 0)
        if shared:
            g_D = torch.sum(g_D, -1, keepdim=True, out=to_D)
        if bound < math.inf:
            g_D.clamp_(-bound, bound)
    return g_N, g_D
