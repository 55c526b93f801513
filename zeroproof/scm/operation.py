"""Operations that are total on (payload, bottom), and the autograd function that runs them all.

Every operation takes plain tensors, the mask `bottom` of entries that are ⊥ in any operand (in the
broadcast shape), and `fixed`, the policy code of a layer or -1 for the context. It returns
(payload, bottom): the payload is nan at ⊥, and what overflows becomes ⊥. Operations that only
absorb ⊥ mask gradients at ⊥ and leave all others alone; `inv`, powers and division, which make ⊥,
obey the whole policy. Division has loops of its own, in `division.py`.

Laws: Bergstra & Ponse, arXiv:1406.6878; Bergstra & Tucker, arXiv:2307.04270.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zeroproof.autodiff.compiled import compiling, either, finite
from zeroproof.autodiff.policies import Ruling, gating, rule, scoped, shielded, submit
from zeroproof.autodiff.trace import note
from zeroproof.native import is_forward_mode, is_tracing, ordinary

__all__ = [
    "Operation",
    "add",
    "complex_dtype",
    "evaluate",
    "fill",
    "integer_power",
    "inv",
    "mul",
    "neg",
    "pull",
    "real_power",
    "sub",
]


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


def _surely_finite(x: Tensor) -> bool:
    """Tell by one reduction that all numbers are finite; false also where a square overflows."""
    x = x if x.ndim == 1 else x.reshape(-1)
    return torch.dot(x, x).item() < math.inf


def _any_true(mask: Tensor) -> bool:
    """Tell whether anything in a mask, which is not empty, is true."""
    # the largest byte is found ten times faster than a truth value
    return mask.view(torch.uint8).amax().item() > 0


def _look(
    operation: Operation, bottom: Tensor, operands: tuple[Tensor, ...]
) -> tuple[Tensor, Tensor, bool]:
    """Return (value, ⊥, whether nothing is ⊥)."""
    value, known = operation.value(*operands), _any_true(bottom)
    if not known and _surely_finite(value):
        return value, torch.zeros_like(value, dtype=torch.bool), True
    spoilt = torch.empty_like(value, dtype=torch.bool).copy_(value - value)  # of 0 and nan
    bottom = bottom | spoilt
    return value.masked_fill_(bottom, math.nan), bottom, not (known or _any_true(bottom))


def _recorded(
    operation: Operation, bottom: Tensor, operands: tuple[Tensor, ...], fixed: int
) -> tuple[Tensor, Tensor]:
    if not operation.partial and operation.steep is None and not _any_true(bottom):
        value = operation.value(*operands)
        if _surely_finite(value.detach()):  # nothing to mask, and no policy: autograd does the same
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


# --- + - · and inverse ----------------------------------------------------------------------------


def _inverse_pullback(g: Tensor, x: Tensor) -> tuple[Tensor]:
    return (-(g / x.conj()) / x.conj(),)


_FILL = Operation(torch.clone, lambda g, _: (g,), safe=(0,))
_ADD = Operation(torch.add, lambda g, _x, _y: (g, g), safe=(0, 0))
_SUB = Operation(torch.sub, lambda g, _x, _y: (g, -g), safe=(0, 0))
_MUL = Operation(torch.mul, lambda g, x, y: (g * y.conj(), g * x.conj()), safe=(0, 0))
_NEG = Operation(torch.neg, lambda g, _: (-g,), safe=(0,))
_INV = Operation(torch.reciprocal, _inverse_pullback, safe=(1,), partial=True)


def fill(x: Tensor, bottom: Tensor, fixed: int = -1) -> tuple[Tensor, Tensor]:
    """Return x itself, nan at ⊥; entries that are not finite are ⊥."""
    return evaluate(_FILL, bottom, x, fixed=fixed)


def add(x: Tensor, y: Tensor, bottom: Tensor, fixed: int = -1) -> tuple[Tensor, Tensor]:
    """Return x + y; x + ⊥ = ⊥."""
    return evaluate(_ADD, bottom, x, y, fixed=fixed)


def sub(x: Tensor, y: Tensor, bottom: Tensor, fixed: int = -1) -> tuple[Tensor, Tensor]:
    """Return x - y; x - ⊥ = ⊥ - x = ⊥."""
    return evaluate(_SUB, bottom, x, y, fixed=fixed)


def mul(x: Tensor, y: Tensor, bottom: Tensor, fixed: int = -1) -> tuple[Tensor, Tensor]:
    """Return x · y; x · ⊥ = ⊥, for x = 0 too."""
    return evaluate(_MUL, bottom, x, y, fixed=fixed)


def neg(x: Tensor, bottom: Tensor, fixed: int = -1) -> tuple[Tensor, Tensor]:
    """Return -x; -⊥ = ⊥."""
    return evaluate(_NEG, bottom, x, fixed=fixed)


def inv(x: Tensor, bottom: Tensor, fixed: int = -1) -> tuple[Tensor, Tensor]:
    """Return x⁻¹; 0⁻¹ = ⊥⁻¹ = ⊥."""
    return evaluate(_INV, either(bottom, x == 0), x, fixed=fixed)


# --- powers ---------------------------------------------------------------------------------------

_COMPLEX = {torch.float16: torch.complex32, torch.float64: torch.complex128}


def complex_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the complex type that holds a floating-point type (bfloat16: complex64)."""
    return _COMPLEX.get(dtype, torch.complex64)


