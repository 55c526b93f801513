"""From a batch to tuples and a loss, the same way in training and in validation."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from zeroproof._checks import pair_shapes, same_shape
from zeroproof._extras import require
from zeroproof.losses.counting import Parts
from zeroproof.training._calling import accepted, as_pair, offered_to
from zeroproof.training._joint import joint_loss, scalar
from zeroproof.training._loaders import Batch
from zeroproof.training.config import TrainingConfig
from zeroproof.training.targets import lift_targets

__all__ = ["Forward", "Outcome", "amp_dtype"]


class Outcome(NamedTuple):
    """What came of one batch: tuples in at least float32, targets, the loss with its graph."""

    N: Tensor
    D: Tensor
    y: Tensor
    weight: Tensor | None
    loss: Tensor


def amp_dtype(config: TrainingConfig, device: torch.device) -> torch.dtype | None:
    """Return the half-precision type of the model's forward, `None` without mixed precision."""
    if not config.use_amp:
        return None
    return config.amp_dtype or (torch.bfloat16 if device.type == "cpu" else torch.float16)


class Forward:
    """A model and its loss on one device; calling it with a batch and τ_train gives an `Outcome`.

    With several processes the loss is that of the rows of all of them.

    Attributes:
        model: What is called in training.
        scale: s, by which targets are divided.
        loss_fn: The loss; setting it checks it.

    Raises:
        RangeError: `loss_fn` cannot be called as `loss_fn(outputs=..., targets=...)`.
    """

    def __init__(
        self,
        model: nn.Module,
        loss_fn: Callable[..., Tensor],
        config: TrainingConfig,
        accelerator: Any,
        device: torch.device,
    ) -> None:
        self.model, self.device, self.loss_fn = model, device, loss_fn
        self.scale = config.fixed_scale
        self._dtype = amp_dtype(config, device)
        self._accelerator = accelerator

    @property
    def loss_fn(self) -> Callable[..., Tensor]:
        return self._loss_fn

    @loss_fn.setter
    def loss_fn(self, loss_fn: Callable[..., Tensor]) -> None:
        self._taken = accepted(loss_fn)
        if isinstance(loss_fn, nn.Module):
            loss_fn.to(self.device)
        self._loss_fn = loss_fn

    def __call__(self, batch: Batch, tau: float, model: nn.Module | None = None) -> Outcome:
        """Lift the targets, run the model and the loss.

        Raises:
            TrainingError: The model does not return (N, D), or the loss is not a scalar.
            ShapeError: N and D, or N and y, do not belong together.
        """
        batch = self._placed(batch)
        with self._precision():
            outputs = batch.through(self.model if model is None else model)
        N, D = as_pair(outputs)
        pair_shapes(N, D)
        y = batch.y
        same_shape(y, N, "the targets y of a batch", "N")
        call = self.call(N, D, y, batch.weight, tau)
        if self._accelerator.num_processes == 1:
            loss = scalar(self._loss_fn(**call))
        else:
            loss = joint_loss(self._loss_fn, call, batch, self._accelerator)
        return Outcome(N, D, y, batch.weight, loss)

    def call(
        self, N: Tensor, D: Tensor, y: Tensor, weight: Tensor | None, tau: float
    ) -> dict[str, Any]:
        """Return what the loss is called with."""
        # φ(⊥) has no sign to learn
        offered = {"tau_train": tau, "mask": ~torch.isnan(y), "weight": weight}
        targets = tuple(lift_targets(y, scale=self.scale))
        return {"outputs": (N, D), "targets": targets, **offered_to(self._taken, offered)}

    def parts(
        self, N: Tensor, D: Tensor, y: Tensor, weight: Tensor | None, tau: float
    ) -> dict[str, Parts]:
        """Return sum and weight of every part of the loss; none of a loss that does not tell."""
        loss_fn: Any = self._loss_fn
        if not (hasattr(loss_fn, "parts") and hasattr(loss_fn, "combine")):
            return {}
        return loss_fn.parts(**self.call(N, D, y, weight, tau))

    def _placed(self, batch: Batch) -> Batch:
        tensors = [batch.y, *batch.args]
        if not batch.named and batch.weight is None and all(isinstance(x, Tensor) for x in tensors):
            if all(x.device == self.device for x in tensors):
                return batch
            y, *args = (x.to(self.device, non_blocking=True) for x in tensors)
            return batch._replace(args=tuple(args), y=y)
        send = require("accelerate.utils", extra="train").send_to_device
        given = (batch.args, batch.named, batch.y, batch.weight)
        args, named, y, weight = send(given, self.device, non_blocking=True)
        return batch._replace(args=args, named=named, y=y, weight=weight)

    def _precision(self) -> AbstractContextManager[Any]:
        if self._dtype is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self._dtype)
