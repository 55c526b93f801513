"""What may be a batch, and the windows of batches that make one optimizer step."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

from torch import Tensor, nn

from zeroproof.errors import DataError

__all__ = ["Batch", "as_batch", "batches", "windows", "with_rows"]

_FORMS = "a pair (x, y), a tuple (x1, ..., y), or a dict with an entry 'y'"


class Batch(NamedTuple):
    """What the model is called with, and the targets `(n, *rest)`.

    Attributes:
        args: Positional arguments of the model.
        named: Those by keyword.
        y: The targets.
        own: Rows of this process that count; 0 where its batch only keeps the others company.
        all: Rows of this step on all processes.
    """

    args: tuple[Any, ...]
    named: dict[str, Any]
    y: Tensor
    own: int
    all: int

    def through(self, model: nn.Module) -> Any:
        """Return what the model makes of it."""
        return model(*self.args, **self.named)


def as_batch(batch: Any) -> Batch:
    """Read what a loader yields.

    Raises:
        DataError: It has another form, or its targets are no tensor with a row dimension.
    """
    args: tuple[Any, ...]
    if isinstance(batch, Mapping) and "y" in batch:
        args, y = (), batch["y"]
        named = {key: value for key, value in batch.items() if key != "y"}
    elif isinstance(batch, tuple | list) and len(batch) >= 2:
        *first, y = batch
        args, named = tuple(first), {}
    else:
        size = f" of {len(batch)}" if isinstance(batch, tuple | list | Mapping) else ""
        raise DataError(f"a batch must be {_FORMS}, got a {type(batch).__name__}{size}")
    if not isinstance(y, Tensor) or y.ndim == 0:
        came = f"shape {tuple(y.shape)}" if isinstance(y, Tensor) else type(y).__name__
        raise DataError(f"the targets y of a batch must be a tensor with rows, got {came}")
    return Batch(args, named, y, len(y), len(y))


def batches(loader: Iterable[Any], name: str) -> Iterator[Batch]:
    """Yield the batches of one epoch.

    Raises:
        DataError: There is none, or one has none of the forms.
    """
    empty = True
    for batch in with_rows(loader):
        empty = False
        yield batch
    if empty:
        raise DataError(f"{name} must yield at least one batch (x, y) with rows, got none")


def with_rows(stream: Iterable[Any]) -> Iterator[Batch]:
    """Yield the batches that have rows: over none there is nothing to learn."""
    return (batch for batch in map(as_batch, stream) if len(batch.y))


def windows(stream: Iterator[Batch], size: int) -> Iterator[list[Batch]]:
    """Yield lists of `size` batches, the last one possibly shorter."""
    while window := list(islice(stream, size)):
        yield window
