"""An optimizer step: a window of batches, the gradient policy and the non-finite guard."""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from zeroproof.autodiff.compiled import flag_nonfinite
from zeroproof.autodiff.policies import gradient_policy
from zeroproof.autodiff.rewind import Rewind
from zeroproof.autodiff.sound import SoundRows, dense, looks_finite, spoiled, whole
from zeroproof.errors import TrainingError
from zeroproof.training._tally import Tally
from zeroproof.training.config import TrainingConfig
from zeroproof.training.forward import Forward, Outcome, amp_dtype
from zeroproof.training.joint import tells
from zeroproof.training.loaders import Batch

__all__ = ["Stepper", "reads_are_free"]

_SMALLEST_SCALE = 2.0**-24  # below it, something other than overflow must be at fault


def reads_are_free(device: torch.device) -> bool:
    """Tell whether the host may read a number of the device without waiting for it."""
    return device.type == "cpu"


class Stepper:
    """Makes optimizer steps; what stays the same from step to step is found once, here.

    Whether a step is finite the host reads on a CPU. Elsewhere a fused optimizer is told by a
    tensor, `found_inf`, and no host waits; other optimizers cost two reads per step, float16, whose
    loss scaler moves with it, some more. Where it is read, and the model is whole on every process,
    a window that is not finite is run again over its sound rows.

    Args:
        forward: The model with its loss.
        optimizer: Over the model's parameters.
        config: Options.
        accelerator: Of this process.
        after_backward: Called when the gradients of a step are there, before they are clipped;
            tells whether anybody listened.
    """

    def __init__(
        self,
        forward: Forward,
        optimizer: torch.optim.Optimizer,
        config: TrainingConfig,
        accelerator: Any,
        after_backward: Callable[[], bool],
    ) -> None:
        self._forward, self._optimizer, self._accelerator = forward, optimizer, accelerator
        self._after_backward = after_backward
        self._world = accelerator.num_processes
        self._policy, self._max_norm = config.gradient_policy, config.max_grad_norm
        half = amp_dtype(config, forward.device)
        self.scaler = torch.amp.GradScaler(forward.device.type, enabled=half is torch.float16)
        self._rewind = Rewind(forward.model)
        fused = getattr(optimizer, "_step_supports_amp_scaling", False)  # torch's mark of found_inf
        self._waits = reads_are_free(forward.device) or self.scaler.is_enabled() or not fused
        sharded = any(hasattr(p, "full_tensor") for p in forward.model.parameters())
        self._again = self._waits and not sharded
        self.sound = _SoundWindow(forward, self.scaler, accelerator)
        self._plain_reset = type(optimizer).zero_grad is torch.optim.Optimizer.zero_grad
        self._flag = torch.zeros((), device=forward.device)
        self._one = torch.ones((), device=forward.device)
        self._usual = {(Tensor, torch.float32, self._flag.device)}

    @property
    def _parameters(self) -> list[Tensor]:
        return [p for group in self._optimizer.param_groups for p in group["params"]]

    def step(self, window: Sequence[Batch], tau: float, tally: Tally) -> None:
        """Make one step with the gradient of the mean over the sound rows of the window.

        If there is none, or the loss or a gradient is not finite all the same, then weights,
        optimizer state and buffers stay as they were, and the step is counted as skipped.
        """
        self._forget_gradients()
        (self._rewind if self._again or len(window) > 1 else self._rewind.buffers).save()
        again = self._again and not all(map(_looks_finite, window))
        outcomes, amounts = [], [batch.amount for batch in window]
        if not (again and self._world == 1):
            outcomes = self._run(window, tau)
            if self._again:
                self._rewind.watch()
                values = [x for o in outcomes for x in (o.N, o.D, o.loss)]
                sums = [x.sum() if x.ndim else x for x in values]
                wrong = self._flagged([*sums, *self._slopes()])
                again = self._any(wrong + 1 if again else wrong).item() > 0
        if again:
            self._rewind.back()
            outcomes, amounts = self._run_sound(window, tau)
        for outcome, batch, amount in zip(outcomes, window, amounts, strict=True):
            tally.add(outcome, batch.own, amount)
        made = not again or self.sound.rows > 0
        tally.add_step(*(self._finish(outcomes) if made else (True, None)))

    def _run(self, window: Sequence[Batch], tau: float) -> list[Outcome]:
        scale, sums, fixed = self._loss_scale(), None, not self._again
        if len(window) > 1:
            # coverage, and what is not finite, nobody knows beforehand: once forward without a
            # gradient, and the same again
            sums = self._forward.ahead(window, tau, fixed=fixed)
        if sums is not None:
            self._rewind.watch()
            self._rewind.back()
        shares = self._shares(window) if sums is None else [1.0] * len(window)
        outcomes: list[Outcome] = []
        for index, (batch, share) in enumerate(zip(window, shares, strict=True)):
            with self._sync(last=index == len(window) - 1):
                outcome = self._forward(batch, tau, fixed=fixed, sums=sums)
                # gradients are averaged over processes, where they should be added
                self._backward(outcome.loss, share * self._world, scale)
            found = [x.detach() for x in (outcome.N, outcome.D, outcome.loss)]
            if len(window) > 1:  # a compiled model may write its next output into the same memory
                found = [x.clone() for x in found]
            outcomes.append(outcome._replace(N=found[0], D=found[1], loss=found[2]))
        return outcomes

    def _shares(self, window: Sequence[Batch]) -> list[float]:
        """Return how much of a mean over labels is that of each batch, on all processes."""
        counts = [float(batch.all) for batch in window]
        if self._world > 1 or any(batch.weight is not None for batch in window):
            mine = torch.tensor([batch.amount for batch in window], device=self._flag.device)
            counts = self._accelerator.reduce(mine, reduction="sum").tolist()
        return [count / (sum(counts) or 1.0) for count in counts]

    def _run_sound(self, window: Sequence[Batch], tau: float) -> tuple[list[Outcome], list[float]]:
        """Run the window over its sound rows; return how much those of each batch count."""
        self._forget_gradients()
        sound, scale, outcomes, amounts = self.sound, self._loss_scale(), [], []
        kept: list[Batch] = []
        sound.rows = 0

        def run() -> Tensor:
            loss = sound.forward()
            self._backward(loss, float(self._world), scale)
            return loss

        for batch in map(self._forward.placed, window):
            sound.take(batch, tau)
            loss = sound.attempt(run)
            nan = torch.full(batch.y.shape, math.nan, device=batch.y.device)
            N, D = (nan, nan) if loss is None else sound.whole()
            amounts.append(0.0 if loss is None else sound.kept().amount)
            if loss is not None:
                kept.append(sound.kept())
                sound.rows += sound.all
            loss = nan.sum() if loss is None else loss.detach()
            outcomes.append(Outcome(N.detach(), D.detach(), batch.y, batch.weight, loss))
        sound.taken = sound.outputs = None
        if len(window) > 1 and kept:  # the loss is that of all the sound rows together
            self._forget_gradients()
            self._rewind.back()
            latest = self._run(kept, tau)
            if tells(self._forward.loss_fn):
                outcomes = [outcome._replace(loss=latest[0].loss) for outcome in outcomes]
        return outcomes, amounts

    def _backward(self, loss: Tensor, weight: float, scale: float | None) -> None:
        if not loss.requires_grad:
            raise TrainingError(
                "the loss must depend on the model's parameters, got a tensor without a gradient"
            )
        loss = loss if weight == 1 else loss * weight
        if scale is None and self._policy is self._forward.policy:  # around all of `fit`
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

    def _slopes(self) -> list[Tensor]:
        """Return what tells whether gradients are finite; a loss scaler finds its scale by them."""
        return [] if self.scaler.is_enabled() else dense(self._parameters)

    def _finish(self, outcomes: list[Outcome]) -> tuple[bool | Tensor, float | Tensor | None]:
        """Step or skip; return whether it was skipped, and the norm before clipping."""
        if self.scaler.is_enabled():
            self.scaler.unscale_(self._optimizer)
        changed = self._after_backward()
        norm = size = None
        if self._max_norm is not None:
            norm = torch.nn.utils.get_total_norm(dense(self._parameters))
            size = whole(norm)
        finite = True
        if not self._again or changed or size is not None or self.scaler.is_enabled():
            losses = [] if self._again else [outcome.loss.detach() for outcome in outcomes]
            wrong = self._flagged([*losses, *(dense(self._parameters) if size is None else [size])])
            if not (self._waits or self._has_no_momentum_yet()):
                return self._told(self._any(wrong) > 0, norm), size
            finite = self._any(wrong).item() == 0
        if finite:
            self._clip(norm)
            self.scaler.step(self._optimizer)
        else:  # running statistics saw the batch in forward
            self._rewind.buffers.restore()
        self.scaler.update()
        return not finite, None if size is None else size.item()

    def _flagged(self, numbers: list[Any]) -> Tensor:
        """Return a scalar that is 0 if all numbers are finite, and 1 if not."""
        if {(type(x), x.dtype, x.device) for x in numbers} <= self._usual:
            flag_nonfinite(numbers, self._flag.zero_(), self._one)
            return self._flag
        return spoiled(numbers).float()

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
        buffers = self._rewind.buffers
        pairs = zip(buffers.saved, buffers.now(), strict=True)
        buffers.set([torch.where(skip, saved, buffer) for saved, buffer in pairs])
        return skip

    def _clip(self, norm: Tensor | None) -> None:
        if norm is not None and self._max_norm is not None:
            sparse = [p.grad for p in self._parameters if p.grad is not None and p.grad.is_sparse]
            if sparse:  # which torch does not clip
                for slope in dense(self._parameters):
                    slope.mul_((self._max_norm / (norm + 1e-6)).clamp(max=1))
            else:
                torch.nn.utils.clip_grads_with_norm_(self._parameters, self._max_norm, norm)

    def _any(self, flag: Tensor) -> Tensor:
        """Return what is above 0 if it is on any process, so that all step or none."""
        return flag if self._world == 1 else self._accelerator.reduce(flag, reduction="sum")

    def _sync(self, *, last: bool) -> AbstractContextManager[Any]:
        if last or self._world == 1:
            return nullcontext()
        return self._accelerator.no_sync(self._forward.model)


