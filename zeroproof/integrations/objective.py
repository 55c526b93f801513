"""What `SCMTrainer` does with outputs and targets, for the training loops of others."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn

from zeroproof._checks import same_shape
from zeroproof.autodiff import GradientPolicy, gradient_policy
from zeroproof.errors import RangeError
from zeroproof.inference import InferenceConfig, StrictModule, StrictResult, strict_inference
from zeroproof.integrations._units import InUnits
from zeroproof.training import TrainingConfig, lift_targets, perturbed_threshold
from zeroproof.training._calling import accepted, as_pair
from zeroproof.training._forward import policy_of_values

__all__ = ["ProjectiveObjective"]

_TAU = ("tau_train_min", "tau_train_max", "threshold_mode")
_USED = {"gradient_policy", "tau_infer", "score", "scale", "target_scale", *_TAU}


class ProjectiveObjective:
    """A loss of a model's outputs and plain targets: `objective(outputs, y)`.

    Targets are lifted as y / target_scale. τ_train is drawn anew where gradients are enabled, and
    is `tau_train_max` where they are not, as in validation. N, D and the loss are in at least
    float32, whatever autocast surrounds them. `loss_fn` gets `tau_train=` and `mask=~isnan(y)` if
    it accepts them.

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
        self.decoding = InferenceConfig(
            tau_infer=config.tau_infer,
            tau_train=config.tau_train_max,
            score=config.score,
            scale=config.scale * config.target_scale,
        )

    def __call__(self, outputs: Any, y: Tensor) -> Tensor:
        """Return the loss; `outputs` is a pair (N, D), or a mapping that holds N and D.

        Raises:
            TrainingError: `outputs` is neither.
            ShapeError: N and y differ in shape.
        """
        N, D = as_pair(outputs)
        same_shape(y, N, "the targets y of a batch", "N")
        low, high, mode = (getattr(self.config, name) for name in _TAU)
        tau = perturbed_threshold(low, high, mode) if torch.is_grad_enabled() else high
        offered: dict[str, Any] = {"tau_train": tau, "mask": ~torch.isnan(y)}
        targets = tuple(lift_targets(y, scale=self.config.target_scale))
        options = {name: offered[name] for name in self._offers}
        kind = N.device.type
        # exported graphs shall hold no context of ours
        on = torch.is_autocast_enabled(kind)
        with torch.autocast(kind, enabled=False) if on else nullcontext():
            return self.loss_fn(outputs=(N, D), targets=targets, **options)

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
        return strict_inference(N * self.config.target_scale, D, self.decoding)

    def strict(self, model: nn.Module) -> StrictModule:
        """Return the model in eval mode, ready to deploy, its answers in the units of y."""
        return StrictModule(InUnits(model, self.config.target_scale), self.decoding).eval()
