"""The usual model, for comparison: an MLP of the same size, trained on the squared error."""

import math
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["fit_plain_mlp"]


def fit_plain_mlp(
    X: Tensor,
    y: Tensor,
    held_out: Tensor,
    seconds: float,
    *,
    hidden: int = 64,
    batch_size: int = 512,
    learning_rate: float = 2e-2,
) -> Callable[[Tensor], Tensor]:
    """Train on the finite rows and return the model that was best on held-out rows, as a function.

    Inputs and targets are standardised, Adam's step falls along a cosine over the given time, and
    the weights with the lowest held-out squared error are kept.

    Args:
        X: `(rows, features)`.
        y: `(rows, k)`; rows with a target that is not finite cannot be used.
        held_out: Rows not trained on.
        seconds: Time to train.
        hidden: Width of both hidden layers.
        batch_size: Rows per step.
        learning_rate: Largest step.

    Returns:
        A callable from inputs to predictions.
    """
    use = torch.isfinite(y).all(1)
    train = _Rows(X[use & ~held_out].float(), y[use & ~held_out].float())
    check = _Rows(X[use & held_out].float(), y[use & held_out].float())
    x_scale, y_scale = _Scale.of(train.x), _Scale.of(train.y)
    torch.manual_seed(0)
    net = _mlp(X.shape[1], hidden, y.shape[1])

    def predict(inputs: Tensor) -> Tensor:
        with torch.no_grad():
            return y_scale.original(net(x_scale.standard(inputs.float()))).double()

    def error() -> float:
        with torch.no_grad():
            predicted = y_scale.original(net(x_scale.standard(check.x)))
            return float((predicted - check.y).square().mean())

    standard = _Rows(x_scale.standard(train.x), y_scale.standard(train.y))
    _train(net, standard, error, seconds, batch_size, learning_rate)
    return predict


class _Rows(NamedTuple):
    """Inputs `(rows, features)` and their targets `(rows, k)`."""

    x: Tensor
    y: Tensor


class _Scale(NamedTuple):
    """Mean and standard deviation of each column."""

    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, rows: Tensor) -> "_Scale":
        return cls(rows.mean(0), rows.std(0))

    def standard(self, rows: Tensor) -> Tensor:
        return (rows - self.mean) / self.std

    def original(self, rows: Tensor) -> Tensor:
        return rows * self.std + self.mean


def _mlp(features: int, hidden: int, k: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(features, hidden),
        nn.SiLU(),
        nn.Linear(hidden, hidden),
        nn.SiLU(),
        nn.Linear(hidden, k),
    )


def _train(
    net: nn.Module,
    train: _Rows,
    error: Callable[[], float],
    seconds: float,
    batch_size: int,
    learning_rate: float,
) -> None:
    """Train in place for the given time; the weights with the lowest held-out error stay."""
    optimizer = torch.optim.Adam(net.parameters(), lr=learning_rate)
    best, kept, started, step = math.inf, {}, time.perf_counter(), 0
    while (elapsed := time.perf_counter() - started) < seconds:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * 0.5 * (1 + math.cos(math.pi * elapsed / seconds))
        rows = torch.randint(len(train.x), (min(batch_size, len(train.x)),))
        loss = (net(train.x[rows]) - train.y[rows]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
        if step % 10 == 0 and (now := error()) < best:
            best, kept = now, {name: x.clone() for name, x in net.state_dict().items()}
    if kept:
        net.load_state_dict(kept)
