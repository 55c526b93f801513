"""A target coverage that grows while training goes on, and a weight that goes after it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

from zeroproof._checks import in_range, ordered, whole
from zeroproof.defaults import LAMBDA_REJECTION, TARGET_COVERAGE, Parameter
from zeroproof.errors import TrainingError

__all__ = ["AdaptiveCoverageScheduler", "CoverageController"]

# exp(gain) of the largest difference, 1, must stay a number
_GAIN = Parameter("gain", "g, gain of the controller", 5.0, (1.0, 10.0), 0.0, 100.0, open_low=True)


@dataclass(frozen=True)
class AdaptiveCoverageScheduler:
    """Raise the target coverage in a straight line over the first epochs, then keep it.

    It holds no state: the same epoch always gives the same target, also after a run is resumed.

    Args:
        initial_coverage: Target at epoch 0, in [0, 1].
        target_coverage: Target from epoch `warmup_epochs` on, not below the initial one.
        warmup_epochs: Length of the rise; 0 gives the final target at once.

    Raises:
        RangeError: A coverage outside [0, 1], the two in the wrong order, or a length that is no
            whole number.

    Examples:
        >>> scheduler = AdaptiveCoverageScheduler(0.5, target_coverage=1.0, warmup_epochs=4)
        >>> [scheduler.step(epoch) for epoch in range(6)]
        [0.5, 0.625, 0.75, 0.875, 1.0, 1.0]
    """

    initial_coverage: float = 0.80
    target_coverage: float = TARGET_COVERAGE.value
    warmup_epochs: int = 20

    def __post_init__(self) -> None:
        in_range(self.initial_coverage, TARGET_COVERAGE, name="initial_coverage")
        in_range(self.target_coverage, TARGET_COVERAGE)
        ordered(self.initial_coverage, self.target_coverage, "initial_coverage", "target_coverage")
        whole(self.warmup_epochs, "warmup_epochs")

    def step(self, epoch: int) -> float:
        """Return the target coverage of an epoch, counted from 0.

        Raises:
            RangeError: `epoch` is not a whole number of at least 0.
        """
        if whole(epoch, "epoch") >= self.warmup_epochs:
            return float(self.target_coverage)
        rise = self.target_coverage - self.initial_coverage
        return self.initial_coverage + rise * (epoch / self.warmup_epochs)


class CoverageController:
    r"""Move the rejection weight until the coverage is the one that is asked for.

    Formula, after each epoch: λ ← min(max(λ·exp(g·(target - coverage)), λ_min), λ_max). So λ rises
    where coverage is below the target of that epoch and falls where it is above; at a bound it
    turns round at once, since nothing is summed up beyond it. Where coverage rises by c for a rise
    of ln λ by 1, g·c < 2 keeps the loop from swinging.

    As a callback of `SCMTrainer` it sets λ and the target of each epoch in the trainer's loss, in
    place of the loss's own, and writes both to `history` under `lambda_rejection` and
    `target_coverage`. It reads the validation coverage, or that of training if there is none: the
    share of finite answers at τ_infer, while the loss works on the soft coverage at τ_train. λ goes
    on from one `fit` to the next. By hand: `weight = controller.step(epoch, coverage)`.

    Args:
        scheduler: Gives the target of each epoch; a number is a constant target.
        gain: g, above 0, at most 100.
        weight: λ to begin with, above 0 (zero would stay zero), in [λ_min, λ_max].
        low: λ_min, above 0.
        high: λ_max.

    Attributes:
        weight: λ, for the next epoch.

    Raises:
        RangeError: A number outside what it may be, or bounds and weight in the wrong order.

    Examples:
        >>> controller = CoverageController(0.9, gain=2.0, weight=0.01)
        >>> round(controller.step(epoch=0, coverage=0.4), 4)  # 0.01·exp(2·0.5)
        0.0272
        >>> controller.step(epoch=1, coverage=1.0) < 0.0272
        True
    """

    def __init__(
        self,
        scheduler: AdaptiveCoverageScheduler | float = AdaptiveCoverageScheduler(),
        *,
        gain: float = _GAIN.value,
        weight: float = LAMBDA_REJECTION.value,
        low: float = 1e-4,
        high: float = 10.0,
    ) -> None:
        if not isinstance(scheduler, AdaptiveCoverageScheduler):
            constant = in_range(scheduler, TARGET_COVERAGE)
            scheduler = AdaptiveCoverageScheduler(constant, constant)
        self.scheduler = scheduler
        self.gain = in_range(gain, _GAIN)
        above_zero = LAMBDA_REJECTION._replace(open_low=True)
        for name, value in (("low", low), ("weight", weight), ("high", high)):
            in_range(value, above_zero, name=name)
        ordered(low, weight, "low", "weight")
        ordered(weight, high, "weight", "high")
        self.weight, self.low, self.high = float(weight), low, high

    def step(self, epoch: int, coverage: float) -> float:
        """Return λ for the next epoch, given the coverage of `epoch`, counted from 0.

        Raises:
            RangeError: `coverage` is outside [0, 1], or `epoch` no whole number of at least 0.
        """
        missing = self.scheduler.step(epoch) - in_range(coverage, TARGET_COVERAGE, name="coverage")
        moved = self.weight * math.exp(self.gain * missing)
        self.weight = float(min(max(moved, self.low), self.high))
        return self.weight

    def on_fit_begin(self, trainer: Any) -> None:
        """As `on_epoch_begin`, for a run that goes on within an epoch."""
        self.on_epoch_begin(trainer)

    def on_epoch_begin(self, trainer: Any) -> None:
        """Set λ and the target of the epoch that begins in the trainer's loss.

        Raises:
            TrainingError: The loss is no dataclass with `lambda_rejection` and `target_coverage`.
        """
        loss = _steered(trainer.loss_fn)
        target = self.scheduler.step(len(trainer.history))
        trainer.loss_fn = replace(loss, lambda_rejection=self.weight, target_coverage=target)

    def on_epoch_end(self, trainer: Any) -> None:
        """Note what was in force in the latest row of the history, and move on from its coverage.

        An epoch without a coverage leaves λ as it is.

        Raises:
            TrainingError: As `on_epoch_begin`.
        """
        loss, row = _steered(trainer.loss_fn), trainer.history[-1]
        row["lambda_rejection"], row["target_coverage"] = (
            loss.lambda_rejection,
            loss.target_coverage,
        )
        coverage = row.get("val_coverage", row.get("train_coverage"))
        if coverage is not None:
            self.step(len(trainer.history) - 1, coverage)
        self.on_epoch_begin(trainer)

    def state_dict(self) -> dict[str, float]:
        """Return λ; the options belong to the constructor."""
        return {"weight": self.weight}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Go on from a state; λ is brought into the own bounds."""
        self.weight = float(min(max(state["weight"], self.low), self.high))


def _steered(loss: Any) -> Any:
    names = {field.name for field in fields(loss)} if is_dataclass(loss) else set()
    if isinstance(loss, type) or not {"lambda_rejection", "target_coverage"} <= names:
        raise TrainingError(
            "loss_fn must be an SCMTrainingLoss, or a dataclass with the fields lambda_rejection "
            f"and target_coverage, for CoverageController to steer it, got {type(loss).__name__}"
        )
    return loss
