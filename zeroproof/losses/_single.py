"""A loss of one part by native kernels, weighted or masked, as a mean or as a sum."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zeroproof.autodiff.eager import ordinary
from zeroproof.autodiff.gate import rule
from zeroproof.losses._chunks import Recipe, usual
from zeroproof.losses._fused import fusible, recorded, scalar
from zeroproof.losses._reduction import Counting
from zeroproof.native.door import native

__all__ = ["NOTHING", "single"]

Tuples = tuple[Tensor, Tensor, Tensor, Tensor]
NOTHING = Recipe(
    normalizer="none",
    gamma=0.0,
    tau=1.0,
    relative=False,
    score="denominator",
    scale=1.0,
    temperature=1.0,
    tau_sing=1.0,
    sign_variant="cosine",
    margin=False,
    sign=False,
    coverage=False,
)
_PARTS = ("fit", "margin", "sign")


class _Task(NamedTuple):
    """One part of the combined loss; `plain` is the same by operations that autograd records."""

    part: str
    recipe: Recipe
    plain: Callable[[Tensor, Tensor], Tensor]
    masks: bool  # whether ⟨0, 0⟩ is ⊥ to the policy
    largest: float | None  # of the weights, for a sum; None for a mean


def single(
    part: str,
    tuples: Tuples,
    recipe: Recipe,
    plain: Callable[[Tensor, Tensor], Tensor],
    counting: Counting,
    *,
    masks: bool = True,
) -> Tensor:
    """Return a loss, by native kernels where they can stand in for `plain`.

    Args:
        part: `"fit"`, `"margin"` or `"sign"`.
        tuples: N, D, Y_n and Y_d in at least float32; any of them may stand in for what `part`
            does not look at.
        recipe: `NOTHING` with the options of that part.
        plain: The loss of N and D by plain operations; it also raises what is to be raised.
        counting: Weight, mask and reduction.
        masks: Whether the policy masks gradients at ⟨0, 0⟩.
    """
    N, D, *_ = tuples
    reduction, weight = counting.get("reduction", "mean"), counting.get("weight")
    mask = counting.get("mask")
    known = reduction in {"mean", "sum"} and set(counting) <= Counting.__annotations__.keys()
    if not known or not usual(recipe) or not fusible(tuples, mask):
        return plain(N, D)
    kernels = native("losses", *tuples)
    if kernels is None or not (weight is None or _weighs(weight, N)):
        return plain(N, D)
    counts, largest = _counts(weight, mask)
    task = _Task(part, recipe, plain, masks, largest if reduction == "sum" else None)
    return _Single.apply(*tuples, counts, task, kernels)


def _weighs(weight: Tensor, N: Tensor) -> bool:
    """Tell whether a weight is as plain as the tuples, and of their shape or that of rows."""
    narrow = (*N.shape[:-1], 1) if N.ndim > 1 else N.shape
    fits = weight.shape in (N.shape, narrow) and not weight.requires_grad
    return fits and weight.is_floating_point() and ordinary(weight.double())


def _counts(weight: Tensor | None, mask: Tensor | None) -> tuple[Tensor | None, float]:
    """Return the weights that count, of which the largest is 1, and what they were divided by."""
    if weight is None:
        return (None if mask is None else mask.double()), 1.0
    counts = weight.double()
    counts = torch.where(torch.isfinite(counts) & (counts >= 0), counts, 0)
    if mask is not None:
        counts = counts * mask
    largest = counts.amax().item()
    return counts / (largest or 1.0), largest


class _Single(torch.autograd.Function):
    # `setup_context` is left out: with it, torch inspects a signature at every call
    @staticmethod
    def forward(
        ctx: Any,
        N: Tensor,
        D: Tensor,
        Y_n: Tensor,
        Y_d: Tensor,
        counts: Tensor | None,
        task: _Task,
        kernels: Any,
    ) -> Tensor:
        tuples = (N, D, Y_n, Y_d)
        place = 2 * _PARTS.index(task.part)
        total, weight = kernels.sums(tuples, None, task.recipe, counts)[place : place + 2]
        ctx.share = (1 / weight if weight else 0.0) if task.largest is None else task.largest
        ctx.task = task
        ctx.save_for_backward(*tuples, counts)
        return scalar(total * ctx.share, N)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        *tuples, counts = ctx.saved_tensors
        task: _Task = ctx.task
        kernels = native("losses", *tuples)
        # a gradient of gradients, or many at once, needs operations that autograd knows
        if kernels is None or torch.is_grad_enabled() or not ordinary(g):
            found = recorded(task.plain, tuples[0], tuples[1], g)
        else:
            ruling = rule(g, -1)
            slopes = [0.0] * 4
            slopes[_PARTS.index(task.part)] = 0.0 if ruling.closed else g.item() * ctx.share
            masked = bool(ruling.masked) and task.masks
            found = kernels.gradients(
                tuple(tuples), None, task.recipe, (*slopes, ruling.bound), masked, counts
            )
        wanted = zip(found, ctx.needs_input_grad, strict=False)
        return (*(x if want else None for x, want in wanted), None, None, None, None, None)
