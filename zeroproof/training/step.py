"""An optimizer step: from a window of batches to tuples, one loss, its gradient and a guard.

The loss is one over the rows of all processes and of a window of batches. Sums and weights are
added over processes and batches before anything is divided, so that it is that of one process and
one batch which hold all rows. A process differentiates the sums of its batch; the others are
constants to it. The wrapper that averages gradients, and the gradients that add up over the window,
make up the whole.
"""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from zeroproof._checks import pair_shapes, same_shape, widen
from zeroproof._extras import require
from zeroproof.autodiff.compiled import flag_nonfinite
from zeroproof.autodiff.policies import GradientPolicy, gradient_policy
from zeroproof.autodiff.rewind import Rewind, random_state, set_random_state
from zeroproof.autodiff.sound import SoundRows, dense, looks_finite, spoiled
from zeroproof.autodiff.sound import whole as on_one_device
from zeroproof.errors import RangeError, TrainingError
from zeroproof.losses.gradients import Parts
from zeroproof.projective.tuples import encode
from zeroproof.scm import SCM
from zeroproof.training.config import TrainingConfig
from zeroproof.training.loaders import Batch
from zeroproof.training.report import Outcome, Tally
from zeroproof.training.targets import lift_targets

__all__ = [
    "Forward",
    "Stepper",
    "accepted",
    "added",
    "as_pair",
    "joint_loss",
    "offered_to",
    "parts_of",
    "policy_of_values",
    "reads_are_free",
    "reduced",
    "whole",
]

_SMALLEST_SCALE = 2.0**-24  # below it, something other than overflow must be at fault


def reads_are_free(device: torch.device) -> bool:
    """Tell whether the host may read a number of the device without waiting for it."""
    return device.type == "cpu"


