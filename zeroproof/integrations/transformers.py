"""Models that return (N, D) under the Trainer of Hugging Face Transformers."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from zeroproof._extras import require
from zeroproof.errors import DataError
from zeroproof.integrations.objective import ProjectiveObjective
from zeroproof.metrics import coverage_share, gap_share, rate
from zeroproof.training import SoundRows, TrainingConfig

require("transformers", extra="transformers")

if TYPE_CHECKING:
    from transformers import Trainer as _Trainer
else:
    _Trainer = object

__all__ = ["ProjectiveTrainerMixin", "shares"]


class ProjectiveTrainerMixin(_Trainer):
    """Makes a Trainer train and decode tuples: `class Mine(ProjectiveTrainerMixin, Trainer): ...`.

    `labels`, in the shape of N, are plain targets y, with ±inf and nan. Predictions are (decoded,
    bottom_mask, gap_mask) in the units of y; without `compute_metrics` of your own, coverage and
    gap are reported. CLAMP's bound follows the loss scale of `fp16`. Losses are means over a batch.

    Args:
        *args, **named: As for the Trainer; its model returns (N, D), or a mapping with N and D.
        loss_fn: As in `ProjectiveObjective`.
        config: As in `ProjectiveObjective`; the rest belongs to `TrainingArguments`.

    Raises:
        RangeError: As `ProjectiveObjective`.
        DataError: A batch to train on has no `labels`.
    """

    def __init__(
        self,
        *args: Any,
        loss_fn: Callable[..., Tensor],
        config: TrainingConfig | None = None,
        **named: Any,
    ) -> None:
        self.objective = ProjectiveObjective(loss_fn, config)
        self._sound: SoundRows | None = None
        super().__init__(*args, **named)
        self.compute_metrics = self.compute_metrics or shares
        # otherwise columns that forward does not name, such as the targets, would be dropped
        self.label_names = ["labels"]
        # the loss is a mean, so the Trainer has to divide it by the batches of an accumulated step
        self.model_accepts_loss_kwargs = False

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Mapping[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Return the loss, and with `return_outputs` the model's outputs."""
        x, y = _split(inputs)
        if self._sound is not None and self._sound.taken is not None and not return_outputs:
            return self._sound.forward()
        outputs = model(**x)
        loss = self.objective(outputs, y)
        return (loss, outputs) if return_outputs else loss

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], *args: Any, **named: Any
    ) -> Tensor:
        """Run forward and backward over the sound rows, under the gradient policy of the config."""
        model.train()
        inputs = self._prepare_inputs(inputs)
        x, y = _split(inputs)
        if self._sound is None or self._sound.model is not model:
            self._sound = SoundRows(model, self.objective)
        sound, step = self._sound, super().training_step
        sound.scaler = scaler = self.accelerator.scaler
        sound.begin(((), x), y)
        with self.objective.policy(None if scaler is None else scaler.get_scale()):
            loss = sound.attempt(lambda: step(model, inputs, *args, **named))
        sound.taken = sound.outputs = None
        return torch.full((), torch.nan, device=y.device) if loss is None else loss

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Any, Any, Any]:
        """Return the loss at the largest τ_train, a `StrictResult` as a tuple, and the labels."""
        with torch.no_grad(), self.compute_loss_context_manager():
            x = dict(self._prepare_inputs(inputs))
            y = x.pop("labels", None)
            outputs = model(**x)
            loss = None if y is None else self.objective(outputs, y).mean()
        result = None if prediction_loss_only else tuple(self.objective.decode(outputs))
        return loss, result, None if prediction_loss_only else y


def _split(inputs: Mapping[str, Any]) -> tuple[dict[str, Any], Tensor]:
    """Return what the model is called with, and the targets."""
    x = dict(inputs)
    y = x.pop("labels", None)
    if y is None:
        raise DataError(f"a batch must have 'labels' to train on, got {', '.join(inputs)}")
    return x, y


def shares(predicted: Any) -> dict[str, float]:
    """Return coverage and gap of an `EvalPrediction`, for a `compute_metrics` of your own."""
    bottom, gap = (torch.as_tensor(mask) for mask in predicted.predictions[1:])
    return {"coverage": float(rate(coverage_share(bottom))), "gap": float(rate(gap_share(gap)))}
