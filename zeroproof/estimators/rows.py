"""Rows held in memory, served in batches by one index operation each."""

from typing import Any

from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler

__all__ = ["row_loader"]


class _Rows(Dataset[tuple[Tensor, ...]]):
    def __init__(self, *columns: Tensor) -> None:
        self.columns = columns

    def __len__(self) -> int:
        return len(self.columns[0])

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        return tuple(x[index] for x in self.columns)

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, ...]:
        return tuple(x[indices] for x in self.columns)


def _as_they_are(batch: Any) -> Any:
    return batch  # already collated: one fancy index instead of a stack of rows


def row_loader(
    *columns: Tensor, batch_size: int, seed: int | None = None, passes: int = 1
) -> DataLoader[tuple[Tensor, ...]]:
    """Return a DataLoader over aligned tensors.

    Args:
        columns: Tensors of equal length.
        batch_size: Rows per batch.
        seed: Shuffles every pass anew, from a generator of its own; `None` keeps the order.
        passes: How often an epoch goes through the rows; an epoch of a single batch would spend
            more time on bookkeeping than on training.
    """
    rows = _Rows(*columns)
    sampler = None
    if seed is not None:
        generator = Generator().manual_seed(seed)
        sampler = RandomSampler(rows, num_samples=passes * len(rows), generator=generator)
    return DataLoader(rows, batch_size=batch_size, sampler=sampler, collate_fn=_as_they_are)
