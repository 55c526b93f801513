"""Where kernels of our own may stand in for plain torch operations."""

import itertools
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from zeroproof.autodiff.torch_internals import (
    is_forward_mode,
    is_recording,
    is_tracing,
    is_transforming,
)

__all__ = ["any_true", "chunk_size", "chunks", "ordinary", "surely_finite"]

CHUNK = 80_000  # entries for each thread, of no power of two, whose chunks would share cache lines

_REAL = (torch.float32, torch.float64)
_KINDS = (Tensor, nn.Parameter)  # a subclass may mean anything by an operation


def ordinary(*tensors: Tensor) -> bool:
    """Tell whether these are real tensors on a CPU, of one type, that nobody but autograd watches.

    Compilers, `torch.func` and forward mode need operations which they know, and which do not
    depend on values; an accelerator would be waited for.
    """
    if torch.compiler.is_compiling() or torch.compiler.is_exporting():
        return False
    if is_tracing() or is_transforming() or is_forward_mode() or is_recording():
        return False
    dtype = tensors[0].dtype
    return dtype in _REAL and all(
        type(x) in _KINDS and x.is_cpu and x.dtype == dtype and _has_memory(x) for x in tensors
    )


def _has_memory(x: Tensor) -> bool:
    """Tell a tensor from a stand-in for many, as gradients taken in batches are."""
    try:
        x.data_ptr()
    except RuntimeError:
        return False
    return True


def surely_finite(x: Tensor) -> bool:
    """Tell by one reduction that all numbers are finite; false also where a square overflows."""
    x = x if x.ndim == 1 else x.reshape(-1)
    return torch.dot(x, x).item() < math.inf


def any_true(mask: Tensor) -> bool:
    """Tell whether anything in a mask, which is not empty, is true."""
    # the largest byte is found ten times faster than a truth value
    return mask.view(torch.uint8).amax().item() > 0


def chunk_size() -> int:
    """Return how many entries one step of a kernel takes, so that they stay in the caches."""
    return CHUNK * torch.get_num_threads()  # each of them takes its part of every operation


def chunks(size: int, rows: int, *tensors: Tensor | None) -> Iterator[tuple[Any, ...]]:
    """Cut into chunks, flat unless D serves several entries of a row; what is `None` stays so.

    Args:
        size: Entries in a chunk; no more than that are returned in one piece, as they are.
        rows: How many entries D has.
        tensors: Of one entry each for every row, or for every output.
    """
    entries = max(0 if x is None else x.numel() for x in tensors)
    if entries <= size:
        return iter((tensors,))
    width = entries // rows
    shape, tall = ((rows, -1) if width > 1 else -1), max(size // width, 1)
    cut = (itertools.repeat(None) if x is None else x.reshape(shape).split(tall) for x in tensors)
    return zip(*cut, strict=False)
