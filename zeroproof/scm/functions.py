"""Elementary functions on stated domains; outside of them, and at ⊥, the value is ⊥.

Each takes an SCM value, a tensor or a number and returns an SCM value. `exp`, `sin` and `cos` only
absorb ⊥; `log`, `sqrt`, `tan` and `power` can make it: the whole gradient policy acts on their
operands.
"""

import torch
from torch import Tensor

from zeroproof.scm.operation import Operation, evaluate
from zeroproof.scm.value import SCM, Operand, as_scm, trusted

__all__ = ["cos", "exp", "log", "power", "sin", "sqrt", "tan"]


def _root(x: Tensor) -> Tensor:
    # 0 is taken out: autograd would find its slope infinite
    zero = x == 0
    return torch.where(zero, 0, torch.sqrt(torch.where(zero, 1, x)))


_EXP = Operation(torch.exp, lambda g, x: (g * torch.exp(x).conj(),), safe=(0,))
_SIN = Operation(torch.sin, lambda g, x: (g * torch.cos(x).conj(),), safe=(0,))
_COS = Operation(torch.cos, lambda g, x: (-g * torch.sin(x).conj(),), safe=(0,))
_LOG = Operation(torch.log, lambda g, x: (g / x.conj(),), safe=(1,), partial=True)
_TAN = Operation(
    torch.tan, lambda g, x: (g * (1 + torch.tan(x).square()).conj(),), safe=(0,), partial=True
)
_SQRT = Operation(
    _root,
    lambda g, x: (g / (2 * torch.sqrt(x)).conj(),),
    safe=(1,),
    partial=True,
    steep=lambda x: x == 0,
)


def _apply(operation: Operation, x: SCM, outside: Tensor | None = None) -> SCM:
    bottom = x.bottom if outside is None else x.bottom | outside
    return trusted(*evaluate(operation, bottom, x.payload))


def exp(x: Operand) -> SCM:
    """Return eˣ; ⊥ only at ⊥ and where it overflows.

    Examples:
        >>> exp(torch.tensor([0.0, 1000.0]))
        SCM(payload=tensor([1., nan]), bottom=tensor([False,  True]))
    """
    return _apply(_EXP, as_scm(x))


def sin(x: Operand) -> SCM:
    """Return the sine of x in radians; ⊥ only at ⊥.

    Examples:
        >>> sin(torch.tensor([0.0]))
        SCM(payload=tensor([0.]), bottom=tensor([False]))
    """
    return _apply(_SIN, as_scm(x))


def cos(x: Operand) -> SCM:
    """Return the cosine of x in radians; ⊥ only at ⊥.

    Examples:
        >>> cos(torch.tensor([0.0]))
        SCM(payload=tensor([1.]), bottom=tensor([False]))
    """
    return _apply(_COS, as_scm(x))


def log(x: Operand) -> SCM:
    """Return the natural logarithm: for real x > 0, the principal branch for complex x ≠ 0; else ⊥.

    Examples:
        >>> log(torch.tensor([1.0, 0.0, -1.0]))
        SCM(payload=tensor([0., nan, nan]), bottom=tensor([False,  True,  True]))
    """
    x = as_scm(x)
    return _apply(_LOG, x, x.payload == 0 if x.payload.is_complex() else x.payload <= 0)


def sqrt(x: Operand) -> SCM:
    """Return the square root: for real x ≥ 0, the principal branch for complex x; ⊥ elsewhere.

    √0 = 0 is a finite value with an infinite slope: the gradient there is 0, and infinite under
    `PASSTHROUGH` alone, so that one exact 0 does not end a training run.

    Examples:
        >>> sqrt(torch.tensor([4.0, 0.0, -1.0]))
        SCM(payload=tensor([2., 0., nan]), bottom=tensor([False, False,  True]))
    """
    x = as_scm(x)
    return _apply(_SQRT, x, None if x.payload.is_complex() else x.payload < 0)


def tan(x: Operand) -> SCM:
    """Return the tangent of x in radians; ⊥ where cos x is 0 in the precision of x.

    Hardly any floating-point number is an exact odd multiple of π/2, so tan is large there rather
    than ⊥; to learn such a pole, use tuples ⟨sin x, cos x⟩.

    Examples:
        >>> tan(torch.tensor([0.0]))
        SCM(payload=tensor([0.]), bottom=tensor([False]))
    """
    x = as_scm(x)
    return _apply(_TAN, x, torch.cos(x.payload) == 0)


def power(x: Operand, y: Operand) -> SCM:
    """Return xʸ, as `x ** y` does.

    A whole Python number as y means repeated multiplication, with x⁰ = 1 + 0x and x⁻ⁿ = (x⁻¹)ⁿ.
    Any other y: 0^y is 0 for y > 0, 1 for y = 0 and ⊥ for y < 0 (complex: by the real part of y, ⊥
    where it is 0 and y is not); a real x < 0 has whole powers only, ⊥ elsewhere. Where the slope
    is infinite (0^y, 0 < y < 1) the gradient is 0; dL/dy is 0 for x = 0 and for real x < 0, where
    powers do not vary with y or exist at isolated y alone.

    Examples:
        >>> power(torch.tensor([2.0, 0.0]), -2)
        SCM(payload=tensor([0.2500,    nan]), bottom=tensor([False,  True]))
    """
    return as_scm(x, y if isinstance(y, SCM) else None) ** y
