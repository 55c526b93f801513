"""The rows of a loader as a head sees them: features, answers, lifted targets, weights."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from zeroproof._checks import same_shape
from zeroproof.errors import DataError, ShapeError, TrainingError
from zeroproof.layers.head import ProjectiveHead
from zeroproof.projective.angle import chordal_distance
from zeroproof.solve.spectral import Parts
from zeroproof.solve.tall_qr import gathered
from zeroproof.training._head import features, with_ones
from zeroproof.training._loaders import Batch, batches, widened
from zeroproof.training.targets import lift_targets

__all__ = ["Rows", "told"]


class Answers(NamedTuple):
    """One batch, a row for each answer."""

    h: Tensor  # what the head got
    N: Tensor  # what the model made of it
    D: Tensor
    Y_n: Tensor
    Y_d: Tensor
    weight: Tensor  # (rows,), 0 for a row of the other part


class Rows(NamedTuple):
    """Rows of a loader behind a trunk."""

    model: nn.Module
    head: ProjectiveHead
    loader: Iterable[Any]
    scale: float
    part: str  # "all", or "train" or "held" of a loader that serves for both

    def blocks(self) -> "_Blocks":
        """Return blocks for the solver; every iteration reads the loader again."""
        return _Blocks(self)

    def error(self, *, distributed: bool) -> float:
        """Return the mean squared chordal distance of the model's answers."""
        total, raised = [0.0, 0.0], None
        try:
            for _, N, D, Y_n, Y_d, weight in self.answers():
                far = chordal_distance(N.to(Y_n), D.to(Y_n), Y_n, Y_d).square().nan_to_num(nan=1.0)
                total[0] += (weight[:, None] * far).sum().item()
                total[1] += weight.sum().item() * far.shape[1]
        except Exception as error:  # noted, so that no other process waits for ever
            raised = error
        sums = gathered(total, raised, distributed=distributed)
        error, weight = (sum(each) for each in zip(*sums, strict=True))
        if not weight > 0:
            raise DataError("rows must be held out to choose on, got none; pass more of them")
        return error / weight

    def answers(self) -> Iterator[Answers]:
        """Yield what the head got and gave, batch by batch."""
        like = self.head.numerator.weight
        for batch in batches(self.loader, "loader"):
            h, N, D = _traced(self.model, self.head, widened(batch, like))
            same_shape(batch.y, N, "the targets y of a batch", "N")
            yield self._answer(batch, h, N, D)

    def _answer(self, batch: Batch, h: Tensor, N: Tensor, D: Tensor) -> Answers:
        y = batch.y.to(h.device)
        weight = self._weights(batch).to(y.device)
        h, N, D, y = (z.reshape(-1, z.shape[-1]) for z in (h, N, D, y))
        _check_features(h)
        if len(h) != len(y):
            raise ShapeError(
                f"features and targets must agree in rows, got {len(h)} and {len(y)} of them"
            )
        wide = torch.complex128 if y.is_complex() or N.is_complex() else torch.float64
        Y_n, Y_d = lift_targets(y.to(wide), scale=self.scale)
        weight = weight.repeat_interleave(len(y) // max(len(weight), 1))
        return Answers(h, N, D, Y_n, Y_d, weight * batch.weights().to(weight))

    def _weights(self, batch: Batch) -> Tensor:
        if self.part == "all":
            return torch.ones(len(batch.y), dtype=torch.float64)
        held = told(batch)
        return (held if self.part == "held" else ~held).double()


class _Blocks:
    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def __iter__(self) -> Iterator[Parts]:
        for h, _, _, Y_n, Y_d, weight in self._rows.answers():
            yield with_ones(h), None, Y_n, Y_d, weight


def _traced(model: nn.Module, head: ProjectiveHead, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Return h, N, D: what the head got, and what the model made of it."""
    seen, outputs = features(model, head, batch)
    if len(seen) != 1:
        raise TrainingError(f"model must use its ProjectiveHead once, got {len(seen)} times")
    if not isinstance(outputs, tuple | list) or len(outputs) != 2:
        raise TrainingError(f"model must return a pair (N, D), got {type(outputs).__name__}")
    return seen[0], outputs[0], outputs[1]


def _check_features(h: Tensor) -> None:
    wrong = ~torch.isfinite(h).all(1)
    if wrong.any():
        raise DataError(
            f"features of the trunk must be finite, got otherwise in {int(wrong.sum())} of the "
            f"{len(h)} rows of a batch; look for non-finite inputs or weights"
        )


def told(batch: Batch) -> Tensor:
    """Return True for about one row in five, by a hash of its numbers."""
    rows, numbers = len(batch.y), (*batch.args, *batch.named.values(), batch.y)
    keys = [z.reshape(rows, -1) for z in numbers if _is_rows(z, rows)]
    total = torch.zeros(rows, dtype=torch.int64)
    for key in keys:
        real = torch.view_as_real(key).flatten(1) if key.is_complex() else key
        bits = real.detach().cpu().double().contiguous().view(torch.int64)
        odd = 0x9E3779B97F4A7C1 * (2 * torch.arange(bits.shape[1]) + 1)
        mixed = (bits ^ (bits >> 31)) * odd
        total = (total + (mixed ^ (mixed >> 29)).sum(1)) * 0xBF58476D1CE4E5B
    return (total >> 33) % 5 == 0


def _is_rows(x: Any, rows: int) -> bool:
    return isinstance(x, Tensor) and x.ndim > 0 and len(x) == rows
