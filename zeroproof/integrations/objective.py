"""What `SCMTrainer` does with outputs and targets, for the training loops of others."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from zeroproof._checks import same_shape
from zeroproof.autodiff import GradientPolicy, gradient_policy
from zeroproof.autodiff.compiled import is_autocast
from zeroproof.autodiff.sound import SoundRows
from zeroproof.errors import RangeError
from zeroproof.inference import StrictModule, StrictResult, strict_inference
from zeroproof.losses.gradients import Parts, finite_rows
from zeroproof.training import TrainingConfig, lift_targets, perturbed_threshold
from zeroproof.training.loaders import checked_weight
from zeroproof.training.step import accepted, as_pair, offered_to, parts_of, policy_of_values, whole

__all__ = ["ProjectiveObjective"]

_TAU = ("tau_train_min", "tau_train_max", "threshold_mode")
_USED = {"gradient_policy", "tau_infer", "score", "scale", "target_scale", *_TAU}


class ProjectiveObjective:
    """A loss of a model's outputs and plain targets: `objective(outputs, y)`.

    Targets are lifted as y / target_scale, 1 unless it is given. τ_train is drawn anew where
    gradients are enabled, and is `tau_train_max` where they are not, as in validation. N, D and the
    loss are in at least float32, whatever autocast surrounds them. `loss_fn` gets `tau_train=`,
    `mask=~isnan(y)` and `weight=` if it accepts them.

    Args:
        loss_fn: Called as `loss_fn(outputs=(N, D), targets=(Y_n, Y_d))`; a `SCMTrainingLoss`, say.
        config: Of it are used `gradient_policy`, `tau_train_min`, `tau_train_max`,
            `threshold_mode`, `tau_infer`, `score`, `scale` and `target_scale`.

    Raises:
        RangeError: `loss_fn` cannot be called, or another field of `config` is not at its default:
            epochs, precision and the like are set in the loop itself.

    Examples:
        >>> from zeroproof.training import SCMTrainingLoss
        >>> objective = ProjectiveObjective(SCMTrainingLoss(normalizer="chordal", lambda_margin=0))
        >>> N, D = torch.tensor([0.0], requires_grad=True), torch.tensor([1.0])
        >>> loss = objective((N, D), torch.tensor([1.0]))
        >>> with objective.policy():
        ...     loss.backward()
        >>> N.grad
        tensor([-1.])
    """

    def __init__(
        self, loss_fn: Callable[..., Tensor], config: TrainingConfig | None = None
    ) -> None:
        config = config or TrainingConfig()
        for field in fields(config):
            if field.name not in _USED and getattr(config, field.name) != field.default:
                raise RangeError(
                    f"{field.name} must be left to the training loop, got it in config"
                )
        self.loss_fn, self.config, self._offers = loss_fn, config, accepted(loss_fn)
        self.scale = config.fixed_scale
        self._sound: SoundRows | None = None
        self.decoding = replace(config.decoding, scale=config.scale * self.scale)

    def __call__(self, outputs: Any, y: Tensor, weight: Tensor | None = None) -> Tensor:
        """Return the loss; `outputs` is a pair (N, D), or a mapping that holds N and D.

        The loss leaves out a row that is not finite; it is nan if all are. But weights in front of
        such a row get nan gradients all the same: use `backward`, or train a `StrictModule`.

        Args:
            outputs: Of the model.
            y: Targets in the shape of N.
            weight: How much each label counts, in the shape of y or of its leading dimensions: real
                numbers of at least 0 or booleans, 0 or False for a label that is missing.

        Raises:
            TrainingError: `outputs` is neither, or `loss_fn` takes no `weight=`.
            ShapeError: N and y differ in shape.
            DataError: `weight` is none.
        """
        loss = self._called(lambda amount, **call: self.loss_fn(**call), outputs, y, weight)
        N, D = as_pair(outputs)
        return torch.where(finite_rows(N, D).any() | (N.numel() == 0), loss, torch.nan)

    def over(self, outputs: Any, labels: tuple[Tensor, Tensor | None]) -> Tensor:
        """Return the loss; `labels` is (y, weight), as `SoundRows` hands them on."""
        return self(outputs, *labels)

    def backward(
        self,
        model: nn.Module,
        inputs: Any,
        y: Tensor,
        weight: Tensor | None = None,
        *,
        scaler: Any = None,
    ) -> Tensor:
        """Run forward and backward over the sound rows of a batch, under the policy.

        See `training.SoundRows`, whose `backward` this is.

        Args:
            model: The model.
            inputs: x for `model(x)`, a tuple for `model(*inputs)`, a mapping for `model(**inputs)`.
            y: The targets.
            weight: As for a call.
            scaler: A `torch.amp.GradScaler`.

        Returns:
            The loss over them, detached; nan where there is none.
        """
        if self._sound is None or self._sound.model is not model:
            self._sound = SoundRows(model, self.over)
            self._sound.within = self.values
        self._sound.scaler = scaler
        with self.policy(scaler.get_scale() if scaler is not None else None):
            return self._sound.backward(inputs, (y, weight))

    def parts(self, outputs: Any, y: Tensor, weight: Tensor | None = None) -> dict[str, Parts]:
        """Return sums and weights of the loss, which add up over batches: see `combine`.

        Of a loss without `parts` and `combine` of its own it is the value, weighted by the labels
        that count. Arguments and errors as for a call.
        """
        return self._called(
            lambda amount, **call: parts_of(self.loss_fn, call, amount), outputs, y, weight
        )

    def combine(self, parts: Mapping[str, Parts]) -> Tensor:
        """Return the loss of all batches whose parts were added up entry by entry."""
        return whole(self.loss_fn, parts)

    def _called(
        self, function: Callable[..., Any], outputs: Any, y: Tensor, weight: Tensor | None
    ) -> Any:
        N, D = as_pair(outputs)
        same_shape(y, N, "the targets y of a batch", "N")
        low, high, mode = (getattr(self.config, name) for name in _TAU)
        tau = perturbed_threshold(low, high, mode) if torch.is_grad_enabled() else high
        weight = checked_weight(weight, y)
        offered = {"tau_train": tau, "mask": ~torch.isnan(y), "weight": weight}
        options = offered_to(self._offers, offered)
        targets = tuple(lift_targets(y, scale=self.scale))
        amount = y.numel() if weight is None else weight.expand(y.shape).sum()
        kind = N.device.type
        # exported graphs shall hold no context of ours
        with torch.autocast(kind, enabled=False) if is_autocast(kind) else nullcontext():
            return function(amount, outputs=(N, D), targets=targets, **options)

    def values(self) -> AbstractContextManager[GradientPolicy]:
        """Return the context for forward and loss, and validation: derivatives are values there.

        That is the policy of the config, and PROJECT where it is REJECT.
        """
        return gradient_policy(policy_of_values(self.config), loss_scale=1.0)

    def policy(self, loss_scale: float | None = None) -> AbstractContextManager[GradientPolicy]:
        """Return the context to open around backward; `loss_scale` as in `gradient_policy`."""
        return gradient_policy(self.config.gradient_policy, loss_scale=loss_scale)

    def decode(self, outputs: Any) -> StrictResult:
        """Decode outputs strictly, in the units of y, without a gradient."""
        N, D = (part.detach() for part in as_pair(outputs))
        return strict_inference(N * self.scale, D, self.decoding)

    def strict(self, model: nn.Module) -> StrictModule:
        """Return the model in eval mode, ready to deploy, its answers in the units of y.

        A `StrictModule` keeps its own thresholds; of any other model they are those of the config.
        """
        decoding = self.decoding
        if isinstance(model, StrictModule):
            decoding = replace(model.config, scale=model.config.scale * self.scale)
            model = model.model
        return StrictModule(_InUnits(model, self.scale), decoding).eval()


class _InUnits(nn.Module):
    """A model whose N is multiplied by the scale of the targets: its answers are in units of y."""

    def __init__(self, model: nn.Module, scale: float) -> None:
        super().__init__()
        self.model, self.scale = model, scale

    def forward(self, *args: Any, **named: Any) -> tuple[Tensor, Tensor]:
        """Return (s N, D) in at least float32."""
        N, D = as_pair(self.model(*args, **named))
        return N * self.scale, D
