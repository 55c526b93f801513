"""SCM values: tensors over a field extended by one absorbing element ⊥, the result of 1 / 0."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from importlib import import_module
from numbers import Complex, Integral, Real
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.overrides import resolve_name
from torch.utils.data._utils.collate import default_collate_fn_map

from zeroproof._checks import from_array, is_array, same_shape
from zeroproof.autodiff.compiled import compiling, either, finite, register_class
from zeroproof.errors import NotSupportedError, RangeError, ShapeError
from zeroproof.scm.division import divide
from zeroproof.scm.operation import (
    add,
    complex_dtype,
    fill,
    integer_power,
    inv,
    mul,
    neg,
    real_power,
    sub,
)

__all__ = ["MEANINGS", "SCM", "Operand", "as_scm", "from_ieee", "to_ieee", "trusted"]

MEANINGS: dict[str, Callable[..., Any]] = {}  # of torch's functions, by name
# those that only move entries: both fields alike
MOVES = {"broadcast_to", "clone", "contiguous", "detach", "expand", "flatten", "flip", "movedim"}
MOVES |= {"narrow", "permute", "ravel", "repeat", "reshape", "roll", "select", "squeeze", "t"}
MOVES |= {"swapaxes", "tile", "transpose", "unflatten", "unsqueeze", "view"}
_PRINTED = 64  # entries that are all printed; of more, three at either end
_MOST_FACTORS = 64  # whole floats up to here are taken as integer exponents


class SCM:
    r"""Values of a common meadow: numbers, or ⊥ where a division by zero took part.

    `+ - * / ** @` and unary `-` are total: they never raise on values and never branch on them.
    Numbers, tensors and NumPy arrays may stand on either side; shapes broadcast. ⊥ absorbs:
    x + ⊥ = ⊥, x · ⊥ = ⊥, and 0⁻¹ = ⊥. A result that overflows is ⊥. The payload is nan at ⊥ after
    every operation. Comparisons, truth values and hashes are refused: ⊥ is neither true nor false.

    While backward runs, gradients at ⊥ are 0. `/`, `inv()` and powers other than positive whole
    ones can make ⊥: on the gradients of their operands the whole gradient policy acts. Under
    `GradientPolicy.PASSTHROUGH` raw IEEE gradients go through ⊥. Forward mode (`torch.func.jvp`)
    knows no policy: tangents are 0 at ⊥ and plain elsewhere.

    Args:
        payload: Numbers, real or complex, `(*batch,)`, a tensor or a NumPy array; integers become
            the default float type.
            Entries that are not finite are ⊥.
        bottom: Further entries that are ⊥, boolean, in exactly the shape of `payload`.

    Attributes:
        payload: The numbers; nan at ⊥.
        bottom: True at ⊥.

    Raises:
        ShapeError: `bottom` has another shape than `payload`, or operands do not broadcast.
        RangeError: `bottom` is not boolean, or `payload` neither tensor, array nor number.
        NotSupportedError: A value is compared, hashed, asked whether it is true, or given to a
            function of torch that is not defined for it.

    Source: Bergstra & Ponse, arXiv:1406.6878.

    Examples:
        >>> x = SCM(torch.tensor([2.0, 0.0]))
        >>> 1 / x
        SCM(payload=tensor([0.5000,    nan]), bottom=tensor([False,  True]))
        >>> (1 / x) * 0
        SCM(payload=tensor([0., nan]), bottom=tensor([False,  True]))
    """

    __slots__ = ("bottom", "payload")
    __array_ufunc__ = None  # NumPy's numbers and arrays leave the operator to SCM

    payload: Tensor
    bottom: Tensor

    def __init__(self, payload: Tensor | complex, bottom: Tensor | None = None) -> None:
        if not isinstance(payload, Tensor):
            payload = _tensor(payload)
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

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return self.payload.ndim

    @property
    def dtype(self) -> torch.dtype:
        """Type of the payload."""
        return self.payload.dtype

    @property
    def device(self) -> torch.device:
        """Where both fields are."""
        return self.payload.device

    def numpy(self) -> Any:
        """Return the payload as a NumPy array without gradients: nan at ⊥."""
        return self.payload.numpy(force=True)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        array = self.numpy() if dtype is None else self.numpy().astype(dtype, copy=False)
        return array.copy() if copy else array

    def tolist(self) -> Any:
        """Return the payload as nested lists of numbers: nan at ⊥."""
        return self.payload.tolist()

    def item(self) -> complex:
        """Return the one entry as a number: nan for ⊥."""
        return self.payload.item()

    def to(self, *args: Any, **kwargs: Any) -> "SCM":
        """Move or convert as `torch.Tensor.to` does; what overflows the new type is ⊥."""
        payload = self.payload.to(*args, **kwargs)
        if not (payload.is_floating_point() or payload.is_complex()):
            raise NotSupportedError(f"⊥ has no place in {payload.dtype}; convert x.payload")
        return SCM(payload, self.bottom.to(payload.device))

    def clone(self) -> "SCM":
        """Copy both fields; gradients pass."""
        return trusted(self.payload.clone(), self.bottom.clone())

    def detach(self) -> "SCM":
        """Return the same fields without a gradient."""
        return trusted(self.payload.detach(), self.bottom)

    def reshape(self, *shape: Any) -> "SCM":
        """Return both fields in another shape."""
        return trusted(self.payload.reshape(*shape), self.bottom.reshape(*shape))

    def abs(self) -> "SCM":
        r"""Return \|x\|, real; no gradient reaches ⊥ and 0."""
        return SCM(torch.where(self.bottom, 0, self.payload).abs(), self.bottom)

    def sum(self, dim: Any = None, keepdim: bool = False) -> "SCM":
        """Sum; ⊥ where one of the terms is. `masked_sum` leaves those out."""
        return SCM(
            self.payload.sum(dim, keepdim=keepdim)
        )  # nan absorbs, and what is ⊥ has gradient 0

    def mean(self, dim: Any = None, keepdim: bool = False) -> "SCM":
        """Average; ⊥ where one of the terms is, or over none. `masked_mean` leaves those out."""
        count = torch.ones_like(self.payload).sum(dim, keepdim=True)
        mean = (self.payload / count).sum(dim, keepdim=keepdim)  # terms first: a sum may overflow
        return SCM(mean, count.reshape(mean.shape) == 0)

    def matmul(self, other: "Operand") -> "SCM":
        """Return x @ y as `torch.matmul` does; ⊥ where a term is. No gradient reaches ⊥."""
        return _product(self, other)

    def inv(self) -> "SCM":
        """Return x⁻¹; 0⁻¹ = ⊥⁻¹ = ⊥."""
        return trusted(*inv(self.payload, self.bottom))

    def __repr__(self) -> str:
        if (count := self.payload.numel()) > _PRINTED:
            ends = (field.detach().reshape(-1)[[0, 1, 2, -3, -2, -1]] for field in self)
            with suppress(RuntimeError):  # nobody knows numbers within `torch.func.vmap`
                pairs = zip(*(field.tolist() for field in ends), strict=True)
                words = ["⊥" if bottom else f"{x:.4g}" for x, bottom in pairs]
                words.insert(3, "...")
                return (
                    f"SCM([{', '.join(words)}], {int(self.bottom.sum())} of {count} are ⊥, "
                    f"shape={tuple(self.shape)}, dtype={self.dtype}, device='{self.device}')"
                )
        return f"SCM(payload={self.payload!r}, bottom={self.bottom!r})"

    def __format__(self, spec: str) -> str:
        if not spec:
            return repr(self)
        if self._one("formatted"):
            return format(self.item(), spec)
        text = format(math.nan, spec)
        return "⊥" if text == "nan" else text.replace("nan", "  ⊥")  # in a width, if one is given

    def _one(self, deed: str) -> bool:
        """Tell whether the one entry is a number; more entries than one are refused."""
        if self.payload.numel() != 1:
            raise NotSupportedError(
                f"one value alone can be {deed}, got the shape {tuple(self.shape)}; take an entry, "
                "such as x[0], or all by x.tolist() or x.numpy()"
            )
        return not self.bottom.any()

    def __float__(self) -> float:
        if not self._one("made a float"):
            raise RangeError(
                "a value made a float must be a number, got ⊥; ask x.bottom, or take x.item(): nan"
            )
        return float(self.payload.item())

    def __len__(self) -> int:
        """Return the size of the first dimension, as of a tensor; iterating yields two fields."""
        if not self.ndim:
            raise NotSupportedError(
                "a value must have a dimension to have a length, got a scalar; "
                "torch.tensor asks for it: take x.payload instead, a tensor that is nan at ⊥"
            )
        return len(self.payload)

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

    def __abs__(self) -> "SCM":
        return self.abs()

    def __matmul__(self, other: "Operand") -> "SCM":
        return _product(self, other)

    def __rmatmul__(self, other: "Operand") -> "SCM":
        return _product(other, self)

    def _undecided(self, *_: object) -> NoReturn:
        raise NotSupportedError(
            "an SCM value has no comparison, truth value or hash, since ⊥ is neither true nor "
            "false; decide by x.bottom, and compare x.payload, which is nan there"
        )

    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __contains__ = _undecided
    __bool__ = __hash__ = _undecided

    def __getstate__(self) -> tuple[Tensor, Tensor]:
        return self.payload, self.bottom

    def __setstate__(self, state: tuple[Tensor, Tensor]) -> None:
        self.payload, self.bottom = state

    def __add__(self, other: "Operand") -> "SCM":
        return _binary(add, self, other)

    def __radd__(self, other: "Operand") -> "SCM":
        return _binary(add, other, self)

    def __sub__(self, other: "Operand") -> "SCM":
        return _binary(sub, self, other)

    def __rsub__(self, other: "Operand") -> "SCM":
        return _binary(sub, other, self)

    def __mul__(self, other: "Operand") -> "SCM":
        return _binary(mul, self, other)

    def __rmul__(self, other: "Operand") -> "SCM":
        return _binary(mul, other, self)

    def __truediv__(self, other: "Operand") -> "SCM":
        return _binary(divide, self, other)

    def __rtruediv__(self, other: "Operand") -> "SCM":
        return _binary(divide, other, self)

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
        """Answer torch's functions, and `tensor / x`, which its compiler asks for in this way."""
        name, kwargs = func.__name__, kwargs or {}
        if name in MOVES and isinstance(args[0], SCM):
            x, *how = args
            return trusted(func(x.payload, *how, **kwargs), func(x.bottom, *how, **kwargs))
        try:
            return MEANINGS[name](*args, **kwargs)
        except NotSupportedError:
            raise
        except (KeyError, TypeError) as error:
            raise NotSupportedError(
                f"{resolve_name(func)} is not defined for SCM values, or not with these arguments; "
                "use zeroproof.scm, or x.payload (nan at ⊥) and x.bottom. Defined are "
                + ", ".join(sorted(x for x in {*MEANINGS, *MOVES} if x[0] != "_"))
            ) from error


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
    return SCM(x if isinstance(x, Tensor) else _tensor(x, None if like is None else like.payload))


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


