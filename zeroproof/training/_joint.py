"""One loss over the rows of all processes.

Sums and weights are added over the processes before anything is divided, so that the loss is that
of one process which holds all rows. A process differentiates its own sums; those of the others are
constants to it, and the wrapper that averages gradients makes up the whole.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from zeroproof.errors import TrainingError
from zeroproof.losses.counting import Parts
from zeroproof.training._loaders import Batch

__all__ = ["added", "joint_loss", "parts_of", "scalar", "whole"]


def parts_of(
    loss_fn: Callable[..., Tensor], call: Mapping[str, Any], amount: Tensor | float
) -> dict[str, Parts]:
    """Return sums and weights of a loss, which add up over batches and processes.

    A loss with `parts` and `combine`, as `SCMTrainingLoss`, is exact. Of any other, the value is
    weighted by the amount of its batch: exact where it is a mean over labels.

    Args:
        loss_fn: The loss.
        call: Its arguments by keyword.
        amount: How many rows or labels there are, or the sum of their weights.
    """
    if hasattr(loss_fn, "parts") and hasattr(loss_fn, "combine"):
        return loss_fn.parts(**call)  # pyright: ignore[reportFunctionMemberAccess]
    value = scalar(loss_fn(**call))
    return {"loss": Parts(value * amount, torch.as_tensor(amount).to(value))}


def whole(loss_fn: Callable[..., Tensor], parts: Mapping[str, Parts]) -> Tensor:
    """Return the loss that parts make which were added up."""
    if hasattr(loss_fn, "parts") and hasattr(loss_fn, "combine"):
        return scalar(loss_fn.combine(parts)["total"])  # pyright: ignore[reportFunctionMemberAccess]
    total, weight = parts["loss"]
    return total / torch.where(weight > 0, weight, 1)


def added(sums: dict[str, Parts], parts: Mapping[str, Parts]) -> None:
    """Add parts of a batch to sums, in float64 and without a graph."""
    for name, part in parts.items():
        # Apple's GPUs have no float64
        found = [x.detach().to(x if x.device.type == "mps" else torch.float64) for x in part]
        sums[name] = Parts(*map(torch.add, sums[name], found)) if name in sums else Parts(*found)


def joint_loss(
    loss_fn: Callable[..., Tensor], call: Mapping[str, Any], batch: Batch, accelerator: Any
) -> Tensor:
    """Return the loss over the rows of all processes, the same number on each.

    Args:
        loss_fn: The loss, see `parts_of`.
        call: Its arguments by keyword.
        batch: Whose rows they are; without own rows it contributes a connected 0.
        accelerator: Adds up over the processes.
    """
    parts = parts_of(loss_fn, call, batch.amount)
    mine = [_counted(value, batch, call) for part in parts.values() for value in part]
    both = iter(_shared(mine, accelerator))
    return whole(loss_fn, {name: Parts(next(both), next(both)) for name in parts})


def scalar(loss: Any) -> Tensor:
    """Return a loss as a tensor of shape `()`.

    Raises:
        TrainingError: It is not a tensor with one entry.
    """
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        came = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise TrainingError(f"loss_fn must return a tensor with one entry, got {came}")
    return loss.reshape(()) if loss.ndim else loss


def _counted(value: Tensor, batch: Batch, call: Mapping[str, Any]) -> Tensor:
    """Return a sum, or where no row counts a 0 that is connected to the model all the same."""
    if batch.own:
        return value
    # over no entries: 0 times a nan would be nan
    N, D = (z.flatten()[:0].abs().sum() for z in call["outputs"])
    return (N + D).to(value.dtype)


def _shared(mine: list[Tensor], accelerator: Any) -> list[Tensor]:
    """Add up over all processes; to autograd, what the others have is constant."""
    own = torch.stack([value.detach().double() for value in mine])
    whole = accelerator.reduce(own, reduction="sum")
    return [
        total.to(value.dtype) + (value - value.detach())  # the same number on every process
        for value, total in zip(mine, whole, strict=True)
    ]
