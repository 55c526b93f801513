"""From a batch to tuples and a loss, the same way in training and in validation."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from zeroproof._checks import pair_shapes, same_shape, widen
from zeroproof._extras import require
from zeroproof.autodiff.policies import GradientPolicy
from zeroproof.autodiff.rewind import random_state, set_random_state
from zeroproof.errors import RangeError, TrainingError
from zeroproof.losses.gradients import Parts
from zeroproof.projective.tuples import encode
from zeroproof.scm import SCM
from zeroproof.training.config import TrainingConfig
from zeroproof.training.joint import added, joint_loss, parts_of, reduced, scalar, tells, whole
from zeroproof.training.loaders import Batch
from zeroproof.training.targets import lift_targets

__all__ = [
    "Forward",
    "Outcome",
    "accepted",
    "amp_dtype",
    "as_pair",
    "offered_to",
    "policy_of_values",
]


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
        self.policy = policy_of_values(config)
        self._differentiates = False  # whether the model needs gradients to be recorded in forward
        self._dtype = amp_dtype(config, device)
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
        if self._dtype is not None:
            half = torch.autocast(self.device.type, dtype=self._dtype)
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
