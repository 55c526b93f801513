"""Loaders: what may be one, and the batches and windows that come out of it."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple

from torch import Tensor
from torch.utils.data import DataLoader

from zeroproof.errors import DataError, RangeError

__all__ = ["Batch", "batches", "prepared", "windows"]


class Batch(NamedTuple):
    """One batch of a loader: whatever the model takes, and the targets `(n, *rest)`."""

    x: Any
    y: Tensor


def prepared(loader: Iterable[Any], name: str, accelerator: Any) -> Iterable[Any]:
    """Return a loader that gives each process its share.

    Raises:
        RangeError: It cannot be iterated in every epoch anew.
    """
    if not isinstance(loader, Iterable) or isinstance(loader, Iterator):
        raise RangeError(
            f"{name} must yield its batches anew in every epoch (a DataLoader or a list), "
            f"got {type(loader).__name__}"
        )
    # with one process Accelerate's wrapper would cost time per batch and change nothing
    if accelerator.num_processes > 1 and isinstance(loader, DataLoader):
        return accelerator.prepare_data_loader(loader)
    return loader


def batches(loader: Iterable[Any], name: str) -> Iterator[Batch]:
    """Yield the batches of one epoch.

    Raises:
        DataError: There is none, or one is not a pair (x, y).
    """
    empty = True
    for batch in loader:
        empty = False
        yield _unpack(batch)
    if empty:
        raise DataError(f"{name} must yield at least one batch (x, y), got none")


def windows(stream: Iterator[Batch], size: int) -> Iterator[list[Batch]]:
    """Yield lists of `size` batches, the last one possibly shorter."""
    while window := list(islice(stream, size)):
        yield window


def _unpack(batch: Any) -> Batch:
    """Return a loader's batch as (x, y).

    Raises:
        DataError: It is not a pair whose second part is a tensor with a row dimension.
    """
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        size = f" of {len(batch)}" if isinstance(batch, tuple | list | dict) else ""
        raise DataError(f"a batch must be a pair (x, y), got a {type(batch).__name__}{size}")
    x, y = batch
    if not isinstance(y, Tensor) or y.ndim == 0:
        came = f"shape {tuple(y.shape)}" if isinstance(y, Tensor) else type(y).__name__
        raise DataError(f"the targets y of a batch must be a tensor with rows, got {came}")
    return Batch(x, y)