class Forward:
    """A model and its loss on one device; calling it with a batch and τ_train gives an `Outcome`.

    With several processes the loss is that of the rows of all of them.

    Attributes:
        model: What is called in training.
        scale: s, by which targets are divided.
        dtype: Half-precision type of the model's forward, `None` without mixed precision.
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
        self.policy = policy_of_values(config)
        self._differentiates = False  # whether the model needs gradients to be recorded in forward
        self.dtype = config.amp_dtype if config.use_amp else None
        if config.use_amp and self.dtype is None:
            self.dtype = torch.bfloat16 if device.type == "cpu" else torch.float16
        self._accelerator = accelerator

    @property
    def loss_fn(self) -> Callable[..., Tensor]:
        """The loss; what it accepts is found out when it is set."""
        return self._loss_fn

    @loss_fn.setter
    def loss_fn(self, loss_fn: Callable[..., Tensor]) -> None:
        self._taken = accepted(loss_fn)
        if isinstance(loss_fn, nn.Module):
            loss_fn.to(self.device)
        self._loss_fn = loss_fn

    def __call__(
        self,
        batch: Batch,
        tau: float,
        model: nn.Module | None = None,
        *,
        alone: bool = False,
        fixed: bool = False,
        sums: dict[str, Parts] | None = None,
        into: dict[str, Parts] | None = None,
    ) -> Outcome:
        """Lift the targets, run the model and the loss.

        Args:
            batch: What to run.
            tau: τ_train.
            model: To be called instead.
            alone: The loss is that of this process alone.
            fixed: Rows whose inputs are not finite stay, as zeros, and are left out by their N:
                for a device whose numbers are not to be read.
            sums: Of the window that the batch is part of, as `ahead` returns them: then the loss is
                that of the window, and its gradient what this batch contributes to it.
            into: Where sums and weights of the loss are added; the loss is that of the batch.

        Raises:
            TrainingError: The model does not return (N, D), or the loss is not a scalar.
            ShapeError: N and D, or N and y, do not belong together.
        """
        batch, finite = self.placed(batch), None
        if fixed:
            batch, finite = batch.safe()
        half = nullcontext()
        if self.dtype is not None:
            half = torch.autocast(self.device.type, dtype=self.dtype)
        with half:
            outputs = batch.through(self.model if model is None else model)
        N, D = as_pair(outputs)
        pair_shapes(N, D)
        same_shape(batch.y, N, "the targets y of a batch", "N")
        if finite is not None:
            N = torch.where(finite.reshape(-1, *[1] * (N.ndim - 1)), N, torch.nan)
        call = self.call(N, D, batch.y, batch.weight, tau)
        if into is not None:
            parts = parts_of(self._loss_fn, call, batch.amount)
            loss = whole(self._loss_fn, parts)
            none = {name: Parts(*map(torch.zeros_like, part)) for name, part in parts.items()}
            added(into, parts if batch.own else none)
        elif sums is None and (alone or self._accelerator.num_processes == 1):
            loss = scalar(self._loss_fn(**call))
        else:
            loss = joint_loss(self._loss_fn, call, batch, self._accelerator, sums)
        if finite is not None and self._accelerator.num_processes == 1:
            loss = torch.where(finite.any(), loss, torch.nan)  # over no row
        return Outcome(N, D, batch.y, batch.weight, loss)

    def ahead(
        self, window: Sequence[Batch], tau: float, *, fixed: bool = False
    ) -> dict[str, Parts] | None:
        """Return sums and weights of the loss over a window, on all processes.

        `None` of a loss that does not tell them.
        """
        if not tells(self._loss_fn):
            return None
        sums: dict[str, Parts] = {}
        for batch in window:
            self.valued(lambda batch=batch: self(batch, tau, fixed=fixed, into=sums))
        sums = {name: Parts(*(x.detach() for x in part)) for name, part in sums.items()}
        return reduced(sums, self._accelerator)

    def valued(self, run: Callable[[], Any]) -> Any:
        """Run where nothing is to be learned: nothing is recorded, unless the model differentiates.

        Such a model, which answers a force or a residual, is known by its first batch.
        """
        if not self._differentiates:
            before = random_state()
            try:
                with torch.no_grad():
                    return run()
            except RuntimeError as error:
                if "does not require grad" not in str(error):
                    raise
                self._differentiates = True
                set_random_state(before)  # as if the attempt had not been
        with torch.enable_grad():
            return run()

    def judged(self, batch: Batch, tau: float, model: nn.Module, into: dict[str, Parts]) -> Outcome:
        """Return the same for validation, without a graph."""
        found = self.valued(lambda: self(batch, tau, model, into=into))
        N, D, loss = (x.detach() for x in (found.N, found.D, found.loss))
        return found._replace(N=N, D=D, loss=loss)

    def call(
        self, N: Tensor, D: Tensor, y: Tensor, weight: Tensor | None, tau: float
    ) -> dict[str, Any]:
        """Return what the loss is called with."""
        # φ(⊥) has no sign to learn
        mask = ~torch.isnan(y) if "mask" in self._taken else None
        offered = {"tau_train": tau, "mask": mask, "weight": weight}
        targets = tuple(lift_targets(y, scale=self.scale))
        return {"outputs": (N, D), "targets": targets, **offered_to(self._taken, offered)}

    def placed(self, batch: Batch) -> Batch:
        """Return the batch on the device."""
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


def policy_of_values(config: TrainingConfig) -> GradientPolicy:
    """Return the policy of forward, loss and validation, for derivatives that are values there.

    REJECT is about what the weights learn: a force must not become 0 by it.
    """
    rejects = config.gradient_policy is GradientPolicy.REJECT
    return GradientPolicy.PROJECT if rejects else config.gradient_policy


# --- one loss over windows and processes


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
    mine = parts_of(loss_fn, call, batch.amount)
    if not batch.own:  # 0, connected to the model all the same: over no entries, as 0·nan is nan
        N, D = (z.flatten()[:0].abs().sum() for z in call["outputs"])
        mine = {name: Parts(*((N + D).to(x.dtype) for x in part)) for name, part in mine.items()}
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


# --- the forms in which models hand out tuples, and what a loss can be called with


def as_pair(outputs: Any) -> tuple[Tensor, Tensor]:
    """Return (N, D), in at least float32, of a pair, a mapping that holds them, or an `SCM` value.

    Values become ⟨x, 1⟩, and ⟨1, 0⟩ where they are ⊥.

    Raises:
        TrainingError: `outputs` is none of these.
    """
    if isinstance(outputs, SCM):
        return encode(widen(outputs.payload), outputs.bottom)
    if isinstance(outputs, tuple | list) and len(outputs) == 2:
        N, D = outputs
        if isinstance(N, Tensor) and isinstance(D, Tensor):
            return widen(N), widen(D)
    if isinstance(outputs, Mapping) and {"N", "D"} <= set(outputs):
        return as_pair((outputs["N"], outputs["D"]))
    came = f"a tensor of shape {tuple(outputs.shape)}" if isinstance(outputs, Tensor) else None
    raise TrainingError(
        "model must return a pair of tensors (N, D), a mapping that holds N and D, or an SCM, "
        f"got {came or type(outputs).__name__}; zeroproof.layers.ProjectiveHead makes such a pair"
    )


def accepted(loss_fn: Callable[..., Tensor]) -> tuple[str, ...]:
    """Tell which of `tau_train`, `mask`, `weight` a loss takes; a module is asked through forward.

    Raises:
        RangeError: It cannot be called as `loss_fn(outputs=..., targets=...)`.
    """
    if not callable(loss_fn):
        raise RangeError(f"loss_fn must be callable, got {type(loss_fn).__name__}")
    called = loss_fn.forward if isinstance(loss_fn, nn.Module) else loss_fn
    try:
        signature = inspect.signature(called)
    except ValueError:  # some built-in callables do not tell
        return ()
    names = signature.parameters
    anything = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in names.values())
    taken = tuple(name for name in ("tau_train", "mask", "weight") if anything or name in names)
    try:
        signature.bind(outputs=(), targets=(), **dict.fromkeys(taken))
    except TypeError as error:
        raise RangeError(
            f"loss_fn must accept loss_fn(outputs=(N, D), targets=(Y_n, Y_d)), got {signature}"
        ) from error
    return taken


def offered_to(taken: tuple[str, ...], offered: dict[str, Any]) -> dict[str, Any]:
    """Return what of `tau_train`, `mask` and `weight` a loss is given.

    Raises:
        TrainingError: Labels are weighted, and the loss takes no weights.
    """
    weight = offered.pop("weight")
    if weight is not None and "weight" in taken:
        offered["weight"] = weight
    elif weight is not None and bool((weight != 1).any()):
        raise TrainingError(
            "loss_fn must accept weight= to be trained on labels that are weighted or missing, "
            f"it takes {', '.join(taken) or 'outputs and targets alone'}"
        )
    return {name: value for name, value in offered.items() if name in taken}


# --- the step


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
        half = forward.dtype is torch.float16
        self.scaler = torch.amp.GradScaler(forward.device.type, enabled=half)
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
                # a loss scaler finds its scale by gradients that are not finite
                slopes = [] if self.scaler.is_enabled() else dense(self._parameters)
                wrong = self._flagged([*sums, *slopes])
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
            last = index == len(window) - 1 or self._world == 1
            with nullcontext() if last else self._accelerator.no_sync(self._forward.model):
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

    def _finish(self, outcomes: list[Outcome]) -> tuple[bool | Tensor, float | Tensor | None]:
        """Step or skip; return whether it was skipped, and the norm before clipping."""
        if self.scaler.is_enabled():
            self.scaler.unscale_(self._optimizer)
        changed = self._after_backward()
        norm = size = None
        if self._max_norm is not None:
            norm = torch.nn.utils.get_total_norm(dense(self._parameters))
            size = on_one_device(norm)
        finite = True
        if not self._again or changed or size is not None or self.scaler.is_enabled():
            losses = [] if self._again else [outcome.loss.detach() for outcome in outcomes]
            wrong = self._flagged([*losses, *(dense(self._parameters) if size is None else [size])])
            # a fused SGD must not be told to skip a first step: its momentum would be undefined
            groups = self._optimizer.param_groups
            first = not self._optimizer.state and any(group.get("momentum") for group in groups)
            if not (self._waits or first):
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
