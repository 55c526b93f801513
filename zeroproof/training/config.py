"""Options of a training run: typed, checked once, frozen."""

from dataclasses import dataclass

import torch

from zeroproof._checks import in_range, one_of, ordered, positive, threshold, whole
from zeroproof.autodiff.policies import GradientPolicy
from zeroproof.defaults import TARGET_COVERAGE, TAU_INFER, TAU_TRAIN
from zeroproof.errors import RangeError
from zeroproof.projective.angle import SCORES
from zeroproof.training.thresholds import MODES

__all__ = ["TrainingConfig"]

_CADENCES = ("epoch", "step")
_AMP_DTYPES = (None, torch.bfloat16, torch.float16)


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Options of `SCMTrainer`; a config that could be built is valid.

    Args:
        max_epochs: Passes over the training data, at least 1.
        gradient_policy: Policy in force while backward runs, where no layer has one registered.
        coverage_threshold: Share of finite answers, in [0, 1], that counts as enough; 0 never stops
            early.
        coverage_patience: Consecutive epochs below the threshold after which training stops.
        use_amp: Run the model's forward in half precision. N, D, losses and decoding stay in at
            least float32.
        grad_accumulation_steps: Batches that make one optimizer step.
        tau_train_min: Smallest τ_train that is drawn.
        tau_train_max: Largest; every step draws a fresh one. Validation loss and gap use this one.
        threshold_mode: `"uniform"` or `"log_uniform"`, how τ_train is drawn.
        tau_infer: τ_infer at which coverage is decoded; must not exceed `tau_train_min`.
        score: What is compared with τ_infer: `"denominator"`, the modulus of D, or `"angle"`, the
            gauge-free score.
        scale: Scale of the decoded values N / D for `"angle"`. Where targets are lifted with
            `target_scale` those values are y / target_scale, and 1 is the natural choice.
        target_scale: s in the units of y: targets are lifted as y / s, and the model learns y / s.
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
            (training loss without a validation loader).
        scheduler_cadence: Whether the learning-rate scheduler steps after each `"epoch"` or each
            `"step"`.
        progress: Show a progress bar when standard error is a terminal.

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
    target_scale: float = 1.0
    amp_dtype: torch.dtype | None = None
    device: str | torch.device = "auto"
    seed: int | None = None
    max_steps: int | None = None
    keep_best: bool = False
    scheduler_cadence: str = "epoch"
    progress: bool = True

    def __post_init__(self) -> None:
        self._check_counts()
        self._check_thresholds()
        self._check_choices()

    def _check_counts(self) -> None:
        whole(self.max_epochs, "max_epochs", low=1)
        whole(self.coverage_patience, "coverage_patience", low=1)
        whole(self.grad_accumulation_steps, "grad_accumulation_steps", low=1)
        if self.max_steps is not None:
            whole(self.max_steps, "max_steps", low=1)
        if self.seed is not None:
            whole(self.seed, "seed")
            if self.seed >= 2**32:
                raise RangeError(f"seed must be below 2**32, got {self.seed}")

    def _check_thresholds(self) -> None:
        in_range(self.coverage_threshold, TARGET_COVERAGE, name="coverage_threshold")
        in_range(self.tau_train_min, TAU_TRAIN, name="tau_train_min")
        threshold(self.tau_train_max, TAU_TRAIN, self.score, name="tau_train_max")
        in_range(self.tau_infer, TAU_INFER)
        ordered(self.tau_train_min, self.tau_train_max, "tau_train_min", "tau_train_max")
        ordered(self.tau_infer, self.tau_train_min, "tau_infer", "tau_train_min")
        positive(self.scale, "scale")
        positive(self.target_scale, "target_scale")

    def _check_choices(self) -> None:
        if not isinstance(self.gradient_policy, GradientPolicy):
            raise RangeError(
                f"gradient_policy must be a GradientPolicy, got {self.gradient_policy!r}"
            )
        one_of(self.threshold_mode, MODES, "threshold_mode")
        one_of(self.score, SCORES, "score")
        one_of(self.scheduler_cadence, _CADENCES, "scheduler_cadence")
        one_of(self.amp_dtype, _AMP_DTYPES, "amp_dtype")
        for name in ("use_amp", "keep_best", "progress"):
            one_of(getattr(self, name), (True, False), name)
        if self.device != "auto":
            try:
                torch.device(self.device)
            except RuntimeError as error:
                raise RangeError(
                    f'device must be "auto" or the name of a torch device, got {self.device!r}'
                ) from error
