"""NumPy arrays at the border: numbers in, tensors on, whatever their memory looks like."""

import sys
from typing import Any

import torch
from torch import Tensor

from zeroproof.errors import RangeError

__all__ = ["from_array", "is_array"]


def is_array(x: object) -> bool:
    """Tell whether `x` is a NumPy array, without importing NumPy."""
    numpy = sys.modules.get("numpy")  # whoever holds an array has imported it
    return numpy is not None and isinstance(x, numpy.ndarray)


def from_array(x: Any, name: str) -> Tensor:
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
    x = x.astype(_native(numpy, x.dtype), copy=False)
    if isinstance(x, numpy.ma.MaskedArray):
        x = x.filled(numpy.nan)
    # torch takes neither read-only arrays nor negative strides; all others share their memory
    return torch.from_numpy(numpy.require(x, requirements="CAWE"))


def _native(numpy: Any, dtype: Any) -> Any:
    if dtype.kind in "biu":
        return numpy.dtype(numpy.float64)
    widest = numpy.dtype(numpy.complex128 if dtype.kind == "c" else numpy.float64)
    return widest if dtype.itemsize > widest.itemsize else dtype.newbyteorder("=")
