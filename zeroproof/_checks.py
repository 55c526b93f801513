"""Arguments at the public border: what must hold, then what came; arrays and half precision."""

import math
import sys
from collections.abc import Collection
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, TypeVar

from zeroproof.defaults import Parameter
from zeroproof.errors import RangeError, ShapeError

if TYPE_CHECKING:  # `zeroproof --help` shall not wait for torch
    from torch import Tensor

Choice = TypeVar("Choice")


def in_range(value: float, parameter: Parameter, *, name: str | None = None) -> float:
    """Return `value` if it is legal for `parameter`; nan never is.

    Raises:
        RangeError: It is not a number, or lies outside the legal range.
    """
    name = name or parameter.name
    low, high = parameter.low, parameter.high
    if not _is_real(value):
        raise RangeError(f"{name} must be a number, got {value!r}")
    above = value > low if parameter.open_low else value >= low
    if not (above and value <= high) or (high == math.inf == value):
        left = "(" if parameter.open_low else "["
        right = ")" if math.isinf(high) else "]"
        raise RangeError(f"{name} must lie in {left}{low:g}, {high:g}{right}, got {value!r}")
    return value


def threshold(value: float, parameter: Parameter, score: str, *, name: str | None = None) -> float:
    """Return a threshold if it is legal for the score that is compared with it.

    Raises:
        RangeError: It is not; the angle score never exceeds 1.
    """
    in_range(value, parameter, name=name)
    if score == "angle" and value > 1:
        name = name or parameter.name
        raise RangeError(f"{name} must lie in (0, 1] for the angle score, got {value!r}")
    return value


def positive(value: float, name: str) -> float:
    """Return `value` if it is finite and above zero.

    Raises:
        RangeError: It is not.
    """
    if not _is_real(value) or not 0 < value < math.inf:
        raise RangeError(f"{name} must be a finite number above 0, got {value!r}")
    return value


def whole(value: int, name: str, *, low: int = 0) -> int:
    """Return `value` if it is a whole number, at least `low`.

    Raises:
        RangeError: It is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | Integral) or value < low:
        raise RangeError(f"{name} must be a whole number of at least {low}, got {value!r}")
    return value


def ordered(low: float, high: float, low_name: str, high_name: str) -> None:
    """Check `low <= high`.

    Raises:
        RangeError: They are in the wrong order.
    """
    if not low <= high:
        raise RangeError(
            f"{low_name} must not exceed {high_name}, "
            f"got {low_name}={low!r} and {high_name}={high!r}"
        )


def one_of(value: Choice, choices: Collection[Choice], name: str) -> Choice:
    """Return `value` if it is among `choices`.

    Raises:
        RangeError: It is not.
    """
    if value not in choices:
        listed = ", ".join(repr(choice) for choice in choices)
        raise RangeError(f"{name} must be one of {listed}, got {value!r}")
    return value


def pair_shapes(N: "Tensor", D: "Tensor", names: str = "N and D") -> None:
    """Check that N and D are equal in shape, or `(*batch, k)` and `(*batch, 1)`: one shared D.

    Raises:
        ShapeError: They are neither.
    """
    if N.shape == D.shape:
        return
    if N.ndim == D.ndim >= 1 and D.shape[-1] == 1 and N.shape[:-1] == D.shape[:-1]:
        return
    raise ShapeError(
        f"{names} must have equal shapes, or (*batch, k) and (*batch, 1) for a shared denominator, "
        f"got {tuple(N.shape)} and {tuple(D.shape)}"
    )


def same_shape(x: "Tensor", like: "Tensor", name: str, like_name: str) -> None:
    """Check that `x` is exactly as large as `like`: nothing is broadcast silently.

    Raises:
        ShapeError: It is not.
    """
    if x.shape != like.shape:
        raise ShapeError(
            f"{name} must have the shape of {like_name}, {tuple(like.shape)}, got {tuple(x.shape)}"
        )


def _is_real(value: object) -> bool:
    return isinstance(value, int | float | Real) and not isinstance(value, bool)


def widen(x: "Tensor") -> "Tensor":
    """Return `x` in at least float32 (complex64); half precision and integers are converted."""
    import torch

    if x.dtype in (torch.float16, torch.bfloat16):
        return x.float()
    if x.dtype == torch.complex32:
        return x.to(torch.complex64)
    return x if x.is_floating_point() or x.is_complex() else x.to(torch.get_default_dtype())


def is_array(x: object) -> bool:
    """Tell whether `x` is a NumPy array, without importing NumPy."""
    numpy = sys.modules.get("numpy")  # whoever holds an array has imported it
    return numpy is not None and isinstance(x, numpy.ndarray)


def from_array(x: Any, name: str) -> "Tensor":
    """Return a NumPy array of numbers as a tensor; it may share the memory of the array.

    Integers and booleans become float64, as in NumPy's own division; a masked entry becomes nan.

    Args:
        x: An array of any shape, byte order and memory layout.
        name: What the message calls it.

    Raises:
        RangeError: It is not an array of numbers.

    Examples:
        >>> import numpy
        >>> from_array(numpy.array([1, 2])[::-1], "y")
        tensor([2., 1.], dtype=torch.float64)
    """
    if not is_array(x):
        raise RangeError(f"{name} must be a tensor or a NumPy array, got {type(x).__name__}")
    if x.dtype.kind not in "biufc":
        raise RangeError(f"{name} must be an array of numbers, got the dtype {x.dtype}")
    numpy = sys.modules["numpy"]
    widest = numpy.dtype(numpy.complex128 if x.dtype.kind == "c" else numpy.float64)
    exact = x.dtype.kind in "fc" and x.dtype.itemsize <= widest.itemsize
    x = x.astype(x.dtype.newbyteorder("=") if exact else widest, copy=False)
    if isinstance(x, numpy.ma.MaskedArray):
        x = x.filled(numpy.nan)
    import torch

    # torch takes neither read-only arrays nor negative strides; all others share their memory
    return torch.from_numpy(numpy.require(x, requirements="CAWE"))
