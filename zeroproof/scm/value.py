"""SCM values: tensors over a field extended by one absorbing element ⊥, the result of 1 / 0."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from zeroproof._checks import same_shape
from zeroproof.autodiff.compiled import compiling, either, finite
from zeroproof.errors import RangeError, ShapeError
from zeroproof.scm.arithmetic import add, div, fill, inv, mul, neg, sub
from zeroproof.scm.powers import complex_dtype, integer_power, real_power
from zeroproof.scm.pytree import register_class

__all__ = ["SCM", "Operand", "as_scm", "from_ieee", "to_ieee", "trusted"]

_MOST_FACTORS = 64  # whole floats up to here are taken as integer exponents


class SCM:
    r"""Values of a common meadow: numbers, or ⊥ where a division by zero took part.

    `+ - * / **` and unary `-` are total: they never raise on values and never branch on them.
    Python numbers and tensors may stand on either side; shapes broadcast. ⊥ absorbs: x + ⊥ = ⊥,
    x · ⊥ = ⊥, and 0⁻¹ = ⊥. A result that overflows is ⊥. The payload is nan at ⊥ after every
    operation.

    While backward runs, gradients at ⊥ are 0. `/`, `inv()` and powers other than positive whole
    ones can make ⊥: on the gradients of their operands the whole gradient policy acts. Under
    `GradientPolicy.PASSTHROUGH` raw IEEE gradients go through ⊥. Forward mode (`torch.func.jvp`)
    knows no policy: tangents are 0 at ⊥ and plain elsewhere.

    Args:
        payload: Numbers, real or complex, `(*batch,)`; integers become the default float type.
            Entries that are not finite are ⊥.
        bottom: Further entries that are ⊥, boolean, in exactly the shape of `payload`.

    Attributes:
        payload: The numbers; nan at ⊥.
        bottom: True at ⊥.

    Raises:
        ShapeError: `bottom` has another shape than `payload`, or operands do not broadcast.
        RangeError: `bottom` is not boolean, or `payload` not a tensor or number.

    Source: Bergstra & Ponse, arXiv:1406.6878.

    Examples:
        >>> x = SCM(torch.tensor([2.0, 0.0]))
        >>> 1 / x
        SCM(payload=tensor([0.5000,    nan]), bottom=tensor([False,  True]))
        >>> (1 / x) * 0
        SCM(payload=tensor([0., nan]), bottom=tensor([False,  True]))
    """

    __slots__ = ("bottom", "payload")
    __array_ufunc__ = None  # NumPy numbers and arrays leave the operator to SCM

    payload: Tensor
    bottom: Tensor

    def __init__(self, payload: Tensor | complex, bottom: Tensor | None = None) -> None:
        if not isinstance(payload, Tensor):
            payload = _number(payload)
        if not (payload.is_floating_point() or payload.is_complex()):
            payload = payload.to(torch.get_default_dtype())
        if bottom is None:
            bottom = torch.zeros_like(payload, dtype=torch.bool)
        elif bottom.dtype != torch.bool:
            raise RangeError(f"bottom must be a boolean tensor, got {bottom.dtype}")
        same_shape(bottom, payload, "bottom", "payload")
        self.payload, self.bottom = fill(payload, bottom)

    @classmethod
    def from_ieee(cls, x: Tensor | complex) -> "SCM":
        """Read IEEE numbers: nan and ±inf become ⊥, all others themselves."""
        return cls(x)

    def to_ieee(self) -> Tensor:
        """Return the payload: nan at ⊥."""
        return self.payload

    @property
    def shape(self) -> torch.Size:
        """Shape of payload and bottom."""
        return self.payload.shape

    def inv(self) -> "SCM":
        """Return x⁻¹; 0⁻¹ = ⊥⁻¹ = ⊥."""
        return trusted(*inv(self.payload, self.bottom))

    def __repr__(self) -> str:
        return f"SCM(payload={self.payload!r}, bottom={self.bottom!r})"

    def __iter__(self) -> Iterator[Tensor]:
        """Iterate over the two fields, so that `payload, bottom = x` and `encode(*x)` work."""
        return iter((self.payload, self.bottom))

    def __getitem__(self, index: Any) -> "SCM":
        """Index both fields as torch does."""
        return trusted(self.payload[index], self.bottom[index])

    def __neg__(self) -> "SCM":
        return trusted(*neg(self.payload, self.bottom))

    def __pos__(self) -> "SCM":
        return self

    def __add__(self, other: "Operand") -> "SCM":
        return _plus(self, other)

    def __radd__(self, other: "Operand") -> "SCM":
        return _plus(other, self)

    def __sub__(self, other: "Operand") -> "SCM":
        return _minus(self, other)

    def __rsub__(self, other: "Operand") -> "SCM":
        return _minus(other, self)

    def __mul__(self, other: "Operand") -> "SCM":
        return _times(self, other)

    def __rmul__(self, other: "Operand") -> "SCM":
        return _times(other, self)

    def __truediv__(self, other: "Operand") -> "SCM":
        return _over(self, other)

    def __rtruediv__(self, other: "Operand") -> "SCM":
        return _over(other, self)

    def __pow__(self, exponent: "Operand") -> "SCM":
        """Return xʸ; a Python number that is whole means repeated multiplication."""
        return _to_the(self, exponent)

    def __rpow__(self, base: "Operand") -> "SCM":
        return _to_the(base, self)

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Answer `tensor / x` and its like, which torch's compiler asks about only in this way."""
        meant = _ASKED_BY_TORCH.get(func.__name__)
        return NotImplemented if meant is None or kwargs else meant(*args)


