"""One autograd function for every operation: total forward, gradient policy in backward."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zeroproof.autodiff.compiled import compiling, either, finite
from zeroproof.autodiff.eager import any_true, ordinary, surely_finite
from zeroproof.autodiff.gate import Ruling, gating, rule, shielded, submit
from zeroproof.autodiff.in_force import scoped
from zeroproof.autodiff.torch_internals import is_forward_mode, is_tracing
from zeroproof.autodiff.trace import note

__all__ = ["Operation", "evaluate", "pull"]


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
    holomorphic: bool = True  # complex: its derivative is a number; else a symmetric matrix


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
        return None, None, None, *pull(ctx.operation, g, bottom, tuple(operands), ctx.fixed)


class _Immediate(torch.autograd.Function):
    """The same in eager mode on a CPU, where values may be looked at: most often nothing is ⊥."""

    # `setup_context` is left out: with it, torch inspects a signature at every call
    @staticmethod
    def forward(
        ctx: Any, operation: Operation, bottom: Tensor, fixed: int, *operands: Tensor
    ) -> tuple[Tensor, Tensor]:
        value, bottom, clean = _look(operation, bottom, operands)
        ctx.operation, ctx.fixed = operation, fixed
        ctx.save_for_backward(None if clean else bottom, *operands)
        ctx.mark_non_differentiable(bottom)
        ctx.set_materialize_grads(False)  # that of the mask
        return value, bottom

    @staticmethod
    def backward(ctx: Any, g: Tensor | None, _: None) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        bottom, *operands = ctx.saved_tensors
        if g is None:
            return (None,) * (3 + len(operands))
        return None, None, None, *pull(ctx.operation, g, bottom, tuple(operands), ctx.fixed)


def _look(
    operation: Operation, bottom: Tensor, operands: tuple[Tensor, ...]
) -> tuple[Tensor, Tensor, bool]:
    """Return (value, ⊥, whether nothing is ⊥)."""
    value, known = operation.value(*operands), any_true(bottom)
    if not known and surely_finite(value):
        return value, torch.zeros_like(value, dtype=torch.bool), True
    spoilt = torch.empty_like(value, dtype=torch.bool).copy_(value - value)  # of 0 and nan
    bottom = bottom | spoilt
    return value.masked_fill_(bottom, math.nan), bottom, not (known or any_true(bottom))


def _recorded(
    operation: Operation, bottom: Tensor, operands: tuple[Tensor, ...], fixed: int
) -> tuple[Tensor, Tensor]:
    if not operation.partial and operation.steep is None and not any_true(bottom):
        value = operation.value(*operands)
        if surely_finite(value.detach()):  # nothing to mask, and no policy: autograd does the same
            return value, torch.zeros_like(bottom)
    return _Immediate.apply(operation, bottom, fixed, *operands)


def pull(
    operation: Operation,
    g: Tensor,
    bottom: Tensor | None,
    operands: tuple[Tensor, ...],
    fixed: int,
) -> tuple[Tensor, ...]:
    """Return dL/doperand as the policy in force leaves them, to be called inside a backward.

    Args:
        operation: What was computed.
        g: dL/dvalue.
        bottom: Where the value is ⊥, `None` for nowhere.
        operands: What it was computed of.
        fixed: Policy code of a layer, -1 to follow the context.
    """
    if operation.steep is not None:
        steep = operation.steep(*operands)
        bottom = steep if bottom is None else bottom | steep
    ruling, safe = rule(g, fixed), list(operands)
    if bottom is not None:
        unsafe = shielded(ruling, bottom)
        # g goes first: 0 times a finite slope stays 0 in every further derivative, whatever g was
        g, safe = torch.where(unsafe, 0, g), _safe(operation, operands, unsafe)
    gradients = operation.pullback(*_widened(g, *safe))
    fitted = (_fit(x, like) for x, like in zip(gradients, operands, strict=True))
    if operation.partial:
        fitted = (_submit(x, bottom, ruling) for x in fitted)
    return tuple(fitted)


class _ForwardTotal(_Total):
    """The same where derivatives travel forward: a tangent is 0 at ⊥ and where a slope is infinite.

    No policy acts on tangents: they are what gradients are under PROJECT.
    """

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        _Total.setup_context(ctx, inputs, output)
        ctx.save_for_forward(output[1], *inputs[3:])

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[Tensor, None]:
        bottom, *operands = ctx.saved_tensors
        return _tangent(ctx.operation, bottom, tuple(operands), tangents[3:]), None


def _tangent(
    operation: Operation, bottom: Tensor, operands: tuple[Tensor, ...], tangents: tuple[Any, ...]
) -> Tensor:
    """Return how the value moves with the operands: Σ ∂value/∂operand · tangent."""
    if operation.steep is not None:
        bottom = bottom | operation.steep(*operands)
    safe, total = _safe(operation, operands, bottom), torch.zeros((), device=bottom.device)
    for k, tangent in enumerate(tangents):
        if tangent is None:
            continue
        t = torch.where(bottom, 0, tangent)
        # the pullback of one entry is its slope's conjugate, of a symmetric matrix itself
        turned = t.conj() if operation.holomorphic else t
        pulled = operation.pullback(*_widened(turned, *safe))[k]
        total = total + (pulled.conj() if operation.holomorphic else pulled)
    like = torch.result_type(*operands) if len(operands) == 2 else operands[0].dtype
    return total.expand(bottom.shape).to(like)


def _widened(*tensors: Tensor) -> list[Tensor]:
    """Return half precision as float32: slopes next to ⊥ leave its range where products do not."""
    return [x.float() if x.dtype in (torch.float16, torch.bfloat16) else x for x in tensors]


def _fit(gradient: Tensor, operand: Tensor) -> Tensor:
    """Bring a gradient to its operand's dtype and shape."""
    if gradient.is_complex() and not operand.is_complex():
        gradient = gradient.real
    return gradient.to(operand.dtype).sum_to_size(operand.shape)


def _submit(gradient: Tensor, bottom: Tensor | None, ruling: Ruling) -> Tensor:
    if bottom is not None and gradient.shape != bottom.shape:
        bottom = None  # it was summed over ⊥ entries, which are 0 already, and others
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
    value, settled = _evaluate(operation, bottom, operands, scoped(fixed))
    note(value, *operands)
    return value, settled


def _evaluate(
    operation: Operation, bottom: Tensor, operands: tuple[Tensor, ...], fixed: int
) -> tuple[Tensor, Tensor]:
    forward, immediate = is_forward_mode(), ordinary(*operands) and bottom.numel() > 0
    if forward or gating(*operands):
        if immediate:
            return _recorded(operation, bottom, operands, fixed)
        if len(operands) == 2 and operands[0] is operands[1]:  # the compiler takes none twice
            operands = (operands[0], operands[1].view_as(operands[1]))
        function = _ForwardTotal if forward else _Total
        return function.apply(operation, bottom, fixed, *operands)
    if immediate:
        return _look(operation, bottom, operands)[:2]
    value, settled = _settle(operation, bottom, operands)
    recorded = torch.is_grad_enabled() and any(x.requires_grad for x in operands)
    if recorded or is_tracing():  # `torch.jit.trace` demands one graph, with gradients on and off
        # a plain graph is recorded for others to differentiate: overflow must be safe in it too
        value, settled = _settle(operation, settled, operands)
    return value, settled
