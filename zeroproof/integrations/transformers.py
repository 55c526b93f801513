"""Models that return (N, D) under the Trainer of Hugging Face Transformers."""

import math
from collections.abc import Callable, Mapping
from copy import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from zeroproof._extras import require
from zeroproof.autodiff.rewind import in_mode
from zeroproof.errors import DataError
from zeroproof.integrations.objective import ProjectiveObjective
from zeroproof.losses.gradients import Parts
from zeroproof.metrics import Share, rate
from zeroproof.training import SoundRows, TrainingConfig
from zeroproof.training.loaders import checked_weight
from zeroproof.training.step import added

require("transformers", extra="transformers")

if TYPE_CHECKING:
    from transformers import Trainer as _Trainer
else:
    _Trainer = object

__all__ = ["ProjectiveTrainerMixin", "shares"]

_PADDING = -100  # the Trainer's, for labels and for predictions of unequal length


class ProjectiveTrainerMixin(_Trainer):
    """Makes a Trainer train and decode tuples: `class Mine(ProjectiveTrainerMixin, Trainer): ...`.

    `labels`, in the shape of N, are plain targets y, with ±inf and nan; `weight` beside them weighs
    them, see `ProjectiveObjective`. Predictions are (decoded, bottom_mask, gap_mask) in the units
    of y; without `compute_metrics` of your own, coverage and gap are reported. `eval_loss` is that
    of all rows together, however they are batched. CLAMP's bound follows the loss scale of `fp16`.

    Padding is neither label nor answer. It is where a sequence `(n, t, k)` has a label of -100, the
    Trainer's mark, or a 0 in `attention_mask`; where outputs `(n, t)` have both; and where the
    Trainer fills up batches of unequal length. There decoded is nan, and both masks are False. In
    a table `(n, k)` -100 is a number. (`preprocess_logits_for_metrics` sees masks of int8.)

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
        self._sums: dict[str, Parts] = {}
        self._counts = torch.zeros(3, dtype=torch.long)
        self._sound: SoundRows | None = None
        super().__init__(*args, **named)
        # otherwise columns that forward does not name, such as the targets, would be dropped
        self.label_names = ["labels", "weight"]
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
        x, y, weight = _split(inputs)
        with self.objective.values():
            if self._sound is not None and self._sound.taken is not None and not return_outputs:
                return self._sound.forward()
            outputs = model(**x)
            loss = self.objective(outputs, y, _counting(inputs, y, weight))
        return (loss, outputs) if return_outputs else loss

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], *args: Any, **named: Any
    ) -> Tensor:
        """Run forward and backward over the sound rows, under the gradient policy of the config."""
        model.train()
        inputs = self._prepare_inputs(inputs)
        x, y, weight = _split(inputs)
        if self._sound is None or self._sound.model is not model:
            self._sound = SoundRows(model, self.objective.over)
        sound, step = self._sound, super().training_step
        sound.scaler = scaler = self.accelerator.scaler
        sound.begin(((), x), (y, _counting(inputs, y, weight)))
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
        """Return the loss at the largest τ_train, a `StrictResult` as a tuple, and the labels.

        On their way through the Trainer, which pads with -100, the masks are int8.
        """
        with (
            torch.no_grad(),
            self.objective.values(),
            in_mode(model, training=False),
            self.compute_loss_context_manager(),
        ):
            placed = self._prepare_inputs(inputs)
            x, y, weight = _split(placed)
            outputs, loss = model(**x), None
            decoded, bottom, gap = self.objective.decode(outputs)
            padding = _padding(placed, y, decoded.shape)
            if y is not None:
                parts = self.objective.parts(outputs, y, _labels(padding, weight, y))
                added(self._sums, parts)
                loss = self.objective.combine(parts)
        masks = torch.stack([~bottom, gap, torch.ones_like(gap)])
        masks = masks if padding is None else masks & ~padding
        self._counts = self._counts + masks.flatten(1).sum(1)
        if prediction_loss_only:
            return loss, None, None
        masks = bottom.to(torch.int8), gap.to(torch.int8)
        if padding is not None:
            masks = tuple(torch.where(padding, _PADDING, mask) for mask in masks)
            y = None if y is None else torch.where(padding, _PADDING, y)
        return loss, (decoded, *masks), y

    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> Any:
        """Run the Trainer's; its loss is that of all rows, and its masks are boolean again."""
        measure: Any = self.compute_metrics
        self._sums, self._counts = {}, torch.zeros(3, dtype=torch.long, device=self.args.device)

        def measured(predicted: Any, **options: Any) -> Any:
            predicted = copy(predicted)
            predicted.predictions = _read(predicted.predictions)
            predicted.elements = (predicted.predictions, *predicted.elements[1:])
            return measure(predicted, **options)

        self.compute_metrics = None if measure is None else measured
        try:
            output: Any = super().evaluation_loop(
                dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix
            )
        finally:
            self.compute_metrics = measure
        found: dict[str, Any] = {}
        # as objects: a process that had no labels does not know the names of the sums
        own = {name: Parts(*(x.cpu() for x in pair)) for name, pair in self._sums.items()}
        joint: dict[str, Parts] = {}
        for sums in require("accelerate.utils", extra="transformers").gather_object([own]):
            here = {n: Parts(*(x.to(self.args.device) for x in pair)) for n, pair in sums.items()}
            added(joint, here)
        if joint:
            found["loss"] = self.objective.combine(joint)
        if measure is None and not self.args.prediction_loss_only:
            finite, gap, there = self.accelerator.reduce(self._counts, reduction="sum")
            found |= {"coverage": rate(Share(finite, there)), "gap": rate(Share(gap, there))}
        output.metrics.update({f"{metric_key_prefix}_{key}": float(x) for key, x in found.items()})
        return output._replace(predictions=_read(output.predictions))


