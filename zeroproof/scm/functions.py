"""Functions of SCM values: elementary ones, the weak sign, reductions that leave ⊥ out.

Elementary functions have stated domains; outside of them, and at ⊥, the value is ⊥. Each takes an
SCM value, a tensor or a number and returns an SCM value. `exp`, `sin` and `cos` only absorb ⊥;
`log`, `sqrt`, `tan` and `power` can make it: the whole gradient policy acts on their operands. At
the end stands what functions of torch mean for SCM values.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from zeroproof.errors import NotSupportedError
from zeroproof.scm.operation import Operation, evaluate
from zeroproof.scm.value import MEANINGS, SCM, Operand, as_scm, trusted

__all__ = [
    "cos",
    "coverage",
    "exp",
    "log",
    "masked_mean",
    "masked_sum",
    "power",
    "sin",
    "sqrt",
    "tan",
    "weak_sign",
]

# --- elementary functions -------------------------------------------------------------------------


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


# --- the weak sign: direction without size --------------------------------------------------------


def _sign_pullback(g: Tensor, z: Tensor) -> tuple[Tensor]:
    if not z.is_complex():
        return (torch.zeros_like(g * z),)
    s = torch.sgn(z)
    # along the circle only: the part of g that points along z is removed
    return ((g - s * (s.conj() * g).real) / z.abs(),)


_SIGN = Operation(torch.sgn, _sign_pullback, safe=(1,), steep=lambda z: z == 0, holomorphic=False)


def weak_sign(x: Operand) -> SCM:
    r"""Return s(z) = z / \|z\|, s(0) = 0, s(⊥) = ⊥.

    Real values give -1, 0, 1 or ⊥ (the 4-valued sign), complex ones a point of the unit circle, 0
    or ⊥.
    The gradient is 0 for real values and at 0, and tangential to the circle for complex ones.

    Source: Bergstra & Tucker 2024, doi 10.36285/tm.97.

    Examples:
        >>> weak_sign(torch.tensor([-3.0, 0.0, float("nan")]))
        SCM(payload=tensor([-1.,  0., nan]), bottom=tensor([False, False,  True]))
    """
    return _apply(_SIGN, as_scm(x))


# --- reductions -----------------------------------------------------------------------------------

Dim = int | tuple[int, ...] | None


def masked_sum(x: SCM, dim: Dim = None, *, keepdim: bool = False) -> SCM:
    """Sum the values that are not ⊥; over none of them the sum is 0.

    Unlike `x + y`, in which ⊥ absorbs, ⊥ is left out. A sum that overflows is ⊥.

    Args:
        x: Values of any shape.
        dim: Dimensions to reduce, all of them by default.
        keepdim: Keep reduced dimensions with size 1.

    Returns:
        Sums; no gradient reaches ⊥ entries, whatever the policy.

    Examples:
        >>> masked_sum(SCM(torch.tensor([1.0, float("nan"), 2.0]))).payload
        tensor(3.)
    """
    return SCM(torch.where(x.bottom, 0, x.payload).sum(dim, keepdim=keepdim))


def masked_mean(x: SCM, dim: Dim = None, *, keepdim: bool = False) -> SCM:
    """Average the values that are not ⊥; over none of them the mean is ⊥.

    Args:
        x: Values of any shape.
        dim: Dimensions to reduce, all of them by default.
        keepdim: Keep reduced dimensions with size 1.

    Returns:
        Means; no gradient reaches ⊥ entries, whatever the policy.

    Examples:
        >>> masked_mean(SCM(torch.tensor([[1.0, 3.0], [float("nan"), float("nan")]])), dim=1)
        SCM(payload=tensor([2., nan]), bottom=tensor([False,  True]))
    """
    count = (~x.bottom).sum(dim, keepdim=keepdim)
    # divided before the sum: a mean of large values must not overflow where none of them does
    weight = (~x.bottom).sum(dim, keepdim=True).clamp(min=1).to(x.payload.dtype)
    shares = torch.where(x.bottom, 0, x.payload) / weight
    return SCM(shares.sum(dim, keepdim=keepdim), count == 0)


def coverage(x: SCM, dim: Dim = None, *, keepdim: bool = False) -> Tensor:
    """Return the share of values that are not ⊥, in [0, 1]; nan over no value at all.

    It has no gradient; a soft coverage for training is in `zeroproof.losses.coverage`.

    Examples:
        >>> coverage(SCM(torch.tensor([1.0, float("nan")])))
        tensor(0.5000)
    """
    return (~x.bottom).to(torch.get_default_dtype()).mean(dim, keepdim=keepdim)


# --- what functions of torch mean, by name: operators of tensors arrive here, too ----------------


def _of_two(act: Callable[..., SCM]) -> Callable[..., SCM]:
    """Return an operator in which only the second operand may be an SCM value."""

    def of_two(left: Operand, right: Operand) -> SCM:
        return act(as_scm(left, right if isinstance(right, SCM) else None), right)

    return of_two


def _reflected(act: Callable[..., SCM]) -> Callable[..., SCM]:
    # it comes with the tensor in second place
    return lambda right, left: _of_two(act)(left, right)


def _joined(join: Callable[..., Tensor]) -> Callable[..., SCM]:
    def joined(tensors: Sequence[Operand], dim: int = 0) -> SCM:
        payloads, bottoms = zip(*map(as_scm, tensors), strict=True)
        return trusted(join(payloads, dim), join(bottoms, dim))

    return joined


def _where(condition: Tensor, x: Operand, y: Operand) -> SCM:
    if isinstance(condition, SCM):
        raise NotSupportedError("a condition must be a boolean tensor, got an SCM value")
    like = x if isinstance(x, SCM) else y if isinstance(y, SCM) else None
    x, y = as_scm(x, like), as_scm(y, like)
    value = torch.where(condition, x.payload, y.payload)
    return trusted(value, torch.where(condition, x.bottom, y.bottom))


_OPERATORS = [
    (SCM.__add__, "add"),
    (SCM.__sub__, "sub subtract"),
    (SCM.__mul__, "mul multiply"),
    (SCM.__truediv__, "div divide true_divide truediv"),
    (SCM.__pow__, "pow float_power"),
    (SCM.__matmul__, "matmul __matmul__"),
]
MEANINGS |= {
    **{name: _of_two(act) for act, names in _OPERATORS for name in names.split()},
    **dict.fromkeys(("rsub", "__rsub__"), _reflected(SCM.__sub__)),
    "__rdiv__": _reflected(SCM.__truediv__),
    "__rpow__": _reflected(SCM.__pow__),
    "__rmatmul__": _reflected(SCM.__matmul__),
    **dict.fromkeys(("neg", "negative"), SCM.__neg__),
    **dict.fromkeys(("abs", "absolute"), SCM.abs),
    **dict.fromkeys(("sgn", "sign"), weak_sign),
    "reciprocal": SCM.inv,
    "square": lambda x: x * x,
    **{f.__name__: f for f in (cos, exp, log, sin, sqrt, tan)},
    "sum": SCM.sum,
    "mean": SCM.mean,
    "where": _where,
    "stack": _joined(torch.stack),
    **dict.fromkeys(("cat", "concat", "concatenate"), _joined(torch.cat)),
    "isnan": lambda x: x.bottom,
    "isfinite": lambda x: ~x.bottom,
}
