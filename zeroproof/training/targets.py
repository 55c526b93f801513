"""Targets as homogeneous tuples: finite, infinite and unknown values in one form."""

from typing import Any, TypeVar

import torch
from torch import Tensor

from zeroproof._checks import from_array, positive, widen

__all__ = ["lift_targets"]

Array = TypeVar("Array")


def lift_targets(y: Array, *, scale: float = 1.0) -> tuple[Array, Array]:
    """Lift targets to tuples (Y_n, Y_d).

    Formula: finite y → ⟨y / s, 1⟩, ±inf → ⟨±1, 0⟩, nan → ⟨1, 0⟩: ⊥ of unknown sign, so pass
    `mask=~isnan(y)` to the sign loss. Complex numbers have one infinity: what is not finite → ⟨1,
    0⟩. A quotient y / s that overflows is infinite.

    Args:
        y: A tensor or a NumPy array of any shape, real or complex; half precision becomes float32,
            integers become floats (float64 in NumPy). A masked entry of an array is nan.
        scale: s, above 0, in the units of y; `projective.target_scale` proposes one.

    Returns:
        (Y_n, Y_d), each of the kind and shape of `y`.

    Raises:
        RangeError: `scale` is not a finite number above 0, or `y` is neither a tensor nor an array
            of numbers.

    Examples:
        >>> lift_targets(torch.tensor([2.0, float("-inf"), float("nan")]))
        (tensor([ 2., -1.,  1.]), tensor([1., 0., 0.]))
    """
    positive(scale, "scale")
    values: Any = y
    if isinstance(values, Tensor):
        Y_n, Y_d = _lifted(widen(values), scale)
    else:
        lifted = _lifted(widen(from_array(values, "y")), scale)
        Y_n, Y_d = (x.numpy() for x in lifted)
    return Y_n, Y_d  # pyright: ignore[reportReturnType]


def _lifted(y: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    y = y / scale
    finite = torch.isfinite(y)
    if y.is_complex():
        at_infinity = torch.ones_like(y)
    else:
        at_infinity = torch.where(y == -torch.inf, -1, 1).to(y.dtype)
    return torch.where(finite, y, at_infinity), finite.to(y.dtype)
