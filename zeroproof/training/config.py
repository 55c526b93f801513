"""What a user sets up for a run: options, typed, checked once and frozen, and callbacks."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch

from zeroproof._checks import in_range, one_of, ordered, positive, threshold, whole
from zeroproof.autodiff.policies import GradientPolicy
from zeroproof.defaults import TARGET_COVERAGE, TAU_INFER, TAU_TRAIN
from zeroproof.errors import RangeError
from zeroproof.inference import InferenceConfig
from zeroproof.projective.angle import SCORES
from zeroproof.training.thresholds import MODES

__all__ = ["EVENTS", "Callback", "Events", "TrainingConfig"]

_COUNTS = (
    "max_epochs",
    "coverage_patience",
    "grad_accumulation_steps",
    "max_skipped_steps",
    "log_every",
    "keep_checkpoints",
)
_CHOICES = {
    "threshold_mode": MODES,
    "score": SCORES,
    "scheduler_cadence": ("epoch", "step"),
    "amp_dtype": (None, torch.bfloat16, torch.float16),
    "readout": ("auto", None),
    **dict.fromkeys(("use_amp", "keep_best", "progress", "calibrate"), (True, False)),
}


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    r"""Options of `SCMTrainer`; a config that could be built is valid.

    Args:
        max_epochs: Passes over the training data, at least 1.
        gradient_policy: Policy in force in forward, loss, backward and validation, where no module
            has one registered; `REJECT` in backward alone.
        coverage_threshold: Share of the entries with finite targets, in [0, 1], that have to be
            answered by a number; 0 never stops early.
        coverage_patience: Epochs below the threshold, without a new best by 0.001, after which
            training stops.
        use_amp: Run the model's forward in half precision. N, D, losses and decoding stay in at
            least float32.
        grad_accumulation_steps: Batches that make one optimizer step, with the gradient of one
            batch that holds all their rows. Above 1 each is run forward once more beforehand.
        tau_train_min: Smallest τ_train that is drawn.
        tau_train_max: Largest; every step draws a fresh one. Validation loss and gap use this one.
        threshold_mode: `"uniform"` or `"log_uniform"`, how τ_train is drawn.
        tau_infer: τ_infer at which coverage is decoded; must not exceed `tau_train_min`.
        score: What is compared with τ_infer: `"denominator"`, the modulus of D, or `"angle"`, the
            gauge-free score.
        scale: Scale of the decoded values N / D for `"angle"`. Where targets are lifted with
            `target_scale` those values are y / target_scale, and 1 is the natural choice.
        target_scale: s in the units of y: targets are lifted as y / s, and the model learns y / s.
            `"auto"` is the median of \|y\| over the first 8192 rows for a model that ends in a
            `ProjectiveHead`, and 1 for others. When `fit` ends, s is multiplied into the numerator
            of such a head, so that the model answers in the units of y; any other answers y / s.
        readout: `"auto"` ends `fit` by solving for the head of a model that ends in one of at most
            256 features, in the precision it has; kept if the error on rows held out falls by half.
            `None` does not.
        calibrate: End `fit` by `SCMTrainer.calibrate`; it leaves a `tau_infer` or `score` that is
            not the default.
        amp_dtype: Half-precision type; `None` is bfloat16 on CPUs and float16, with a loss scaler,
            elsewhere.
        device: `"auto"` takes what Accelerate finds; or the name of a device such as `"cuda:1"`.
        seed: Seeds Python, NumPy and torch when `fit` starts; `None` leaves them alone. The same
            seed gives the same history (without `time_` keys) on one machine, provided that the
            model starts from the same weights, and the loader's own generator, if it has one, from
            the same state.
        max_steps: Optimizer steps after which training ends, skipped ones included; `None` for no
            limit.
        keep_best: Restore at the end the weights of the epoch with the lowest validation loss
            (training loss without a validation loader) among those whose coverage reaches
            `coverage_threshold`; among all, if none does.
        scheduler_cadence: Whether the learning-rate scheduler steps after each `"epoch"` or each
            `"step"`, skipped ones included.
        progress: Show a progress bar, in a terminal or a notebook.
        loss_patience: Epochs without a better one, in the sense of `keep_best`, after which
            training stops; `None` for never.
        max_grad_norm: Scale gradients down to this 2-norm; their norm before that is `grad_norm` in
            the history. `None` leaves them. A norm that overflows counts as not finite.
        ema_decay: In (0, 1): keep an exponential moving average of the weights, validate it, and
            leave it in the model at the end. `None` for none.
        max_skipped_steps: Consecutive skipped steps after which training stops with an error.
        log_every: Steps between two log lines; an accelerator is read no more often than that.
        log_dir: Folder for `steps.jsonl`, `epochs.jsonl` and `history.csv`; `None` for none.
        checkpoint_dir: Folder for checkpoints, from which `fit(resume_from="auto")` goes on; of one
            run at a time. `None` for none.
        checkpoint_every_steps: Optimizer steps, over the whole run, between two checkpoints; `None`
            for one after each epoch. There is always one at the end.
        keep_checkpoints: How many of the latest to keep.

    Raises:
        RangeError: An option is outside what it may be, or thresholds are in the wrong order.

    Examples:
        >>> TrainingConfig(max_epochs=3).coverage_patience
        10
    """

    max_epochs: int = 100
    gradient_policy: GradientPolicy = GradientPolicy.PROJECT
    coverage_threshold: float = 0.90
    coverage_patience: int = 10
    use_amp: bool = False
    grad_accumulation_steps: int = 1
    tau_train_min: float = TAU_TRAIN.value
    tau_train_max: float = TAU_TRAIN.value
    threshold_mode: str = "uniform"
    tau_infer: float = TAU_INFER.value
    score: str = "denominator"
    scale: float = 1.0
    target_scale: float | str = "auto"
    readout: str | None = "auto"
    calibrate: bool = True
    amp_dtype: torch.dtype | None = None
    device: str | torch.device = "auto"
    seed: int | None = None
    max_steps: int | None = None
    keep_best: bool = False
    scheduler_cadence: str = "epoch"
    progress: bool = True
    loss_patience: int | None = None
    max_grad_norm: float | None = None
    ema_decay: float | None = None
    max_skipped_steps: int = 200
    log_every: int = 50
    log_dir: str | os.PathLike[str] | None = None
    checkpoint_dir: str | os.PathLike[str] | None = None
    checkpoint_every_steps: int | None = None
    keep_checkpoints: int = 2

    @property
    def fixed_scale(self) -> float:
        """`target_scale`, where it is a number; 1 before the targets are known."""
        return 1.0 if isinstance(self.target_scale, str) else self.target_scale

    @property
    def decoding(self) -> InferenceConfig:
        """The thresholds, for N and D in the units that are learned."""
        return InferenceConfig(
            tau_infer=self.tau_infer,
            tau_train=self.tau_train_max,
            score=self.score,
            scale=self.scale,
        )

    def __post_init__(self) -> None:
        self._check_numbers()
        for name in ("log_dir", "checkpoint_dir"):
            place = getattr(self, name)
            if place is not None and not isinstance(place, str | os.PathLike):
                raise RangeError(f"{name} must be a path or None, got {type(place).__name__}")
        if self.checkpoint_every_steps is not None and self.checkpoint_dir is None:
            raise RangeError("checkpoint_every_steps must come with a checkpoint_dir, got none")
        if not isinstance(self.gradient_policy, GradientPolicy):
            raise RangeError(
                f"gradient_policy must be a GradientPolicy, got {self.gradient_policy!r}"
            )
        for name, choices in _CHOICES.items():
            one_of(getattr(self, name), choices, name)
        if self.device != "auto":
            try:
                torch.device(self.device)
            except (RuntimeError, TypeError, ValueError) as error:
                raise RangeError(
                    f'device must be "auto" or the name of a torch device, got {self.device!r}'
                ) from error

    def _check_numbers(self) -> None:
        for name in (*_COUNTS, "max_steps", "loss_patience", "checkpoint_every_steps"):
            value = getattr(self, name)
            if (name in _COUNTS or value is not None) and whole(value, name, low=1) >= 2**63:
                raise RangeError(f"{name} must be below 2**63, got more than that")
        if self.seed is not None:
            whole(self.seed, "seed")
            if self.seed >= 2**32:
                raise RangeError("seed must be below 2**32, got more than that")
        if self.max_grad_norm is not None:
            positive(self.max_grad_norm, "max_grad_norm")
        if self.ema_decay is not None and positive(self.ema_decay, "ema_decay") >= 1:
            raise RangeError(f"ema_decay must lie in (0, 1), got {self.ema_decay!r}")
        in_range(self.coverage_threshold, TARGET_COVERAGE, name="coverage_threshold")
        in_range(self.tau_train_min, TAU_TRAIN, name="tau_train_min")
        threshold(self.tau_train_max, TAU_TRAIN, self.score, name="tau_train_max")
        in_range(self.tau_infer, TAU_INFER)
        ordered(self.tau_train_min, self.tau_train_max, "tau_train_min", "tau_train_max")
        ordered(self.tau_infer, self.tau_train_min, "tau_infer", "tau_train_min")
        positive(self.scale, "scale")
        if self.target_scale != "auto":
            positive(self.target_scale, "target_scale")  # pyright: ignore[reportArgumentType]


class Callback:
    """Base of callbacks: every event does nothing. Any object with some of the methods will do.

    Each is called as `event(trainer)`. What there is to see: `trainer.model`, `.optimizer`,
    `.loss_fn` (may be set), `.history`, `.epoch` and `.step` (counted from 0), `.row` (the values
    of the running epoch), `.checkpoint` (the latest one's folder). `trainer.stop(reason)` ends the
    run. With `state_dict()` and `load_state_dict(state)` a callback is part of every checkpoint.

    Examples:
        >>> class Rates(Callback):
        ...     def on_epoch_end(self, trainer):
        ...         print(trainer.epoch, trainer.row["lr"])
    """

    def on_fit_begin(self, trainer: Any) -> None:
        """Before the first step, also of a run that goes on; states are restored by then."""

    def on_epoch_begin(self, trainer: Any) -> None:
        """Before an epoch's first batch; not again in an epoch that goes on."""

    def on_batch_begin(self, trainer: Any) -> None:
        """Before the batches of an optimizer step."""

    def on_backward_end(self, trainer: Any) -> None:
        """With the gradients of a step, unscaled, and not clipped yet."""

    def on_batch_end(self, trainer: Any) -> None:
        """After an optimizer step, made or skipped."""

    def on_validate_end(self, trainer: Any) -> None:
        """When `trainer.row` has the validation values."""

    def on_epoch_end(self, trainer: Any) -> None:
        """When `trainer.history[-1]` is complete; numbers may be added to it."""

    def on_checkpoint_end(self, trainer: Any) -> None:
        """When a checkpoint is on disk, at `trainer.checkpoint`."""

    def on_fit_end(self, trainer: Any) -> None:
        """When training has ended and the weights to keep are in the model."""


EVENTS = tuple(name for name in vars(Callback) if name.startswith("on_"))


class Events:
    """Calls callbacks, in their order; what has nothing to say to an event costs nothing."""

    def __init__(self, callbacks: Iterable[Any]) -> None:
        self.callbacks = tuple(callbacks)
        self._calls: dict[str, list[Callable[[Any], None]]] = {
            event: [
                getattr(c, event)
                for c in self.callbacks
                if hasattr(c, event)
                and getattr(type(c), event, None) is not getattr(Callback, event)
            ]
            for event in EVENTS
        }

    def __call__(self, event: str, trainer: Any) -> bool:
        """Call all that listen to an event; tell whether there are any."""
        for call in self._calls[event]:
            call(trainer)
        return bool(self._calls[event])

    def state(self) -> list[Any]:
        """Return the states of the callbacks, `None` for one without."""
        kept = [hasattr(c, "state_dict") and hasattr(c, "load_state_dict") for c in self.callbacks]
        pairs = zip(self.callbacks, kept, strict=True)
        return [c.state_dict() if keeps else None for c, keeps in pairs]

    def restore(self, states: list[Any]) -> None:
        """Set what `state` returned."""
        for callback, state in zip(self.callbacks, states, strict=True):
            if state is not None:
                callback.load_state_dict(state)
