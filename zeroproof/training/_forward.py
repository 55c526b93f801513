"""From a batch to tuples and a loss, the same way in training and in validation."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from zeroproof._checks import pair_shapes, same_shape
from zeroproof._extras import require
from zeroproof.autodiff.policies import GradientPolicy, gradient_policy
from zeroproof.training._calling import accepted, as_pair
from zeroproof.training._joint import joint_loss, scalar
from zeroproof.training._loaders import Batch
from zeroproof.training._random import random_state, set_random_state
from zeroproof.training.config import TrainingConfig
from zeroproof.training.targets import lift_targets

__all__ = ["Forward", "Outcome", "amp_dtype", "policy_of_values"]


class Outcome(NamedTuple):
    """What came of one batch: tuples in at least float32, and the loss with its graph."""

    N: Tensor
    D: Tensor
    loss: Tensor


def amp_dtype(config: TrainingConfig, device: torch.device) -> torch.dtype | None:
    """Return the half-precision type of the model's forward, `None` without mixed precision."""
    if not config.use_amp:
        return None
    return config.amp_dtype or (torch.bfloat16 if device.type == "cpu" else torch.float16)


def policy_of_values(config: TrainingConfig) -> GradientPolicy:
    """Return the policy of forward, loss and validation, for derivatives that are values there.

    REJECT is about what the weights learn: a force must not become 0 by it.
    """
    rejects = config.gradient_policy is GradientPolicy.REJECT
    return GradientPolicy.PROJECT if rejects else config.gradient_policy


class Forward:
    """A model and its loss on one device; calling it with a batch and τ_train gives an `Outcome`.

    With several processes the loss is that of the rows of all of them.

    Attributes:
        model: What is called in training.
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
        self._policy = policy_of_values(config)
        self._differentiates = False  # whether the model needs gradients to be recorded in forward
        self._scale = config.target_scale
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
        options: dict[str, Any] = {"tau_train": tau} if "tau_train" in self._taken else {}
        if "mask" in self._taken:
            options["mask"] = ~torch.isnan(y)  # φ(⊥) has no sign to learn
        tuples = {"outputs": (N, D), "targets": tuple(lift_targets(y, scale=self._scale))}
        if self._accelerator.num_processes == 1:
            loss = scalar(self._loss_fn(**tuples, **options))
        else:
            loss = joint_loss(self._loss_fn, tuples | options, batch, self._accelerator)
        return Outcome(N, D, loss)

    def judged(self, batch: Batch, tau: float, model: nn.Module) -> Outcome:
        """Return the same for validation: nothing is recorded, unless the model differentiates.

        Such a model, which answers a force or a residual, is known by its first batch.
        """
        with gradient_policy(self._policy):
            if not self._differentiates:
                before = random_state()
                try:
                    with torch.no_grad():
                        return self(batch, tau, model)
                except RuntimeError as error:
                    if "does not require grad" not in str(error):
                        raise
                    self._differentiates = True
                    set_random_state(before)  # as if the attempt had not been
            with torch.enable_grad():
                outcome = self(batch, tau, model)
            return Outcome(outcome.N.detach(), outcome.D.detach(), outcome.loss.detach())

    def _placed(self, batch: Batch) -> Batch:
        tensors = [batch.y, *batch.args]
        if not batch.named and all(isinstance(x, Tensor) for x in tensors):
            if all(x.device == self.device for x in tensors):
                return batch
            y, *args = (x.to(self.device, non_blocking=True) for x in tensors)
            return batch._replace(args=tuple(args), y=y)
        send = require("accelerate.utils", extra="train").send_to_device
        moved = send((batch.args, batch.named, batch.y), self.device, non_blocking=True)
        return batch._replace(args=moved[0], named=moved[1], y=moved[2])

    def _precision(self) -> AbstractContextManager[Any]:
        if self._dtype is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self._dtype)
