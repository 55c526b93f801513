"""The usual model, for comparison: an MLP of the same size, trained on the squared error."""

import math
import time
from collections.abc import Callable

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
    X_train, y_train = X[use & ~held_out].float(), y[use & ~held_out].float()
    X_check, y_check = X[use & held_out].float(), y[use & held_out].float()
    x_mean, x_std = X_train.mean(0), X_train.std(0)
    y_mean, y_std = y_train.mean(0), y_train.std(0)
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(X.shape[1], hidden),
        nn.SiLU(),
        nn.Linear(hidden, hidden),
        nn.SiLU(),
        nn.Linear(hidden, y.shape[1]),
    )
    optimizer = torch.optim.Adam(net.parameters(), lr=learning_rate)
    best, kept, started, step = math.inf, {}, time.perf_counter(), 0
    while (elapsed := time.perf_counter() - started) < seconds:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * 0.5 * (1 + math.cos(math.pi * elapsed / seconds))
        rows = torch.randint(len(X_train), (min(batch_size, len(X_train)),))
        loss = (
            (net((X_train[rows] - x_mean) / x_std) - (y_train[rows] - y_mean) / y_std)
            .square()
            .mean()
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
        if step % 10 == 0:
            with torch.no_grad():
                error = float(
                    (net((X_check - x_mean) / x_std) * y_std + y_mean - y_check).square().mean()
                )
            if error < best:
                best, kept = error, {name: x.clone() for name, x in net.state_dict().items()}
    if kept:
        net.load_state_dict(kept)

    def predict(inputs: Tensor) -> Tensor:
        with torch.no_grad():
            return (net((inputs.float() - x_mean) / x_std) * y_std + y_mean).double()

    return predict