def _looks_finite(batch: Batch) -> bool:
    """Tell whether the sums of the inputs are finite; a plain one without a search for tensors."""
    x = batch.args[0] if len(batch.args) == 1 and not batch.named else None
    if type(x) is Tensor and x.is_floating_point() and not x.requires_grad:
        return math.isfinite(x.sum().item())
    return looks_finite((batch.args, batch.named), len(batch.y))


class _SoundWindow(SoundRows):
    """The batches of a window over their sound rows, with the loss of all processes.

    Attributes:
        all: Sound rows of the latest batch on all processes.
        rows: Those of the batches of the window that were not skipped.
    """

    def __init__(self, forward: Forward, scaler: Any, accelerator: Any) -> None:
        super().__init__(forward.model, None, scaler=scaler)
        self.distributed = accelerator.num_processes > 1
        self._forward, self._accelerator, self.all, self.rows = forward, accelerator, 0, 0

    def take(self, batch: Batch, tau: float) -> None:
        """Begin a batch."""
        self._counts, self._tau, self.loss_fn = batch.own > 0, tau, self._forward.loss_fn
        self.begin((batch.args, batch.named), (batch.y, batch.weight))

    def kept(self) -> Batch:
        """Return the sound rows of the batch."""
        (args, named), (y, weight) = self.part()
        own = int(self.sound.sum()) if self._counts else 0
        return Batch(args, named, y, own, self.all, weight)

    def run(self, inputs: Any, y: Any, model: nn.Module | None = None) -> tuple[Any, Tensor]:
        """Return the tuples and the loss; with a model given, that of this process alone."""
        y, weight = y
        own = total = len(y)
        if model is None:
            sound = self.sound.sum() * self._counts
            own, total = int(sound), int(self._accelerator.reduce(sound, reduction="sum"))
            self.all = total
        batch = Batch(inputs[0], inputs[1], y, own, total, weight)
        outcome = self._forward(batch, self._tau, model, alone=model is not None)
        return (outcome.N, outcome.D), outcome.loss
