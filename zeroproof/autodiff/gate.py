"""The policy gate: it acts on gradients while backward runs, in eager and in compiled graphs.

- A snapshot taken in forward would ignore `with gradient_policy(...): loss.backward()`.
- A Python read inside a traced backward would be frozen into the compiled graph. An opaque custom
  op that returns three scalars is read at run time instead; it takes the incoming gradient as an
  argument, so that no partitioner can hoist it into the forward graph.
- A tensor hook sees dL/dy, while the policies speak of dL/dN and dL/dD.
"""

import math
import warnings
from typing import Any

import torch
from torch import Tensor

from zeroproof.autodiff.eager import ordinary
from zeroproof.autodiff.in_force import (
    Ruling,
    active_policy,
    registrations,
    ruling_in_force,
    scoped,
)
from zeroproof.autodiff.torch_internals import is_forward_mode, is_tracing, is_transforming

__all__ = [
    "Ruling",
    "gate",
    "gating",
    "governing",
    "raw",
    "rule",
    "shielded",
    "submit",
]


class _ReadPolicy(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(gradient: Tensor, fixed: int) -> Tensor:
        # registering an operation takes as long as a room does, and the compiler alone needs it
        from zeroproof.autodiff.scalars import policy_scalars

        return policy_scalars(gradient, fixed)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> tuple[None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return None, None


def gating(*operands: Tensor) -> bool:
    """Tell whether a gate is needed: a gradient is wanted and no plain graph recorded."""
    if not torch.is_grad_enabled() or torch.compiler.is_exporting() or is_tracing():
        return False
    # a tensor inside `torch.func.vmap` does not tell
    return any(x.requires_grad for x in operands) or (
        not torch.compiler.is_compiling() and is_transforming()
    )


def rule(gradient: Tensor, fixed: int) -> Ruling:
    """Read the policy in force; to be called inside a backward. `fixed` is a policy code or -1."""
    if torch.compiler.is_compiling():
        masked, bound, closed = _ReadPolicy.apply(gradient.detach(), fixed).unbind()
        return Ruling(masked > 0, bound, closed > 0)
    return ruling_in_force(fixed)


def shielded(ruling: Ruling, bottom: Tensor) -> Tensor:
    """Where a derivative must see safe operands; nowhere under PASSTHROUGH, which is raw."""
    if isinstance(ruling.masked, bool):
        return bottom if ruling.masked else torch.zeros_like(bottom)
    return bottom & ruling.masked


def submit(gradient: Tensor, bottom: Tensor | None, ruling: Ruling) -> Tensor:
    """Apply a ruling to the gradient of an operand; `bottom` broadcasts to it, or is nowhere."""
    if isinstance(ruling.masked, bool):
        if ruling.closed:
            return torch.zeros_like(gradient)
        if not ruling.masked:
            return gradient
        if ruling.bound < math.inf:
            gradient = _bounded(gradient, ruling.bound)
        return gradient if bottom is None else torch.where(bottom, 0, gradient)
    kill = ruling.closed if bottom is None else (bottom & ruling.masked) | ruling.closed
    return torch.where(kill, 0, _bounded(gradient, ruling.bound))


def raw(gradient: Tensor, undefined: Tensor | None, ruling: Ruling) -> Tensor:
    """Return nan under PASSTHROUGH where a derivative is undefined; for a shared D, anywhere."""
    if undefined is None or ruling.masked is True:
        return gradient
    if gradient.shape != undefined.shape:
        undefined = undefined.any(-1, keepdim=True)
    if isinstance(ruling.masked, Tensor):
        undefined = undefined & ~ruling.masked
    return torch.where(undefined, math.nan, gradient)


def _bounded(gradient: Tensor, bound: Any) -> Tensor:
    if gradient.is_complex():  # modulus, so that the direction stays
        size = gradient.abs()
        return torch.where(size > bound, bound * _direction(gradient), gradient)
    if isinstance(bound, Tensor):
        bound = bound.to(gradient.dtype)
        return torch.minimum(torch.maximum(gradient, -bound), bound)
    return gradient.clamp(-bound, bound)


def _direction(z: Tensor) -> Tensor:
    """Return z divided by its modulus, where the modulus or a part of z may have overflowed."""
    largest = torch.maximum(z.real.abs(), z.imag.abs())
    infinite = torch.isinf(largest)
    size = torch.where((largest == 0) | infinite, 1, largest)
    # next to an infinite part a finite one is nothing
    parts = (
        torch.where(infinite, torch.where(torch.isinf(x), x.sign(), 0), x / size)
        for x in (z.real, z.imag)
    )
    z = torch.complex(*parts)
    return z / torch.where(z == 0, 1, z.abs())


class _Gate(torch.autograd.Function):
    """Identity on (N, D); the policy acts on their gradients."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        N: Tensor, D: Tensor, bottom: Tensor, fixed: int, undefined: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        return N.view_as(N), D.view_as(D)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        _, _, bottom, ctx.fixed, undefined = inputs
        ctx.tuples_follow = ctx.fixed
        ctx.save_for_backward(bottom, undefined)

    @staticmethod
    def backward(ctx: Any, g_N: Tensor, g_D: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        bottom, undefined = ctx.saved_tensors
        ruling = rule(g_N, ctx.fixed)
        g_N, g_D = raw(g_N, undefined, ruling), raw(g_D, undefined, ruling)
        D_bottom = _bottom_of(g_D, bottom)
        return submit(g_N, bottom, ruling), submit(g_D, D_bottom, ruling), None, None, None


class _ForwardGate(_Gate):
    """The same where derivatives travel forward: tangents are 0 at ⊥ and pass elsewhere."""

    @staticmethod
    def forward(
        N: Tensor, D: Tensor, bottom: Tensor, fixed: int, undefined: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        return N.clone(), D.clone()  # of a view, the tangent would have to be one

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        _Gate.setup_context(ctx, inputs, output)
        ctx.save_for_forward(inputs[2])

    @staticmethod
    def jvp(ctx: Any, t_N: Tensor, t_D: Tensor, *_: Any) -> tuple[Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (bottom,) = ctx.saved_tensors
        return torch.where(bottom, 0, t_N), torch.where(_bottom_of(t_D, bottom), 0, t_D)


def _bottom_of(D: Tensor, bottom: Tensor) -> Tensor:
    return bottom if D.shape == bottom.shape else bottom.all(-1, keepdim=True)


class _GateNow(torch.autograd.Function):
    """The same in eager mode; without `setup_context`, for which torch inspects every call."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        output = _Gate.forward(*inputs)
        _Gate.setup_context(ctx, inputs, output)
        return output

    backward = staticmethod(_Gate.backward)  # pyright: ignore[reportAssignmentType]


def gate(
    N: Tensor, D: Tensor, bottom: Tensor, fixed: int = -1, undefined: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return (N, D) unchanged; while backward runs, the policy acts on dL/dN and dL/dD.

    Forward mode (`torch.func.jvp`) has no policy: tangents are 0 at ⊥ and pass unchanged elsewhere,
    as gradients do under PROJECT.

    Args:
        N: Numerators, `(*batch, k)`.
        D: Denominators, the same shape or `(*batch, 1)`.
        bottom: Where the tuple is ⊥, the shape of N. A shared denominator is ⊥ where all its tuples
            are.
        fixed: Policy code of a layer, -1 to follow the context.
        undefined: Where what follows was made safe and has no derivative in truth: under
            PASSTHROUGH gradients are nan there.
    """
    forward, fixed = is_forward_mode(), scoped(fixed)
    if not (forward or gating(N, D)):
        return N, D
    if ordinary(N, D):
        return _GateNow.apply(N, D, bottom, fixed, undefined)
    if N is D:  # the compiler takes no tensor twice
        D = D.view_as(D)
    function = _ForwardGate if forward else _Gate
    return function.apply(N, D, bottom, fixed, undefined)


def governing(*tensors: Tensor) -> int:
    """Return the policy code registered on the module that made tuples, or in whose forward we are.

    Warns:
        UserWarning: They come from a compiled model, whose tensors do not tell.
    """
    codes = registrations()
    if codes and not torch.compiler.is_compiling():
        for node in (x.grad_fn for x in tensors):
            code = getattr(node, "tuples_follow", -1)
            if code >= 0:
                return code
            if type(node).__name__ == "CompiledFunctionBackward" and codes != {active_policy()}:
                warnings.warn(
                    "a policy is registered on some module, but tuples of a compiled model do not "
                    "tell of which: their loss follows gradient_policy(...) around backward",
                    stacklevel=4,
                )
                break
    return scoped(-1)
