"""One loss over the rows of all processes, and of a window of batches.

Sums and weights are added over processes and batches before anything is divided, so that the loss
is that of one process and one batch which hold all rows. A process differentiates the sums of its
batch; the others are constants to it. The wrapper that averages gradients, and the gradients that
add up over the window, make up the whole.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from zeroproof.errors import TrainingError
from zeroproof.losses.gradients import Parts
from zeroproof.training.loaders import Batch

__all__ = ["added", "joint_loss", "parts_of", "reduced", "scalar", "tells", "whole"]


def tells(loss_fn: Callable[..., Tensor]) -> bool:
    """Tell whether a loss has `parts` and `combine`, as `SCMTrainingLoss`."""
    return hasattr(loss_fn, "parts") and hasattr(loss_fn, "combine")


def parts_of(
    loss_fn: Callable[..., Tensor], call: Mapping[str, Any], amount: Tensor | float
) -> dict[str, Parts]:
    """Return sums and weights of a loss, which add up over batches and processes.

    A loss that tells them is exact. Of any other, the value is weighted by the amount of its batch:
    exact where it is a mean over labels.

    Args:
        loss_fn: The loss.
        call: Its arguments by keyword.
        amount: How many rows or labels there are, or the sum of their weights.
    """
    if tells(loss_fn):
        return loss_fn.parts(**call)  # pyright: ignore[reportFunctionMemberAccess]
    value = scalar(loss_fn(**call))
    return {"loss": Parts(value * amount, torch.as_tensor(amount).to(value))}


def whole(loss_fn: Callable[..., Tensor], parts: Mapping[str, Parts]) -> Tensor:
    """Return the loss that parts make which were added up."""
    if tells(loss_fn):
        return scalar(loss_fn.combine(parts)["total"])  # pyright: ignore[reportFunctionMemberAccess]
    total, weight = parts["loss"]
    return total / torch.where(weight > 0, weight, 1)


def added(sums: dict[str, Parts], parts: Mapping[str, Parts]) -> None:
    """Add parts of a batch to sums, in float64 and without a graph."""
    for name, part in parts.items():
        # Apple's GPUs have no float64
        found = [x.detach().to(x if x.device.type == "mps" else torch.float64) for x in part]
        sums[name] = Parts(*map(torch.add, sums[name], found)) if name in sums else Parts(*found)


def reduced(sums: Mapping[str, Parts], accelerator: Any) -> dict[str, Parts]:
    """Return sums over all processes."""
    if accelerator.num_processes == 1:
        return dict(sums)
    whole = accelerator.reduce(torch.stack([x for part in sums.values() for x in part]), "sum")
    return {name: Parts(*pair) for name, pair in zip(sums, whole.reshape(-1, 2), strict=True)}


def joint_loss(
    loss_fn: Callable[..., Tensor],
    call: Mapping[str, Any],
    batch: Batch,
    accelerator: Any,
    sums: Mapping[str, Parts] | None = None,
) -> Tensor:
    """Return the loss over the rows of all processes, the same number on each.

    To autograd, what other processes and batches have is constant.

    Args:
        loss_fn: The loss, see `parts_of`.
        call: Its arguments by keyword.
        batch: Whose rows they are; without own rows it contributes a connected 0.
        accelerator: Adds up over the processes.
        sums: Those of all rows, where they are known: of a window of batches.
    """
    mine = {
        name: Parts(*(_counted(value, batch, call) for value in part))
        for name, part in parts_of(loss_fn, call, batch.amount).items()
    }
    if sums is None:
        own: dict[str, Parts] = {}
        added(own, mine)
        sums = reduced(own, accelerator)
    joint = {
        name: Parts(
            *(t.to(v.dtype) + (v - v.detach()) for t, v in zip(sums[name], part, strict=True))
        )
        for name, part in mine.items()
    }
    return whole(loss_fn, joint)


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
