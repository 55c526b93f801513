"""One autograd function for every operation: total forward, gradient policy in backward."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zeroproof.autodiff.compiled import compiling, either, finite
from zeroproof.autodiff.gate import Ruling, gating, rule, shielded, submit

__all__ = ["Operation", "evaluate"]


class Operation(NamedTuple):
    """An elementwise operation: its value, how gradients come back, where it is harmless."""

    value: Callable[..., Tensor]  # of the operands
    pullback: Callable[
        ..., tuple[Tensor, ...]
    ]  # (g, *operands) -> dL/doperand, in the broadcast shape
    safe: tuple[float, ...]  # stands in for the operands at ⊥: value and slopes are finite there
    partial: bool = (
        False  # can make ⊥: the whole policy acts; otherwise gradients are only masked at ⊥
    )
    steep: Callable[..., Tensor] | None = None  # where the value is finite but a slope is not


def _safe(operation: Operation, operands: tuple[Tensor, ...], unsafe: Tensor) -> list[Tensor]:
    pairs = zip(operation.safe, operands, strict=True)
    return [torch.where(unsafe, stand_in, x) for stand_in, x in pairs]


def _settle(
    operation: Operation, bottom: Tensor, operands: tuple[Tensor, ...]
) -> tuple[Tensor, Tensor]:
    # made safe before the operation: a `where` behind it alone would leak nan into gradients, of
    # which a compiled graph has none but those of `_Total`
    safe = operands if compiling() else _safe(operation, operands, bottom)
    value = operation.value(*safe)
    bottom = either(bottom, ~finite(value))
    return torch.where(bottom, math.nan, value), bottom


class _Total(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(
        operation: Operation, bottom: Tensor, fixed: int, *operands: Tensor
    ) -> tuple[Tensor, Tensor]:
        return _settle(operation, bottom, operands)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.operation, _, ctx.fixed, *operands = inputs
        ctx.save_for_backward(output[1], *operands)
        ctx.mark_non_differentiable(output[1])

    @staticmethod
    def backward(ctx: Any, g: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        bottom, *operands = ctx.saved_tensors
        operation: Operation = ctx.operation
        if operation.steep is not None:
            bottom = bottom | operation.steep(*operands)
        ruling = rule(g, ctx.fixed)
        unsafe = shielded(ruling, bottom)
        # g goes first: 0 times a finite slope stays 0 in every further derivative, whatever g was
        safe = _safe(operation, tuple(operands), unsafe)
        gradients = operation.pullback(*_widened(torch.where(unsafe, 0, g), *safe))
        fitted = (_fit(x, like) for x, like in zip(gradients, operands, strict=True))
        if operation.partial:
            fitted = (_submit(x, bottom, ruling) for x in fitted)
        return (None, None, None, *fitted)


def _widened(*tensors: Tensor) -> list[Tensor]:
    """Return half precision as float32: slopes next to ⊥ leave its range where products do not."""
    return [x.float() if x.dtype in (torch.float16, torch.bfloat16) else x for x in tensors]


def _fit(gradient: Tensor, operand: Tensor) -> Tensor:
    """Bring a gradient to its operand's dtype and shape."""
    if gradient.is_complex() and not operand.is_complex():
        gradient = gradient.real
    return gradient.to(operand.dtype).sum_to_size(operand.shape)


def _submit(gradient: Tensor, bottom: Tensor, ruling: Ruling) -> Tensor:
    if gradient.shape != bottom.shape:  # summed over ⊥ entries, which are 0 already, and others
        bottom = torch.zeros((), dtype=torch.bool, device=gradient.device)
    return submit(gradient, bottom, ruling)


def evaluate(
    operation: Operation, bottom: Tensor, *operands: Tensor, fixed: int = -1
) -> tuple[Tensor, Tensor]:
    """Evaluate where `bottom` is false; the policy acts on dL/doperand while backward runs.

    Args:
        operation: What to compute.
        bottom: True where the answer is ⊥ whatever the operands give; must hold wherever an
            operand is ⊥ or outside the domain. It has the broadcast shape of the operands.
        operands: Tensors that broadcast.
        fixed: Policy code of a layer, -1 to follow the context while backward runs.

    Returns:
        (value, bottom) in the broadcast shape; the value is nan at ⊥. What overflows is ⊥ too.
    """
    if gating(*operands):
        if len(operands) == 2 and operands[0] is operands[1]:  # the compiler takes none twice
            operands = (operands[0], operands[1].view_as(operands[1]))
        return _Total.apply(operation, bottom, fixed, *operands)
    value, settled = _settle(operation, bottom, operands)
    if torch.is_grad_enabled() and any(x.requires_grad for x in operands):
        # a plain graph is recorded for others to differentiate: overflow must be safe in it too
        value, settled = _settle(operation, settled, operands)
    return value, settled
