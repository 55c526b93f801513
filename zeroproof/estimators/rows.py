"""Rows held in memory, served in batches by one index operation each."""

import math
from collections.abc import Iterator

import torch
from torch import Generator, Tensor

__all__ = ["RowBatches"]


class RowBatches:
    """Batches of aligned tensors, anew in every epoch.

    A `DataLoader` passes every index through Python, which costs a tenth of a small step.

    Args:
        columns: Tensors of equal length.
        batch_size: Rows per batch; batches run on from one pass into the next.
        seed: Shuffles every pass anew, from a generator of its own; `None` keeps the order.
        passes: How often an epoch goes through the rows; an epoch of a single batch would spend
            more time on bookkeeping than on training.
    """

    def __init__(
        self, *columns: Tensor, batch_size: int, seed: int | None = None, passes: int = 1
    ) -> None:
        self._columns, self._batch_size, self._passes = columns, batch_size, passes
        self._generator = None if seed is None else Generator().manual_seed(seed)

    def __len__(self) -> int:
        return math.ceil(len(self._columns[0]) * self._passes / self._batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        rows = len(self._columns[0])
        order = torch.cat([self._pass(rows) for _ in range(self._passes)])
        for index in order.split(self._batch_size):
            yield tuple(column[index] for column in self._columns)

    def _pass(self, rows: int) -> Tensor:
        if self._generator is None:
            return torch.arange(rows)
        return torch.randperm(rows, generator=self._generator)
