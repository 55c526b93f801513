"""An optimizer step: a window of batches, the gradient policy and the non-finite guard."""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from zeroproof.autodiff.policies import gradient_policy
from zeroproof.autodiff.torch_internals import flag_nonfinite
from zeroproof.errors import TrainingError
from zeroproof.training._forward import Forward, amp_dtype, policy_of_values
from zeroproof.training._loaders import Batch
from zeroproof.training._states import Buffers
from zeroproof.training._tally import Tally
from zeroproof.training.config import TrainingConfig

__all__ = ["Stepper", "reads_are_free"]

_SMALLEST_SCALE = 2.0**-24  # below it, something other than overflow must be at fault


def reads_are_free(device: torch.device) -> bool:
    """Tell whether the host may read a number of the device without waiting for it."""
    return device.type == "cpu"


class Stepper:
    """Makes optimizer steps; what stays the same from step to step is found once, here.

    Whether a step is finite the host reads on a CPU. Elsewhere a fused optimizer is told by a
    tensor, `found_inf`, and no host waits; float16, whose loss scaler moves with it, and other
    optimizers cost one read per step.

    Args:
        forward: The model with its loss.
        optimizer: Over the model's parameters.
        config: Options.
        accelerator: Of this process.
        after_backward: Called when the gradients of a step are there, before they are clipped.
    """

    def __init__(
        self,
        forward: Forward,
        optimizer: torch.optim.Optimizer,
        config: TrainingConfig,
        accelerator: Any,
        after_backward: Callable[[], None],
    ) -> None:
        self._forward, self._optimizer, self._accelerator = forward, optimizer, accelerator
        self._after_backward = after_backward
        self._world = accelerator.num_processes
        self._policy, self._max_norm = config.gradient_policy, config.max_grad_norm
        self._policy_forward = policy_of_values(config)
        half = amp_dtype(config, forward.device)
        self.scaler = torch.amp.GradScaler(forward.device.type, enabled=half is torch.float16)
        self._buffers = Buffers(forward.model)
        fused = getattr(optimizer, "_step_supports_amp_scaling", False)  # torch's mark of found_inf
        self._waits = reads_are_free(forward.device) or self.scaler.is_enabled() or not fused
        self._plain_reset = type(optimizer).zero_grad is torch.optim.Optimizer.zero_grad
        self._flag = torch.zeros((), device=forward.device)
        self._one = torch.ones((), device=forward.device)
        self._usual = {(Tensor, torch.float32, self._flag.device)}

    @property
    def _parameters(self) -> list[Tensor]:
        return [p for group in self._optimizer.param_groups for p in group["params"]]

    def step(self, window: Sequence[Batch], tau: float, tally: Tally) -> None:
        """Make one step with the gradient of the mean over the window's rows.

        If the loss or a gradient is not finite, then weights, optimizer state and buffers stay as
        they were, and the step is counted as skipped.
        """
        self._forget_gradients()
        self._buffers.save()
        rows = sum(batch.all for batch in window) or 1
        losses, scale = [], self._loss_scale()
        for index, batch in enumerate(window):
            with gradient_policy(self._policy_forward), self._sync(last=index == len(window) - 1):
                outcome = self._forward(batch, tau)
                # weighted, so that a short batch counts for no more than its rows; and gradients
                # are averaged over processes, where they should be added
                weight = batch.all / rows * self._world
                loss = outcome.loss if weight == 1 else outcome.loss * weight
                self._backward(loss, scale)
            losses.append(loss.detach())
            tally.add(outcome, batch.own)
        tally.add_step(*self._finish(losses))

    def _backward(self, loss: Tensor, scale: float | None) -> None:
        if not loss.requires_grad:
            raise TrainingError(
                "the loss must depend on the model's parameters, got a tensor without a gradient"
            )
        if scale is None and self._policy is self._policy_forward:  # it is open already
            loss.backward()
            return
        with gradient_policy(self._policy, loss_scale=scale):
            self.scaler.scale(loss).backward()

    def _loss_scale(self) -> float | None:
        if not self.scaler.is_enabled():
            return None if self._world == 1 else float(self._world)
        scale = self.scaler.get_scale()
        if scale < _SMALLEST_SCALE:
            raise TrainingError(
                "float16 gradients stayed non-finite at every loss scale; look for non-finite "
                "inputs, lower the learning rate, or set amp_dtype=torch.bfloat16"
            )
        return scale * self._world

    def _forget_gradients(self) -> None:
        if not self._plain_reset:
            self._optimizer.zero_grad(set_to_none=True)
            return
        for parameter in self._parameters:  # the same, without a profiler's label around it
            parameter.grad = None

    def _finish(self, losses: list[Tensor]) -> tuple[bool | Tensor, float | Tensor | None]:
        """Step or skip; return whether it was skipped, and the norm before clipping."""
        if self.scaler.is_enabled():
            self.scaler.unscale_(self._optimizer)
        self._after_backward()
        gradients = [g for p in self._parameters if (g := p.grad) is not None]
        norm = size = None
        if self._max_norm is not None:
            norm = torch.nn.utils.get_total_norm(gradients)
            size = _whole(norm)
        numbers = [*losses, *(gradients if norm is None else [size])]
        wrong = self._flagged(numbers)
        if not (self._waits or self._has_no_momentum_yet()):
            return self._told(self._any(wrong > 0), norm), size
        finite = wrong.item() == 0
        if self._world > 1:
            finite = not self._any(torch.tensor(not finite, device=self._forward.device)).item()
        if finite:
            self._clip(norm)
            self.scaler.step(self._optimizer)
        else:  # running statistics saw the batch in forward
            self._buffers.restore()
        self.scaler.update()
        return not finite, None if size is None else size.item()

    def _flagged(self, numbers: list[Any]) -> Tensor:
        """Return a scalar that is 0 if all numbers are finite, and 1 if not."""
        if {(type(x), x.dtype, x.device) for x in numbers} <= self._usual:
            flag_nonfinite(numbers, self._flag.zero_(), self._one)
            return self._flag
        # the largest modulus cannot overflow and keeps nan
        sizes = [_whole(torch.linalg.vector_norm(x, math.inf)) for x in numbers if x.numel()]
        return (~torch.isfinite(torch.stack([x.double() for x in sizes]))).any().float()

    def _has_no_momentum_yet(self) -> bool:
        """Tell whether a first step is to come that a fused SGD must not be told to skip.

        It would leave its momentum undefined.
        """
        groups = self._optimizer.param_groups
        return not self._optimizer.state and any(group.get("momentum") for group in groups)

    def _told(self, skip: Tensor, norm: Tensor | None) -> Tensor:
        """Step without a host that waits: the optimizer itself leaves all as it was if told so."""
        self._clip(norm)
        optimizer: Any = self._optimizer
        optimizer.grad_scale, optimizer.found_inf = None, skip.float()
        try:
            optimizer.step()
        finally:
            del optimizer.grad_scale, optimizer.found_inf
        pairs = zip(self._buffers.saved, self._buffers.now(), strict=True)
        self._buffers.set([torch.where(skip, saved, buffer) for saved, buffer in pairs])
        return skip

    def _clip(self, norm: Tensor | None) -> None:
        if norm is not None and self._max_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(self._parameters, self._max_norm, norm)

    def _any(self, flag: Tensor) -> Tensor:
        """Tell whether it is true on any process, so that all step or none."""
        if self._world == 1:
            return flag
        return self._accelerator.reduce(flag.float(), reduction="sum") > 0

    def _sync(self, *, last: bool) -> AbstractContextManager[Any]:
        if last or self._world == 1:
            return nullcontext()
        return self._accelerator.no_sync(self._forward.model)


def _whole(norm: Tensor) -> Tensor:
    """Return the norm over all shards of a model that is spread over processes."""
    return norm.full_tensor() if hasattr(norm, "full_tensor") else norm  # pyright: ignore[reportAttributeAccessIssue]
