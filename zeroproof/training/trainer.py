"""The reference trainer: lifting, policy, thresholds, checkpoints and early stopping in a loop."""

import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zeroproof.autodiff.policies import idle
from zeroproof.errors import TrainingError
from zeroproof.training._forward import Forward
from zeroproof.training._judge import Judge
from zeroproof.training._keeping import Average, Best
from zeroproof.training._loaders import Batch, windows
from zeroproof.training._log import Log, progress_bar, shown
from zeroproof.training._mode import in_mode
from zeroproof.training._progress import Progress
from zeroproof.training._resume import RunParts, check_place, resume, save
from zeroproof.training._setup import (
    check_parameters,
    check_schedule,
    engine,
    learning_rates,
    placed,
    same_buffers,
    seed_run,
)
from zeroproof.training._source import Source
from zeroproof.training._steps import Stepper
from zeroproof.training.callbacks import Events
from zeroproof.training.config import TrainingConfig
from zeroproof.training.history import History
from zeroproof.training.readout import HeadReadout, head_readout
from zeroproof.training.thresholds import ThresholdLog

__all__ = ["SCMTrainer"]

_ADVICE = "look for non-finite inputs or weights, or lower the learning rate"


class SCMTrainer:
    """Train a model that returns tuples (N, D).

    Every step draws τ_train, lifts the targets, runs the model, `loss_fn(outputs=(N, D),
    targets=(Y_n, Y_d))` and backward under the gradient policy, and is skipped if the loss or a
    gradient is not finite: then weights, buffers and optimizer state are as they were before it.
    Forward and validation are under PROJECT where the policy is REJECT, so that a derivative which
    the model answers is right.

    Args:
        model: Returns (N, D) of the shape of y; its parameters are updated in place.
        optimizer: An optimizer over the model's parameters.
        loss_fn: `SCMTrainingLoss`, or any callable of that form. `tau_train=` and `mask=` (false
            where y is nan, whose sign is unknown) are added if it accepts them.
        train_loader: Yields batches anew in every epoch: a `DataLoader`, a list, a `TableStream`,
            ... A batch is (x, y) for `model(x)`, (x1, x2, y) for `model(x1, x2)`, or a dict with
            `"y"` for `model(**rest)`.
        val_loader: The same for validation.
        config: Options; `TrainingConfig()` if absent.
        scheduler: A learning-rate scheduler; a `ReduceLROnPlateau` is given the validation loss
            (training loss without a validation loader).
        accelerator: An `accelerate.Accelerator` to use instead of a new one, in full precision and
            without accumulation, which are the trainer's own; of all processes that were started.
        callbacks: See `Callback`; such as `SpectralReadoutCallback()`.

    Attributes:
        stop_reason: Why the latest `fit` ended: `"max_epochs"`, `"max_steps"`, `"coverage"`,
            `"loss"`, or what a callback gave to `stop`.
        checkpoint: Folder of the latest checkpoint of this `fit`.

    Raises:
        MissingExtraError: Accelerate is not installed.
        RangeError: `loss_fn`, a loader or the scheduler cannot be used as described.
        TrainingError: The optimizer holds none of the model's parameters, or Accelerate was set up
            with mixed precision, accumulation, or for another number of processes than run.

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
        self.accelerator = engine(accelerator)
        check_parameters(model, optimizer, loss_fn, self.accelerator)
        check_schedule(scheduler, self.config)
        self._sources = {
            part: Source(loader, f"{part}_loader", self.accelerator)
            for part, loader in (("train", train_loader), ("val", val_loader))
            if loader is not None
        }
        self.device = torch.device(
            self.accelerator.device if self.config.device == "auto" else self.config.device
        )
        self.model, wrapped, self.optimizer = placed(
            model, optimizer, self.accelerator, self.device, self.config
        )
        self.scheduler, self.callbacks = scheduler, tuple(callbacks)
        self._forward = Forward(wrapped, loss_fn, self.config, self.accelerator, self.device)
        self._stepper = Stepper(
            self._forward,
            self.optimizer,
            self.config,
            self.accelerator,
            lambda: self._events("on_backward_end", self),
        )
        self._log = Log(self.config, self.accelerator)
        self._renew()

    @property
    def loss_fn(self) -> Callable[..., Tensor]:
        """The loss; a callback may set another one."""
        return self._forward.loss_fn

    @loss_fn.setter
    def loss_fn(self, loss_fn: Callable[..., Tensor]) -> None:
        self._forward.loss_fn = loss_fn

    @property
    def epoch(self) -> int:
        """Index of the running epoch, or of the next one."""
        return self._progress.epoch

    @property
    def step(self) -> int:
        """Optimizer steps so far."""
        return self._progress.step

    @property
    def row(self) -> dict[str, float]:
        """The values of the running epoch, or the latest one."""
        return self._progress.row

    @property
    def thresholds(self) -> ThresholdLog:
        """The τ_train drawn in the running epoch, or the latest one."""
        return self._progress.drawn

    @property
    def history(self) -> History:
        """The rows so far."""
        return self._progress.history

    @property
    def best_epoch(self) -> int | None:
        """Index in `history` of the best epoch, with `keep_best`."""
        return self._best.epoch if self.config.keep_best else None

    def fit(self, resume_from: str | os.PathLike[str] | None = None) -> History:
        """Train until the first reason to stop.

        Args:
            resume_from: `"auto"` to go on from the newest whole checkpoint in `checkpoint_dir`, or
                to begin with a warning if there is none; or the path of a checkpoint. A run that
                was killed ends with the same bits as one that was not, if the loader's order
                depends on generators and samplers that are attributes of it, of its sampler or data
                set, or on the global ones at the epoch's start, alone.

        Returns:
            One dict per epoch, see `History`.

        Raises:
            DataError: A loader yields nothing, or something other than batches.
            TrainingError: The model does not return (N, D), the loss is not a scalar, or every step
                of an epoch, or `max_skipped_steps` in a row, was skipped.
            ShapeError: N and D, or N and y, do not belong together.
            CheckpointError: A checkpoint belongs to another run, or the folder cannot be used.
        """
        self._renew()
        seeded = seed_run(self.config, self.accelerator, self._sources.values())
        self._progress.generator = seeded
        run = self._parts()
        check_place(run, fresh=resume_from is None)
        if resume_from is not None:
            self.checkpoint = resume(run, resume_from)
            self._saved = (self.step, self._progress.running) if self.checkpoint else self._saved
            self.stop_reason = self._judge.reason_before()
        begun = self.step
        self._log.begin(self.step, self.epoch)
        try:
            self._events("on_fit_begin", self)
            self._run()
        finally:
            for source in self._sources.values():
                source.release()
            self._log.end(self.history)
        if not self._best.load_into(self.model) and self._average is not None:
            self._average.load_into(self.model)
        for name in idle(self.model) if self.step > begun else ():
            what = f"the policy registered on {name or 'the model'}"
            warnings.warn(f"{what} acted on nothing: it took no part in the step", stacklevel=2)
        self._events("on_fit_end", self)
        return self.history

    def stop(self, reason: str) -> None:
        """Ask for the end of training: after this step, or with several processes this epoch."""
        self._progress.wish = reason

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
            self._sources["train"].loader,
            self._sources["val"].loader if "val" in self._sources else None,
            scale=self.config.target_scale,
            dtype=dtype,
            distributed=self.accelerator.num_processes > 1,
        )

    def _renew(self) -> None:
        self._progress, self._best = Progress(self.config, self._roots), Best()
        watched = "val" if "val" in self._sources else "train"
        self._judge = Judge(self.config, self._progress, self._best, watched)
        decay = self.config.ema_decay
        self._average = None if decay is None else Average(self.model, decay)
        self._events = Events(self.callbacks)
        self.stop_reason: str | None = None
        self.checkpoint: Path | None = None
        self._saved = (-1, False)  # step, and whether an epoch was running

    def _roots(self) -> dict[str, Any]:
        """Return what may hold generators; a loader that keeps its place keeps them too."""
        sources = self._sources.items()
        loaders = {f"{part}_loader": s.loader for part, s in sources if not s.keeps_place}
        return {**loaders, "model": self.model, "loss_fn": self.loss_fn}

    def _parts(self) -> RunParts:
        return RunParts(
            self.config,
            self.model,
            self.loss_fn,
            self.optimizer,
            self.scheduler,
            self._stepper.scaler,
            self._average,
            self._best,
            self._events,
            self._progress,
            self._sources,
            self.accelerator,
        )

    def _run(self) -> None:
        with progress_bar(self.config, self.accelerator, self.epoch) as bar:
            while self.stop_reason is None:
                self._epoch(bar)
                bar.update()
            if self.config.checkpoint_dir is not None:
                self._save()

    def _epoch(self, bar: Any) -> None:
        progress = self._progress
        self._train(self._stream(), bar)
        if "val" in self._sources:
            progress.row.update(self._validate())
            self._events("on_validate_end", self)
        progress.row["time_epoch_s"] = progress.seconds
        if self.scheduler is not None and self.config.scheduler_cadence == "epoch":
            self._schedule()
        progress.end()
        self._judge.offer(self._judged)
        self._events("on_epoch_end", self)
        self._log.epoch(self.epoch, self.step, self.row, self.thresholds)
        bar.set_postfix(shown(self.row))
        progress.epoch += 1
        self.stop_reason = progress.reason = self._judge.verdict(self.accelerator)
        if self.config.checkpoint_dir is not None and self.config.checkpoint_every_steps is None:
            self._save()

    def _stream(self) -> Iterator[Batch]:
        """Return the batches of the coming epoch, or the rest of one that was interrupted."""
        progress, source = self._progress, self._sources["train"]
        if not progress.running:
            progress.go_on()
            progress.begin()
            progress.row.update(learning_rates(self.optimizer))
            self._events("on_epoch_begin", self)
            if self.config.checkpoint_dir is not None:
                progress.mark(source)
            return source.epoch(self.epoch)
        return progress.rest(source)

    def _train(self, stream: Iterator[Batch], bar: Any) -> None:
        progress = self._progress
        coming = windows(stream, self.config.grad_accumulation_steps)
        with in_mode(self.model, training=True):
            while not self._enough() and (window := next(coming, None)):
                self._events("on_batch_begin", self)
                progress.batches += len(window)
                progress.rows += sum(batch.all for batch in window)
                self._stepper.step(window, progress.draw(), progress.tally)
                progress.step += 1
                self._after_step(bar)
        totals = progress.tally.totals(self.accelerator)
        row = progress.row
        row.update(totals.means("train"))
        self._check_progress(none_taken=totals.skipped == sum(progress.drawn.counts))
        row.update(progress.drawn.summary())
        row["skipped_steps"] = int(totals.skipped)
        row["masked_rows"] = int(totals.masked_rows)
        row["time_rows_per_s"] = progress.rows / progress.seconds

    def _after_step(self, bar: Any) -> None:
        step, every = self.step, self.config.checkpoint_every_steps
        if self.scheduler is not None and self.config.scheduler_cadence == "step":
            with warnings.catch_warnings() if step == 1 else nullcontext():
                if step == 1:  # torch takes a first step that was skipped for a mistake
                    warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")
                self.scheduler.step()
        if self._average is not None:
            self._average.update()
        self._events("on_batch_end", self)
        if step % self.config.log_every == 0:
            self._report(bar)
        if every is not None and step % every == 0:
            self._save()

    def _report(self, bar: Any) -> None:
        """Log what came since the latest report; the one place where a step waits for the device.

        Raises:
            TrainingError: Nothing but skipped steps for too long.
        """
        progress, limit = self._progress, self.config.max_skipped_steps
        totals = progress.tally.totals(self.accelerator)
        since, steps = totals.since(progress.logged), self.step - progress.logged_step
        progress.stalled = progress.stalled + steps if since.skipped >= steps else 0
        progress.logged, progress.logged_step = totals, self.step
        row = {**since.means("train"), "skipped_steps": int(since.skipped)}
        row.update(learning_rates(self.optimizer))
        self._log.steps(self.step, row)
        bar.set_postfix(shown(row))
        if progress.stalled >= limit:
            raise TrainingError(
                f"the latest {progress.stalled} steps had a non-finite loss or gradient and were "
                f"skipped; {_ADVICE}"
            )

    def _validate(self) -> dict[str, float]:
        model = self._judged
        same_buffers(model, self.accelerator)
        tally = self._progress.new_tally()
        with in_mode(model, training=False):
            for batch in self._sources["val"].epoch(self.epoch):
                outcome = self._forward.judged(batch, self.config.tau_train_max, model)
                tally.add(outcome, batch.own)
        return tally.totals(self.accelerator).means("val")

    def _check_progress(self, *, none_taken: bool) -> None:
        # a float16 loss scaler finds its scale by skipping; finite losses then cause no alarm
        finding = self._stepper.scaler.is_enabled() and "train_loss" in self.row
        if none_taken and not finding:
            raise TrainingError(
                f"every step of epoch {self.epoch + 1} had a non-finite loss or gradient and was "
                f"skipped; {_ADVICE}"
            )

    @property
    def _judged(self) -> nn.Module:
        """The model that is validated, and kept: never a wrapper, which waits for the others."""
        return self.model if self._average is None else self._average.model

    def _enough(self) -> bool:
        """Tell whether the epoch ends before its batches do."""
        alone = self.accelerator.num_processes == 1
        return self._judge.steps_are_over() or bool(alone and self._progress.wish)

    def _schedule(self) -> None:
        if not isinstance(self.scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            self.scheduler.step()
        elif (loss := self._judge.loss) is not None:
            self.scheduler.step(loss)

    def _save(self) -> None:
        now = (self.step, self._progress.running)
        if now == self._saved:
            return
        path = save(self._parts())
        if path is not None:
            self._saved, self.checkpoint = now, path
            self._events("on_checkpoint_end", self)
