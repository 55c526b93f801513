"""Options of a training run: typed, checked once, frozen."""

import os
from dataclasses import dataclass

import torch

from zeroproof._checks import in_range, one_of, ordered, positive, threshold, whole
from zeroproof.autodiff.policies import GradientPolicy
from zeroproof.defaults import TARGET_COVERAGE, TAU_INFER, TAU_TRAIN
from zeroproof.errors import RangeError
from zeroproof.inference import InferenceConfig
from zeroproof.projective.angle import SCORES
from zeroproof.training.thresholds import MODES

__all__ = ["TrainingConfig"]

_CADENCES = ("epoch", "step")
_COUNTS = (
    "max_epochs",
    "coverage_patience",
    "grad_accumulation_steps",
    "max_skipped_steps",
    "log_every",
    "keep_checkpoints",
)
_AMP_DTYPES = (None, torch.bfloat16, torch.float16)


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
        progress: Show a progress bar when standard error is a terminal.
        loss_patience: Epochs without a better one, in the sense of `keep_best`, after which
            training stops; `None` for never.
        max_grad_norm: Scale gradients down to this 2-norm; their norm before that is `grad_norm` in
            the history. `None` leaves them. A norm that overflows counts as not finite.
        ema_decay: In (0, 1): keep an exponential moving average of the weights, validate it, and
            leave it in the model at the end. `None` for none.
        max_skipped_steps: Consecutive skipped steps after which training stops with an error.
        log_every: Steps between two log lines; an accelerator is read no more often than that.
        log_dir: Folder for `steps.jsonl`, `epochs.jsonl` and `history.csv`; `None` for none.
        checkpoint_dir: Folder for checkpoints, from which `fit(resume_from="auto")` goes on; `None`
            for none.
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
        self._check_counts()
        self._check_places()
        self._check_thresholds()
        self._check_choices()

    def _check_counts(self) -> None:
        for name in _COUNTS:
            whole(getattr(self, name), name, low=1)
        for name in ("max_steps", "loss_patience", "checkpoint_every_steps"):
            if getattr(self, name) is not None:
                whole(getattr(self, name), name, low=1)
        if self.seed is not None:
            whole(self.seed, "seed")
            if self.seed >= 2**32:
                raise RangeError(f"seed must be below 2**32, got {self.seed}")
        if self.max_grad_norm is not None:
            positive(self.max_grad_norm, "max_grad_norm")
        if self.ema_decay is not None and positive(self.ema_decay, "ema_decay") >= 1:
            raise RangeError(f"ema_decay must lie in (0, 1), got {self.ema_decay!r}")

    def _check_places(self) -> None:
        for name in ("log_dir", "checkpoint_dir"):
            place = getattr(self, name)
            if place is not None and not isinstance(place, str | os.PathLike):
                raise RangeError(f"{name} must be a path or None, got {type(place).__name__}")
        if self.checkpoint_every_steps is not None and self.checkpoint_dir is None:
            raise RangeError("checkpoint_every_steps must come with a checkpoint_dir, got none")

    def _check_thresholds(self) -> None:
        in_range(self.coverage_threshold, TARGET_COVERAGE, name="coverage_threshold")
        in_range(self.tau_train_min, TAU_TRAIN, name="tau_train_min")
        threshold(self.tau_train_max, TAU_TRAIN, self.score, name="tau_train_max")
        in_range(self.tau_infer, TAU_INFER)
        ordered(self.tau_train_min, self.tau_train_max, "tau_train_min", "tau_train_max")
        ordered(self.tau_infer, self.tau_train_min, "tau_infer", "tau_train_min")
        positive(self.scale, "scale")
        if self.target_scale != "auto":
            positive(self.target_scale, "target_scale")  # pyright: ignore[reportArgumentType]

    def _check_choices(self) -> None:
        if not isinstance(self.gradient_policy, GradientPolicy):
            raise RangeError(
                f"gradient_policy must be a GradientPolicy, got {self.gradient_policy!r}"
            )
        one_of(self.threshold_mode, MODES, "threshold_mode")
        one_of(self.score, SCORES, "score")
        one_of(self.scheduler_cadence, _CADENCES, "scheduler_cadence")
        one_of(self.amp_dtype, _AMP_DTYPES, "amp_dtype")
        one_of(self.readout, ("auto", None), "readout")
        for name in ("use_amp", "keep_best", "progress", "calibrate"):
            one_of(getattr(self, name), (True, False), name)
        if self.device != "auto":
            try:
                torch.device(self.device)
            except RuntimeError as error:
                raise RangeError(
                    f'device must be "auto" or the name of a torch device, got {self.device!r}'
                ) from error
