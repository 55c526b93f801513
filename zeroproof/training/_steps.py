"""An optimizer step: a window of batches, the gradient policy and the non-finite guard."""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from zeroproof.autodiff.policies import gradient_policy
from zeroproof.errors import TrainingError
from zeroproof.training._forward import Forward, amp_dtype
from zeroproof.training._loaders import Batch
from zeroproof.training._tally import Tally
from zeroproof.training.config import TrainingConfig

__all__ = ["Stepper"]

_SMALLEST_SCALE = 2.0**-24  # below it, something other than overflow must be at fault


class Stepper:
    """Makes optimizer steps; what stays the same from step to step is found once, here."""

    def __init__(
        self,
        forward: Forward,
        optimizer: torch.optim.Optimizer,
        config: TrainingConfig,
        accelerator: Any,
    ) -> None:
        self._forward, self._optimizer, self._accelerator = forward, optimizer, accelerator
        self._alone = accelerator.num_processes == 1
        self._policy = config.gradient_policy
        half = amp_dtype(config, forward.device)
        self.scaler = torch.amp.GradScaler(forward.device.type, enabled=half is torch.float16)
        self._parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self._buffers = list(forward.model.buffers())
        self._saved = [buffer.clone() for buffer in self._buffers]

    def step(self, window: Sequence[Batch], tau: float, tally: Tally) -> bool:
        """Make one step with the gradient of the mean over the window's rows.

        Returns:
            False if the loss or a gradient was not finite: then weights, optimizer state and
            buffers are as before.
        """
        self._optimizer.zero_grad(set_to_none=True)
        _copy(self._buffers, self._saved)
        rows = sum(len(batch.y) for batch in window) or 1
        losses, scale = [], self._loss_scale()
        for index, batch in enumerate(window):
            with self._sync(last=index == len(window) - 1):
                outcome = self._forward(batch, tau)
                # weighted, so that a short batch counts for no more than its rows
                weight = len(batch.y) / rows
                loss = outcome.loss if weight == 1 else outcome.loss * weight
                self._backward(loss, scale)
            losses.append(loss.detach())
            tally.add(outcome)
        return self._finish(losses)

    def _backward(self, loss: Tensor, scale: float | None) -> None:
        if not loss.requires_grad:
            raise TrainingError(
                "the loss must depend on the model's parameters, got a tensor without a gradient"
            )
        with gradient_policy(self._policy, loss_scale=scale):
            self.scaler.scale(loss).backward()

    def _loss_scale(self) -> float | None:
        if not self.scaler.is_enabled():
            return None
        scale = self.scaler.get_scale()
        if scale < _SMALLEST_SCALE:
            raise TrainingError(
                "float16 gradients stayed non-finite at every loss scale; look for non-finite "
                "inputs, lower the learning rate, or set amp_dtype=torch.bfloat16"
            )
        return scale

    def _finish(self, losses: list[Tensor]) -> bool:
        if self.scaler.is_enabled():
            self.scaler.unscale_(self._optimizer)
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        # the largest modulus: it cannot overflow and keeps nan; reading it is the step's one wait
        largest = torch.nn.utils.get_total_norm(gradients, math.inf)
        finite = self._agreed(math.isfinite(sum(losses, start=largest).item()))
        if finite:
            self.scaler.step(self._optimizer)
        else:  # running statistics saw the batch in forward
            _copy(self._saved, self._buffers)
        self.scaler.update()
        return finite

    def _agreed(self, finite: bool) -> bool:
        """Take the step on every process or on none."""
        if self._alone:
            return finite
        flag = torch.tensor(float(finite), device=self._forward.device)
        votes = self._accelerator.reduce(flag, reduction="sum").item()
        return votes == self._accelerator.num_processes

    def _sync(self, *, last: bool) -> AbstractContextManager[Any]:
        if last or self._alone:
            return nullcontext()
        return self._accelerator.no_sync(self._forward.model)


def _copy(sources: list[Tensor], targets: list[Tensor]) -> None:
    for source, target in zip(sources, targets, strict=True):
        target.copy_(source)
