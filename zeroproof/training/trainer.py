"""The reference trainer: lifting, policy, thresholds and early stopping in a short loop."""

import time
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from zeroproof._extras import require
from zeroproof.errors import TrainingError
from zeroproof.inference import InferenceConfig
from zeroproof.training._forward import Forward
from zeroproof.training._loaders import Batch, batches, prepared, windows
from zeroproof.training._mode import in_mode
from zeroproof.training._steps import Stepper
from zeroproof.training._tally import Tally
from zeroproof.training.config import TrainingConfig
from zeroproof.training.history import History
from zeroproof.training.readout import HeadReadout, head_readout
from zeroproof.training.stopping import coverage_stalled
from zeroproof.training.thresholds import perturbed_threshold

__all__ = ["SCMTrainer"]


class SCMTrainer:
    """Train a model that returns tuples (N, D).

    Every step draws τ_train, lifts the targets, runs `loss_fn(outputs=(N, D), targets=(Y_n, Y_d))`
    and its backward under the gradient policy, and is skipped if the loss or a gradient is not
    finite: then weights, buffers and optimizer state are as they were before it.

    Args:
        model: Returns (N, D) of the shape of y; its parameters are updated in place.
        optimizer: An optimizer over the model's parameters.
        loss_fn: `SCMTrainingLoss`, or any callable of that form. `tau_train=` and `mask=` (false
            where y is nan, whose sign is unknown) are added if it accepts them.
        train_loader: Yields pairs (x, y) anew in every epoch: a `DataLoader`, a list, ...
        val_loader: The same for validation.
        config: Options; `TrainingConfig()` if absent.
        scheduler: A learning-rate scheduler; a `ReduceLROnPlateau` is given the validation loss
            (training loss without a validation loader).
        accelerator: An `accelerate.Accelerator` to use instead of a new one, in full precision:
            mixed precision is the trainer's own.
        callbacks: Objects whose `on_fit_end(trainer)`, if they have it, is called once at the end
            of `fit`, such as `SpectralReadoutCallback()`.

    Attributes:
        history: The rows of the latest `fit`, also when it was interrupted.
        stop_reason: Why the latest `fit` ended: `"max_epochs"`, `"max_steps"` or `"coverage"`.
        best_epoch: Index in `history` of the lowest loss, with `keep_best`.

    Raises:
        MissingExtraError: Accelerate is not installed.
        RangeError: `loss_fn` or a loader cannot be used as described.
        TrainingError: The optimizer holds none of the model's parameters, or Accelerate was set up
            with mixed precision.

    Examples:
        >>> from zeroproof.layers import ProjectiveHead
        >>> from zeroproof.training import SCMTrainingLoss, TrainingConfig
        >>> model, x = ProjectiveHead(1, 1), torch.linspace(-1, 1, 8)[:, None]
        >>> optimizer = torch.optim.Adam(model.parameters())
        >>> config = TrainingConfig(max_epochs=2, seed=0)
        >>> trainer = SCMTrainer(model, optimizer, SCMTrainingLoss(), [(x, 1 / x)], config=config)
        >>> len(trainer.fit())
        2
    """

    def __init__(  # noqa: PLR0913 - the guide's eight, and callbacks
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        loss_fn: Callable[..., Tensor],
        train_loader: Iterable[Any],
        val_loader: Iterable[Any] | None = None,
        config: TrainingConfig | None = None,
        scheduler: Any = None,
        accelerator: Any = None,
        *,
        callbacks: Iterable[Any] = (),
    ) -> None:
        self.config = config or TrainingConfig()
        self.model, self.optimizer, self.scheduler = model, optimizer, scheduler
        self.callbacks = tuple(callbacks)
        _check_parameters(model, optimizer)
        self.accelerator = accelerator or _accelerator()
        if self.accelerator.mixed_precision != "no":
            raise TrainingError(
                "accelerator must have mixed_precision='no' (use_amp=True is the trainer's own), "
                f"got {self.accelerator.mixed_precision!r}"
            )
        device = torch.device(
            self.accelerator.device if self.config.device == "auto" else self.config.device
        )
        self._loaders = {
            part: prepared(loader, f"{part}_loader", self.accelerator)
            for part, loader in (("train", train_loader), ("val", val_loader))
            if loader is not None
        }
        self._forward = Forward(self._placed(device), loss_fn, self.config, device)
        self._stepper = Stepper(self._forward, optimizer, self.config, self.accelerator)
        self._decoding = InferenceConfig(
            tau_infer=self.config.tau_infer,
            tau_train=self.config.tau_train_max,
            score=self.config.score,
            scale=self.config.scale,
        )
        self.history = History()
        self.stop_reason: str | None = None
        self.best_epoch: int | None = None
        self._steps = 0
        self._best: tuple[float, dict[str, Any]] | None = None
        self._generator: torch.Generator | None = None

    def fit(self) -> History:
        """Train until `max_epochs`, `max_steps`, or until coverage stays too low.

        Returns:
            One dict per epoch, see `History`.

        Raises:
            DataError: A loader yields nothing, or something other than pairs (x, y).
            TrainingError: The model does not return (N, D), the loss is not a scalar, or every step
                of an epoch was skipped.
            ShapeError: N and y differ in shape.
        """
        self._reset()
        bar = require("tqdm", extra="train").tqdm(
            range(self.config.max_epochs),
            desc="training",
            unit="epoch",
            disable=None if self.config.progress and self.accelerator.is_main_process else True,
        )
        with bar:
            for epoch in bar:
                row = self._epoch(epoch)
                self.history.append(row)
                bar.set_postfix({key: f"{row[key]:.4g}" for key in _shown(row)})
                self._keep_best(epoch)
                self.stop_reason = self._finished()
                if self.stop_reason:
                    break
        if self._best is not None:
            self.model.load_state_dict(self._best[1])
        for callback in self.callbacks:
            if hasattr(callback, "on_fit_end"):
                callback.on_fit_end(self)
        return self.history

    def readout(self, *, dtype: torch.dtype | None = None) -> HeadReadout:
        """Put the closed-form head on the trained trunk, if that lowers the held-out error.

        Rows come from `train_loader`; held out are those of `val_loader`, or else one training row
        in five. Let it be the last step: the optimizer's state is that of the former head. With
        several processes all have to call. See `head_readout`.

        Raises:
            TrainingError, ShapeError, DataError, RangeError: As `head_readout`.
        """
        return head_readout(
            self.model,
            self._loaders["train"],
            self._loaders.get("val"),
            scale=self.config.target_scale,
            dtype=dtype,
            distributed=self.accelerator.num_processes > 1,
        )

    def _reset(self) -> None:
        self.history, self.stop_reason, self.best_epoch = History(), None, None
        self._steps, self._best, self._generator = 0, None, None
        if self.config.seed is not None:
            require("accelerate.utils", extra="train").set_seed(self.config.seed)
            # its own stream, so that drawing thresholds does not move the model's or the loader's
            self._generator = torch.Generator().manual_seed(self.config.seed)

    def _epoch(self, epoch: int) -> dict[str, float]:
        start = time.perf_counter()
        rate = _learning_rate(self.optimizer)
        row = self._train(epoch)
        if "val" in self._loaders:
            row.update(self._validate())
        if rate is not None:
            row["lr"] = rate
        row["time_epoch_s"] = time.perf_counter() - start
        if self.scheduler is not None and self.config.scheduler_cadence == "epoch":
            self._schedule(row)
        return row

    def _train(self, epoch: int) -> dict[str, float]:
        tally, drawn, skipped, rows = Tally(self._decoding), [], 0, 0
        start = time.perf_counter()
        with in_mode(self.model, training=True):
            for window in windows(self._batches("train"), self.config.grad_accumulation_steps):
                tau = self._draw()
                drawn.append(tau)
                rows += sum(len(batch.y) for batch in window)
                taken = self._stepper.step(window, tau, tally)
                skipped += not taken
                self._steps += 1
                if taken and self.scheduler is not None and self.config.scheduler_cadence == "step":
                    self.scheduler.step()
                if self._steps == self.config.max_steps:
                    break
        totals = tally.totals(self.accelerator)
        row = totals.means("train")
        self._check_progress(epoch, skipped == len(drawn), row)
        row["tau_train_mean"] = sum(drawn) / len(drawn)
        row["skipped_steps"] = skipped
        row["masked_rows"] = int(totals.masked_rows)
        seconds = time.perf_counter() - start
        row["time_rows_per_s"] = rows * self.accelerator.num_processes / seconds
        return row

    @torch.no_grad()
    def _validate(self) -> dict[str, float]:
        tally = Tally(self._decoding)
        with in_mode(self.model, training=False):
            for batch in self._batches("val"):
                tally.add(self._forward(batch, self.config.tau_train_max))
        return tally.totals(self.accelerator).means("val")

    def _draw(self) -> float:
        low, high = self.config.tau_train_min, self.config.tau_train_max
        if low == high:
            return low
        return perturbed_threshold(low, high, self.config.threshold_mode, generator=self._generator)

    def _batches(self, part: str) -> Iterator[Batch]:
        return batches(self._loaders[part], f"{part}_loader")

    def _check_progress(self, epoch: int, none_taken: bool, row: dict[str, float]) -> None:
        # a float16 loss scaler finds its scale by skipping; finite losses then cause no alarm
        finding = self._stepper.scaler.is_enabled() and "train_loss" in row
        if none_taken and not finding:
            raise TrainingError(
                f"every step of epoch {epoch + 1} had a non-finite loss or gradient and was "
                "skipped; look for non-finite inputs or weights, or lower the learning rate"
            )

    def _finished(self) -> str | None:
        part = "train" if "val" not in self._loaders else "val"
        if self._steps == self.config.max_steps:
            return "max_steps"
        threshold, patience = self.config.coverage_threshold, self.config.coverage_patience
        coverages = [row.get(f"{part}_coverage", 0.0) for row in self.history[-patience:]]
        if coverage_stalled(coverages, threshold, patience):
            return "coverage"
        return "max_epochs" if len(self.history) == self.config.max_epochs else None

    def _keep_best(self, epoch: int) -> None:
        loss = self._watched(self.history[-1])
        if self.config.keep_best and loss is not None and (not self._best or loss < self._best[0]):
            self._best, self.best_epoch = (loss, self._kept_state()), epoch

    def _kept_state(self) -> dict[str, Any]:
        """Copy the model's state into tensors that are kept, so that no epoch allocates anew."""
        kept = self._best[1] if self._best else {}
        for name, value in self.model.state_dict().items():
            old = kept.get(name)
            if not isinstance(value, Tensor):
                kept[name] = deepcopy(value)  # extra state of a module
            elif isinstance(old, Tensor) and (old.shape, old.dtype) == (value.shape, value.dtype):
                old.copy_(value)
            else:
                kept[name] = value.detach().clone()
        return kept

    def _watched(self, row: dict[str, float]) -> float | None:
        return row.get("train_loss" if "val" not in self._loaders else "val_loss")

    def _schedule(self, row: dict[str, float]) -> None:
        if not isinstance(self.scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            self.scheduler.step()
        elif (loss := self._watched(row)) is not None:
            self.scheduler.step(loss)

    def _placed(self, device: torch.device) -> nn.Module:
        if self.accelerator.num_processes > 1:
            return self.accelerator.prepare_model(self.model)
        self.model.to(device)
        if self.optimizer.state:  # loading moves each state to the device of its parameter
            self.optimizer.load_state_dict(self.optimizer.state_dict())
        return self.model


def _accelerator() -> Any:
    # Accelerate's state is one per process and refuses a second precision, so autocast is our own
    try:
        return require("accelerate", extra="train").Accelerator(mixed_precision="no")
    except ValueError as error:
        raise TrainingError(
            "Accelerate must be set up with mixed_precision='no' in this process "
            "(use_amp=True is the trainer's own), but was set up otherwise before"
        ) from error


def _check_parameters(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if not any(id(p) in held for p in model.parameters()):
        raise TrainingError("optimizer must hold parameters of the model, got none of them")


def _learning_rate(optimizer: torch.optim.Optimizer) -> float | None:
    rate = optimizer.param_groups[0].get("lr")
    return None if rate is None else float(rate)


def _shown(row: dict[str, float]) -> list[str]:
    wanted = ("train_loss", "val_loss", "train_coverage", "val_coverage")
    return [key for key in wanted if key in row]