def _number(x: object) -> Any:
    """Return a number of any kind as Python's own: NumPy's, fractions."""
    if type(x) in {int, float, complex}:
        return x
    for kind, plain in ((Integral, int), (Real, float), (Complex, complex)):
        if isinstance(x, kind) and not isinstance(x, bool):
            return plain(x)  # pyright: ignore[reportArgumentType]
    raise RangeError(f"an operand must be an SCM value, a tensor, an array or a number, got {x!r}")


def _tensor(x: Any, like: Tensor | None = None) -> Tensor:
    """Return an array or a number as a tensor; a number, and whole numbers, suit `like`."""
    if is_array(x):
        array = from_array(x, "an operand")
        whole = torch.get_default_dtype() if like is None else like.dtype
        array = array.to(whole) if x.dtype.kind in "biu" else array
        return array if like is None else array.to(like.device)
    x = _number(x)
    if like is None:
        return torch.as_tensor(x)
    mixed = isinstance(x, complex) and not like.is_complex()
    dtype = complex_dtype(like.dtype) if mixed else like.dtype
    return torch.full((), x, dtype=dtype, device=like.device)


def _whole(exponent: Any) -> int | None:
    if isinstance(exponent, SCM | Tensor) or is_array(exponent):
        return None
    exponent = _number(exponent)
    if isinstance(exponent, float) and exponent.is_integer() and abs(exponent) <= _MOST_FACTORS:
        return int(exponent)
    return exponent if isinstance(exponent, int) else None


def _product(left: Operand, right: Operand) -> SCM:
    like = left if isinstance(left, SCM) else right if isinstance(right, SCM) else None
    x, y = as_scm(left, like), as_scm(right, like)
    a, b = (torch.where(z.bottom, 0, z.payload) for z in (x, y))
    # how many terms are ⊥: a product of masks with ones has the shape of the product
    lost = x.bottom.float() @ torch.ones_like(y.bottom, dtype=torch.float32)
    lost = lost + torch.ones_like(x.bottom, dtype=torch.float32) @ y.bottom.float()
    return SCM(a @ b, lost > 0)


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


def _to_the(base: Operand, exponent: Operand) -> SCM:
    n = _whole(exponent)
    if n is None:
        return _binary(real_power, base, exponent)
    base = as_scm(base)
    return trusted(*integer_power(base.payload, n, base.bottom))


def _collate(batch: Sequence[SCM], *, collate_fn_map: Any = None) -> SCM:
    payloads, bottoms = zip(*batch, strict=True)
    return trusted(torch.stack(payloads), torch.stack(bottoms))


default_collate_fn_map[SCM] = _collate  # so `torch.utils.data.default_collate` learns a type
import_module("zeroproof.scm.functions")  # it needs SCM, and fills MEANINGS