def shares(predicted: Any) -> dict[str, float]:
    """Return coverage and gap of an `EvalPrediction`, for a `compute_metrics` of your own."""
    decoded, bottom, gap = (torch.as_tensor(x) for x in predicted.predictions)
    there = (bottom | ~torch.isnan(decoded)).sum()  # the rest is padding
    return {
        "coverage": float(rate(Share(there - bottom.sum(), there))),
        "gap": float(rate(Share(gap.sum(), there))),
    }


def _split(inputs: Mapping[str, Any]) -> tuple[dict[str, Any], Any, Any]:
    x = dict(inputs)
    return x, x.pop("labels", None), x.pop("weight", None)


def _padding(inputs: Mapping[str, Any], y: Any, shape: torch.Size) -> Tensor | None:
    """Tell where outputs are those of padding; `None` where they have no length of their own."""
    signs, mask = [], inputs.get("attention_mask")
    if isinstance(mask, Tensor) and mask.shape == shape[: mask.ndim]:
        signs.append((mask == 0).reshape(*mask.shape, *[1] * (len(shape) - mask.ndim)))
    if y is not None and y.shape == shape:
        signs.append(y == _PADDING)
    if len(shape) > 2:  # (n, t, k): a sequence, where one sign is enough
        return torch.stack([sign.expand(shape) for sign in signs]).any(0) if signs else None
    return signs[0] & signs[1] if len(signs) == 2 else None


def _counting(inputs: Mapping[str, Any], y: Any, weight: Any) -> Tensor | None:
    """Return the weights of the labels of a batch to train on."""
    if y is None:
        raise DataError(f"a batch must have 'labels' to train on, got {', '.join(inputs)}")
    return _labels(_padding(inputs, y, y.shape), weight, y)


def _labels(padding: Tensor | None, weight: Any, y: Tensor) -> Tensor | None:
    """Return the weights of labels, 0 at padding."""
    weight = checked_weight(weight, y)
    if padding is None:
        return weight
    return ~padding if weight is None else weight * ~padding


def _read(predictions: Any) -> Any:
    """Return what came through the Trainer's padding: boolean masks, and nan where nothing was."""
    if isinstance(predictions, list):
        return [_read(batch) for batch in predictions]
    if not (isinstance(predictions, tuple) and len(predictions) == 3):
        return predictions  # made by a `preprocess_logits_for_metrics`
    decoded, bottom, gap = predictions
    decoded[bottom < 0] = math.nan
    return decoded, bottom > 0, gap > 0
