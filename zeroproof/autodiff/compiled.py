"""Masks in compiled graphs: what the kernels of a vector unit are slow at, and how to go around it.

A vectorised loop stores and loads bools many times more slowly than floats. So a mask that leaves a
graph is written as bytes and turned into bools outside of the kernel (`masks`); and a mask that
backward needs is computed anew, for which it may consist only of operations that the partitioner
repeats: neither `|`, nor a comparison that reads more than four times what it writes, as that
within `isfinite` does.
"""

import math

import torch
from torch import Tensor

__all__ = [
    "LANES",
    "compiling",
    "either",
    "finite",
    "row_length",
    "stored",
]

LANES = 16  # floats in the widest vector
_LONGEST = 4096  # terms that float32 may sum one after the other
_SHORTEST = 256  # a row worth a loop


def compiling() -> bool:
    """Tell whether kernels are being generated; an exported graph shall stay plain."""
    return torch.compiler.is_compiling() and not torch.compiler.is_exporting()


def either(*masks: Tensor) -> Tensor:
    """Return where one of the masks is true; they broadcast."""
    joined, *others = masks
    for mask in others:
        joined = torch.where(joined, True, mask) if compiling() else joined | mask
    return joined


def finite(x: Tensor) -> Tensor:
    """Return where numbers are finite."""
    # of a complex number the modulus may overflow where both parts are finite
    return x.abs() < math.inf if compiling() and not x.is_complex() else torch.isfinite(x)


def stored(mask: Tensor) -> Tensor:
    """Return a mask as bytes, which a loop writes quickly; `as_mask` makes bools of them."""
    return torch.where(mask, 1.0, 0.0).to(torch.uint8)


def row_length(n: int) -> int | None:
    """Return the length of rows into which a long sum of n terms is cut, a multiple of `LANES`.

    Row by row it stays in the cache and needs no compensation. `None` where it is short, has no
    such rows, or where n is left open by a graph for any number of rows.
    """
    from torch.fx.experimental.symbolic_shapes import has_static_value  # imports half of a compiler

    if not has_static_value(n) or n <= _LONGEST:
        return None
    return next((k for k in range(_LONGEST, _SHORTEST - 1, -LANES) if n % k == 0), None)