Operand = SCM | Tensor | complex  # complex: any Python number


def trusted(payload: Tensor, bottom: Tensor) -> SCM:
    """Return an SCM value of fields as a kernel returns them: nothing is checked or filled."""
    x = SCM.__new__(SCM)
    x.payload, x.bottom = payload, bottom
    return x


register_class(SCM, ("payload", "bottom"), trusted)


def as_scm(x: Operand, like: SCM | None = None) -> SCM:
    """Return `x` as an SCM value; a Python number takes dtype and device that suit `like`."""
    if isinstance(x, SCM):
        return x
    if not isinstance(x, Tensor) and like is not None:
        x = _number(x, like.payload)
    return SCM(x)


def from_ieee(x: Tensor | complex) -> SCM:
    """Read IEEE numbers as SCM values: nan and ±inf become ⊥.

    Examples:
        >>> from_ieee(torch.tensor([1.0, float("inf")])).bottom
        tensor([False,  True])
    """
    return SCM(x)


def to_ieee(x: SCM) -> Tensor:
    """Return the payload of an SCM value: nan at ⊥."""
    return x.payload


def _number(x: complex, like: Tensor | None = None) -> Tensor:
    if isinstance(x, bool) or not isinstance(x, int | float | complex):
        raise RangeError(f"an operand must be an SCM value, a tensor or a number, got {x!r}")
    if like is None:
        return torch.as_tensor(x)
    mixed = isinstance(x, complex) and not like.is_complex()
    dtype = complex_dtype(like.dtype) if mixed else like.dtype
    return torch.full((), x, dtype=dtype, device=like.device)


def _whole(exponent: object) -> int | None:
    if isinstance(exponent, float) and exponent.is_integer() and abs(exponent) <= _MOST_FACTORS:
        return int(exponent)
    return exponent if isinstance(exponent, int) and not isinstance(exponent, bool) else None


def _binary(kernel: Callable[..., tuple[Tensor, Tensor]], left: Operand, right: Operand) -> SCM:
    like = left if isinstance(left, SCM) else right if isinstance(right, SCM) else None
    left, right = as_scm(left, like), as_scm(right, like)
    _check_broadcast(left.shape, right.shape)
    return trusted(*kernel(left.payload, right.payload, either(_lost(left), _lost(right))))


def _lost(x: SCM) -> Tensor:
    """Return ⊥; of a compiled graph's vectors by the payload, since they load bools slowly."""
    return ~finite(x.payload) if compiling() else x.bottom


def _check_broadcast(left: torch.Size, right: torch.Size) -> None:
    for m, n in zip(reversed(left), reversed(right), strict=False):
        if m not in (1, n) and n != 1:
            raise ShapeError(f"operands must broadcast, got {tuple(left)} and {tuple(right)}")


def _plus(left: Operand, right: Operand) -> SCM:
    return _binary(add, left, right)


def _minus(left: Operand, right: Operand) -> SCM:
    return _binary(sub, left, right)


def _times(left: Operand, right: Operand) -> SCM:
    return _binary(mul, left, right)


def _over(left: Operand, right: Operand) -> SCM:
    return _binary(div, left, right)


def _to_the(base: Operand, exponent: Operand) -> SCM:
    n = _whole(exponent)
    if n is None:
        return _binary(real_power, base, exponent)
    base = as_scm(base)
    return trusted(*integer_power(base.payload, n, base.bottom))


# by the name of the torch function or operator; reflected ones come with the tensor in second place
_ASKED_BY_TORCH: dict[str, Callable[..., SCM]] = {
    "add": _plus,
    "sub": _minus,
    "mul": _times,
    "div": _over,
    "truediv": _over,
    "pow": _to_the,
    "__rsub__": lambda right, left: _minus(left, right),
    "__rdiv__": lambda right, left: _over(left, right),
    "__rpow__": lambda right, left: _to_the(left, right),
    "neg": SCM.__neg__,
}
