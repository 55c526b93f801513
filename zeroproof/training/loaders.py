"""What may be a batch, and the windows of batches that make one optimizer step."""

import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from zeroproof._checks import widen
from zeroproof._extras import require
from zeroproof.autodiff.compiled import has_values
from zeroproof.autodiff.sound import with_zeros
from zeroproof.errors import DataError

__all__ = ["Batch", "as_batch", "checked_weight", "not_empty", "widened", "windows", "with_rows"]

_FORMS = "a pair (x, y), a tuple (x1, ..., y), or a dict with an entry 'y'"


class Batch(NamedTuple):
    """What the model is called with, and the targets `(n, *rest)`.

    Attributes:
        args: Positional arguments of the model.
        named: Those by keyword.
        y: The targets.
        own: Rows of this process that count; 0 where its batch only keeps the others company.
        all: Rows of this step on all processes.
        weight: How much each label counts, in the shape of y or `(*batch, 1)`; 0 for one that is
            missing. `None`: all alike.
    """

    args: tuple[Any, ...]
    named: dict[str, Any]
    y: Tensor
    own: int
    all: int
    weight: Tensor | None = None

    @property
    def amount(self) -> float:
        """Rows of this process that count, or the summed weight of their labels over outputs."""
        if self.weight is None or not self.own:
            return float(self.own)  # a number of one kind on all processes, which add them up
        return self.weight.expand_as(self.y).double().sum().item() * self.own / self.y.numel()

    def weights(self) -> Tensor:
        """Return the weight of every answer that counts, `(rows,)`: the least of its outputs."""
        y = self.y[: self.own]
        weight = torch.ones_like(y.real) if self.weight is None else self.weight[: self.own]
        return weight.expand_as(y).reshape(-1, y.shape[-1] if y.ndim > 1 else 1).amin(1)

    def safe(self) -> tuple["Batch", Tensor]:
        """Return it with 0 for what is not finite in its inputs, and which rows have none."""
        (args, named), finite = with_zeros((self.args, self.named), self.y)
        return self._replace(args=args, named=named), finite

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
        named = {key: value for key, value in batch.items() if key not in ("y", "weight")}
    elif isinstance(batch, tuple | list) and len(batch) >= 2:
        *first, y = batch
        args, named = tuple(first), {}
    else:
        size = f" of {len(batch)}" if isinstance(batch, tuple | list | Mapping) else ""
        raise DataError(f"a batch must be {_FORMS}, got a {type(batch).__name__}{size}")
    if not isinstance(y, Tensor) or y.ndim == 0:
        came = f"shape {tuple(y.shape)}" if isinstance(y, Tensor) else type(y).__name__
        raise DataError(f"the targets y of a batch must be a tensor with rows, got {came}")
    weight = batch.get("weight") if isinstance(batch, Mapping) else None
    return Batch(args, named, y, len(y), len(y), checked_weight(weight, y))


def checked_weight(weight: Any, y: Tensor) -> Tensor | None:
    """Return weights of labels in the shape of y or `(*batch, 1)`, as real numbers.

    They may come in the shape of the leading dimensions of y; True counts 1 and False 0.

    Raises:
        DataError: They have another shape, or one is below 0 or not finite.
    """
    if weight is None:
        return None
    rows = (*y.shape[:-1], 1) if y.ndim > 1 else y.shape
    real = isinstance(weight, Tensor) and not weight.is_complex()
    came = tuple(weight.shape) if real else (type(weight).__name__,)
    if came not in (y.shape, rows, *(y.shape[:n] for n in range(1, y.ndim))):
        raise DataError(
            "weight of a batch must be a real tensor in the shape of the targets, "
            f"{tuple(y.shape)}, or of their leading dimensions, got {came}"
        )
    if weight.ndim < y.ndim:
        weight = weight.reshape(*weight.shape, *[1] * (y.ndim - weight.ndim)).expand(rows)
    weight = widen(weight)
    wrong = ~((weight >= 0) & (weight < math.inf))
    if has_values(wrong) and bool(wrong.any()):
        raise DataError(
            "weight of a batch must hold finite numbers of at least 0 (0: the label is missing), "
            f"got {weight[wrong][0].item()}"
        )
    return weight


def widened(batch: Batch, like: Tensor) -> Batch:
    """Return a batch with its inputs where a model with the parameter `like` wants them."""

    def placed(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return require("accelerate.utils", extra="train").send_to_device(x, like.device)
        # a float64 model needs float64 inputs; what is finer than the model, the model may narrow
        wider = x.is_floating_point() and like.dtype in {torch.float64, torch.complex128}
        return x.to(like.device, torch.float64 if wider else x.dtype)

    named = {name: placed(x) for name, x in batch.named.items()}
    return batch._replace(args=tuple(map(placed, batch.args)), named=named)


def with_rows(stream: Iterable[Any]) -> Iterator[Batch]:
    """Yield the batches that have rows: over none there is nothing to learn."""
    return (batch for batch in map(as_batch, stream) if len(batch.y))


def not_empty(stream: Iterator[Batch], name: str) -> Iterator[Batch]:
    """Yield batches on.

    Raises:
        DataError: There is none.
    """
    first = next(stream, None)
    if first is None:
        raise DataError(f"{name} must yield at least one batch (x, y) with rows, got none")
    yield first
    yield from stream


def windows(stream: Iterator[Batch], size: int) -> Iterator[list[Batch]]:
    """Yield lists of `size` batches, the last one possibly shorter."""
    while window := list(islice(stream, size)):
        yield window