def _complex(x: Tensor) -> Tensor:
    return x if x.is_complex() else x.to(complex_dtype(x.dtype))


def _no_power(x: Tensor, y: Tensor) -> Tensor:
    if x.is_complex():
        return (x == 0) & (torch.real(y) <= 0) & (y != 0)
    return ((x == 0) & (y < 0)) | ((x < 0) & (y != torch.round(y)))


def _raised(x: Tensor, y: Tensor) -> Tensor:
    # 0^y is taken out: autograd would find its slope nan, and torch calls the complex 0^0 nan
    zero = (x == 0) & (torch.real(y) >= 0)
    value = torch.pow(torch.where(zero, 1, x), y)
    return torch.where(zero, (y == 0).to(value.dtype), value)


def _power_pullback(g: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    slope_x = torch.where(y == 0, 0, y * _raised(x, torch.where(y == 0, 1, y - 1)))
    # no slope in y: 0^y does not vary, and a real x^y with x < 0 exists at isolated exponents only
    flat = (x == 0 if x.is_complex() else x <= 0) & ~_no_power(x, y)
    base = torch.where(flat, 1, x)
    slope_y = torch.where(flat, 0, torch.pow(base, y) * torch.log(base))
    return g * slope_x.conj(), g * slope_y.conj()


def _steep(x: Tensor, y: Tensor) -> Tensor:
    return (x == 0) & (y != 0) & (torch.real(y) < 1)


_POWER = Operation(_raised, _power_pullback, safe=(1, 1), partial=True, steep=_steep)


def real_power(x: Tensor, y: Tensor, bottom: Tensor, fixed: int = -1) -> tuple[Tensor, Tensor]:
    """Return x^y; ⊥ for 0^negative, and for a fractional power of a real x < 0; 0⁰ = 1."""
    if x.is_complex() != y.is_complex():
        x, y = _complex(x), _complex(y)
    return evaluate(_POWER, bottom | _no_power(x, y), x, y, fixed=fixed)


def integer_power(x: Tensor, n: int, bottom: Tensor, fixed: int = -1) -> tuple[Tensor, Tensor]:
    """Return xⁿ by repeated multiplication, (x⁻¹)⁻ⁿ for n < 0; x⁰ = 1 + 0x."""
    if n < 0:
        x, bottom = inv(x, bottom, fixed)
        n = -n
    if n == 0:
        zero, bottom = mul(x, torch.zeros_like(x), bottom, fixed)
        return add(zero, torch.ones_like(x), bottom, fixed)
    return _natural_power(x, n, bottom, fixed)


def _natural_power(x: Tensor, n: int, bottom: Tensor, fixed: int) -> tuple[Tensor, Tensor]:
    if n == 1:
        return x, bottom
    root, bottom = _natural_power(x, n // 2, bottom, fixed)
    value, bottom = mul(root, root, bottom, fixed)
    return mul(value, x, bottom, fixed) if n % 2 else (value, bottom)
