"""The reference trainer: lifting, policy, thresholds, checkpoints and early stopping in a loop."""

import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zeroproof._extras import require
from zeroproof._processes import started, world_sizes
from zeroproof.autodiff.policies import gradient_policy, idle
from zeroproof.autodiff.rewind import Buffers, in_mode
from zeroproof.defaults import TAU_INFER
from zeroproof.errors import RangeError, TrainingError
from zeroproof.inference import InferenceConfig, calibrated, strict_inference
from zeroproof.layers.head import ProjectiveHead
from zeroproof.losses.gradients import Parts
from zeroproof.projective.angle import denominator_score
from zeroproof.scm import SCM
from zeroproof.training.checkpoint import Checkpoints
from zeroproof.training.config import Events, TrainingConfig
from zeroproof.training.loaders import Batch, Source, from_all, widened
from zeroproof.training.progress import Average, Judge, Progress, plain
from zeroproof.training.readout import (
    HeadReadout,
    answers_y,
    closing_pair,
    closing_readout,
    head_readout,
    heads_of,
    scale_numerator,
)
from zeroproof.training.report import History, Log, Tally, progress_bar, shown
from zeroproof.training.step import Forward, Stepper, reduced, whole
from zeroproof.training.success import Proportion, answers, can_reach_zero, doubts, skill
from zeroproof.training.thresholds import ThresholdLog

__all__ = ["SCMTrainer"]

_TRIED = 500  # steps, before which a model that is no good is no surprise
_ADVICE = "look for non-finite inputs or weights, or lower the learning rate"


class SCMTrainer:
    """Train a model that returns tuples (N, D), or `SCM` values.

    Every step draws τ_train, lifts the targets, runs the model, `loss_fn(outputs=(N, D),
    targets=(Y_n, Y_d))` and backward under the gradient policy, and leaves out rows that are not
    finite. It is skipped if no row is left, or the loss or a gradient is not finite all the same:
    then weights, buffers and optimizer state are as they were before it.
    Forward and validation are under PROJECT where the policy is REJECT, so that a derivative which
    the model answers is right. `fit` ends by solving for the head (`TrainingConfig.readout`) and
    choosing thresholds (`calibrate`).

    Args:
        model: Returns (N, D) of the shape of y; its parameters are updated in place.
        optimizer: An optimizer over the model's parameters.
        loss_fn: `SCMTrainingLoss`, or any callable of that form. `tau_train=`, `mask=` (false
            where y is nan, whose sign is unknown) and `weight=` are added if it accepts them.
        train_loader: Yields batches anew in every epoch: a `DataLoader`, a list, a `TableStream`,
            ... A batch is (x, y) for `model(x)`, (x1, x2, y) for `model(x1, x2)`, or a dict with
            `"y"` for `model(**rest)`. A dict may also hold `"weight"`, in the shape of y or of its
            leading dimensions: how much each label counts, 0 or False for one that is missing, in
            every part of the loss, in shares and thresholds (nan is no missing label but ⊥).
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
        inference_config: Thresholds, once `fit` is over those to deploy the model with:
            `StrictModule(model, trainer.inference_config)`.
        val_caught: Share of the labelled entries (±inf, ⊥) that are answered ⊥ with them, on the
            validation rows (the training rows without any); `None` if there are none.
        val_lost: Share of the entries with finite labels that are answered ⊥.
        solved: What came of solving for the head at the end of `fit`; `None` if it was not done.

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
        self.accelerator = _engine(accelerator)
        _check_parameters(model, optimizer, loss_fn, self.accelerator)
        plateau = isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)
        if plateau and self.config.scheduler_cadence == "step":
            raise RangeError(
                "scheduler_cadence must be 'epoch' for a ReduceLROnPlateau, which needs the loss "
                "of an epoch, got 'step'"
            )
        self._sources = {
            part: Source(loader, f"{part}_loader", self.accelerator)
            for part, loader in (("train", train_loader), ("val", val_loader))
            if loader is not None
        }
        self.device = torch.device(
            self.accelerator.device if self.config.device == "auto" else self.config.device
        )
        self.model, wrapped, self.optimizer = _placed(
            model, optimizer, self.accelerator, self.device, self.config
        )
        self.scheduler: Any = scheduler
        self.callbacks = tuple(callbacks)
        self._forward = Forward(wrapped, loss_fn, self.config, self.accelerator, self.device)
        self._stepper = Stepper(
            self._forward,
            self.optimizer,
            self.config,
            self.accelerator,
            lambda: self._events("on_backward_end", self),
        )
        self._log = Log(self.config, self.accelerator)
        self._head: ProjectiveHead | None = None
        self._in_head = 1.0  # what its numerator is multiplied by
        self._renew()

    def __repr__(self) -> str:
        scale, found = self._progress.scale, self.inference_config
        unit = "not yet known" if scale is None else f"{self.unit:.4g}"
        return (
            f"SCMTrainer({type(plain(self.model)).__name__}, step {self.step}, epochs "
            f"{len(self.history)} of {self.config.max_epochs}, unit {unit}, τ_infer "
            f"{found.tau_infer:.4g}, τ_train {found.tau_train:.4g}, score {found.score})"
        )

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
        return self._judge.best if self.config.keep_best else None

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
            CheckpointError: A checkpoint belongs to another run, the folder cannot be used, or
                another run is using it.
        """
        with gradient_policy(self._forward.policy), self.in_training_units():
            self._renew()
            seeded = _seed_run(self.config, self.accelerator, self._sources.values())
            self._progress.generator = seeded
            with self._checkpoints.held(fresh=resume_from is None):
                if resume_from is not None:
                    self.checkpoint = self._checkpoints.resume(resume_from)
                    now = (self.step, self._progress.running)
                    self._saved = now if self.checkpoint else self._saved
                    self.stop_reason = self._judge.reason_before()
                begun = self.step
                self._stepper.sound.said.clear()
                self._log.begin(self.step, self.epoch)
                try:
                    self._find_scale()
                    self._events("on_fit_begin", self)
                    self._run()
                    self._progress.go_on()  # of a run that was over, as it was when it ended
                finally:
                    for source in self._sources.values():
                        source.release()
                    self._log.end(self.history)
            if not self._judge.load_into(self.model) and self._average is not None:
                self._average.load_into(self.model)
            stepped = self.step > begun and any(p.grad is not None for p in self.model.parameters())
            for name in idle(self.model) if stepped else ():
                what = f"the policy registered on {name or 'the model'}"
                warnings.warn(f"{what} acted on nothing: it took no part in the step", stacklevel=2)
            if self._head is not None and self.config.readout == "auto":
                self.solved = self._solve_head()
        if self.config.calibrate:
            self.calibrate()
        else:
            self.inference_config = self._configured
        self._events("on_fit_end", self)
        return self.history

    def stop(self, reason: str) -> None:
        """Ask for the end of training: after this step, or with several processes this epoch."""
        self._progress.wish = reason

    @property
    def target_scale(self) -> float:
        """s, by which targets are divided in training; known from the first step on."""
        return self._forward.scale

    @property
    def unit(self) -> float:
        """What N / D has to be multiplied by to be in the units of y, once `fit` is over."""
        return self.target_scale / self._in_head

    @contextmanager
    def in_training_units(self) -> Iterator[None]:
        """Within, the model answers y / `target_scale`, as while it is trained."""
        if self._head is not None and self._in_head != 1:
            scale_numerator(self._head, 1 / self._in_head)
        self._in_head = 1.0
        try:
            yield
        finally:
            if self._head is not None and self.target_scale != 1:
                scale_numerator(self._head, self.target_scale)
                self._in_head = self.target_scale

    def calibrate(self) -> None:
        """Choose thresholds for the model that `fit` left, and count what they catch and lose.

        The rows are those of `val_loader`, or the training rows without one, at most 2²⁰. Sets
        `inference_config`, `val_caught` and `val_lost`. Thresholds are those of
        `inference.calibrate.calibrated`, on the angle score with the scale of the targets. They
        stay those of the `TrainingConfig` where that finds none, where `tau_infer` or `score` is
        not the default, and for a model that returns `SCM` values. All processes have to call.

        Warns:
            UserWarning: Labelled entries are answered by numbers, or the model is hardly better
                than a constant.
        """
        config, part = self.config, "val" if "val" in self._sources else "train"
        if self._progress.scale is None:
            self._find_scale()
        with gradient_policy(self._forward.policy), self._sources[part].undisturbed():
            N, D, y, scm = answers(self.model, self._sources[part], self.accelerator)
        scale = config.scale * (self._progress.scale or 1.0) / self.unit
        y, singular = y / self.unit, ~torch.isfinite(y)
        angle = denominator_score(N, D, "angle", scale)
        angle = torch.where(torch.isfinite(N) & torch.isfinite(D), angle, 0)
        found = None if scm or self._own_thresholds else calibrated(angle, singular, scale)
        self.inference_config = found or self._configured
        bottom = strict_inference(N, D, self.inference_config).bottom_mask
        self.val_caught, self.val_lost = (
            Proportion.of(bottom, singular),
            Proportion.of(bottom, ~singular),
        )
        if self.step >= _TRIED:
            nearest = float(angle[singular].min()) if singular.any() else 0.0
            worth = skill(N, D, y, scale)
            for doubt in doubts(
                self.val_caught, nearest, worth, chosen=found is not None, part=part
            ):
                warnings.warn(doubt, stacklevel=3)

    def _find_scale(self) -> None:
        """Find s before the first step, and the head that will carry it."""
        config, progress = self.config, self._progress
        fixed = None if isinstance(config.target_scale, str) else config.target_scale
        if progress.scale is None:
            progress.scale = 1.0 if fixed is None else fixed
            if fixed != 1 or config.readout:
                source = self._sources["train"]
                with source.undisturbed():
                    first, labelled, natural = source.peek(scaled=fixed is None)
                    pair = closing_pair(plain(self.model), first)
                    progress.in_head = self._all_find(pair is not None)
                    self._check_reach(labelled)
                progress.scale = natural if fixed is None else fixed
                if progress.in_head and pair is not None:
                    trained = answers_y(*pair, first.y, progress.scale)
                    if self._all_find(trained):  # before, in another run
                        scale_numerator(heads_of(plain(self.model))[0], 1 / progress.scale)
        elif fixed is not None:
            progress.scale = fixed
        self._head = heads_of(plain(self.model))[0] if progress.in_head else None
        lifts = progress.in_head or fixed is not None
        self._forward.scale = progress.scale if lifts else 1.0

    def _check_reach(self, batch: Batch | None) -> None:
        """Find out whether the model can answer ⊥ where a batch is labelled so.

        Raises:
            TrainingError: It cannot, and thresholds will be compared with its denominator.
        """
        config, model, can = self.config, plain(self.model), True
        like = next(model.parameters())
        # weights that are spread over processes can neither be copied nor be run by some of them
        if batch is not None and not hasattr(like, "full_tensor"):
            batch = widened(batch, like)
            with in_mode(model, training=False):
                scm = isinstance(batch.through(model), SCM)
            singular = ~torch.isfinite(batch.y)
            if batch.weight is not None:
                singular = singular & (batch.weight > 0)
            with suppress(AssertionError, RuntimeError, TypeError):  # not every model can be copied
                can = scm or can_reach_zero(model, singular, batch.args, batch.named)
        if self._all_find(can):
            return
        said = (
            "the model must be able to reach D = 0 where targets are ±inf or ⊥, but 100 steps on "
            "these rows alone do not bring it there: let D be linear, as in a ProjectiveHead"
        )
        if config.score == "denominator" and (self._own_thresholds or not config.calibrate):
            raise TrainingError(said)
        warnings.warn(said, stacklevel=4)

    @property
    def _configured(self) -> InferenceConfig:
        return replace(self.config.decoding, scale=self.config.scale * self._in_head)

    def _all_find(self, mine: bool) -> bool:
        """Tell whether it is true on all processes."""
        return all(from_all([mine], self.accelerator))

    @property
    def _own_thresholds(self) -> bool:
        return self.config.tau_infer != TAU_INFER.value or self.config.score != "denominator"

    def _solve_head(self) -> HeadReadout | None:
        val, train = self._sources.get("val"), self._sources["train"]
        with train.undisturbed(), (val or train).undisturbed():
            return closing_readout(
                plain(self.model),
                self._head,  # pyright: ignore[reportArgumentType]
                train.loader,
                None if val is None else val.loader,
                self.target_scale,
                distributed=self.accelerator.num_processes > 1,
            )

    def _parts(self, part: str, tally: Tally) -> dict[str, float]:
        """Return the parts of the loss over the latest answers."""
        loss_fn: Any = self.loss_fn
        if not (hasattr(loss_fn, "components") and tally.latest):
            return {}
        N, D, y, *rest = tally.latest
        weight = rest[0] if rest else None
        if self.accelerator.num_processes > 1:  # of which one may have weights, and another none
            weight = torch.ones_like(y.real) if weight is None else weight.expand_as(y)
            sent = [[z.cpu()] for z in (N, D, y, weight)]
            N, D, y, weight = (torch.cat(from_all(z, self.accelerator)) for z in sent)
        call = self._forward.call(N, D, y, weight, tau=self.config.tau_train_max)
        found = loss_fn.components(**call)
        names = found.keys() - {"total", "masked_rows"}
        return {f"{part}_{name}": float(found[name]) for name in sorted(names)}

    def readout(self, *, dtype: torch.dtype | None = None) -> HeadReadout:
        """Put the closed-form head on the trained trunk, if that lowers the held-out error.

        Rows come from `train_loader`; held out are those of `val_loader`, or else one training row
        in five. Let it be the last step: the optimizer's state is that of the former head. With
        several processes all have to call. Thresholds are chosen anew. See `head_readout`.

        Raises:
            TrainingError, ShapeError, DataError, RangeError: As `head_readout`.
        """
        with gradient_policy(self._forward.policy), self.in_training_units():
            found = head_readout(
                self.model,
                self._sources["train"].loader,
                self._sources["val"].loader if "val" in self._sources else None,
                scale=self.target_scale,
                dtype=dtype,
                distributed=self.accelerator.num_processes > 1,
            )
        if found.kept and self.config.calibrate:
            self.calibrate()
        return found

    def _renew(self) -> None:
        self._progress = Progress(self.config, self._sources, self.model, self._forward)
        watched = "val" if "val" in self._sources else "train"
        self._judge = Judge(self.config, self._progress, watched)
        decay = self.config.ema_decay
        self._average = None if decay is None else Average(self.model, decay)
        self._events = Events(self.callbacks)
        parts = {
            "optimizer": self.optimizer,
            "scheduler": self.scheduler,
            "scaler": self._stepper.scaler,
            "average": self._average,
            "best": self._judge,
            "progress": self._progress,
        }
        self._checkpoints = Checkpoints(
            self.config, self.accelerator, self.model, self._forward, self._events, parts
        )
        self.stop_reason: str | None = None
        self.checkpoint: Path | None = None
        self.inference_config = self.config.decoding
        self.val_caught: Proportion | None = None
        self.val_lost: Proportion | None = None
        self.solved: HeadReadout | None = None
        self._saved = (-1, False)  # step, and whether an epoch was running

    def _run(self) -> None:
        with progress_bar(self.config, self.accelerator, self.epoch) as bar:
            while self.stop_reason is None:
                self._epoch(bar)
                bar.update()
            self._save()

    def _epoch(self, bar: Any) -> None:
        progress = self._progress
        self._train(self._stream(), bar)
        if "val" in self._sources:
            progress.row.update(self._validate())
            self._events("on_validate_end", self)
        progress.row["time_epoch_s"] = progress.seconds
        if self.scheduler is not None and self.config.scheduler_cadence == "epoch":
            if not isinstance(self.scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
                self.scheduler.step()
            elif (loss := self._judge.loss) is not None:
                self.scheduler.step(loss)
        progress.end()
        self._judge.offer(self._judged)
        self._events("on_epoch_end", self)
        self._log.epoch(self.epoch, self.step, self.row, self.thresholds)
        bar.set_postfix(shown(self.row))
        progress.epoch += 1
        self.stop_reason = progress.reason = self._judge.verdict(self.accelerator)
        if self.config.checkpoint_every_steps is None:
            self._save()

    def _stream(self) -> Iterator[Batch]:
        """Return the batches of the coming epoch, or the rest of one that was interrupted."""
        progress = self._progress
        if not progress.running:
            progress.go_on()
            progress.begin()
            progress.row.update(_learning_rates(self.optimizer))
            self._events("on_epoch_begin", self)
            if self.config.checkpoint_dir is not None:
                progress.mark()
            return self._sources["train"].epoch(self.epoch)
        return progress.rest()

    def _train(self, stream: Iterator[Batch], bar: Any) -> None:
        progress, size = self._progress, self.config.grad_accumulation_steps
        with in_mode(self.model, training=True):
            while not self._enough() and (window := list(islice(stream, size))):
                self._events("on_batch_begin", self)
                progress.batches += len(window)
                progress.rows += sum(batch.all for batch in window)
                self._stepper.step(window, progress.draw(), progress.tally)
                progress.step += 1
                self._after_step(bar)
        totals = progress.tally.totals(self.accelerator)
        row = progress.row
        row.update(totals.means("train"))
        row.update(self._parts("train", progress.tally))
        # a float16 loss scaler finds its scale by skipping; finite losses then cause no alarm
        finding = self._stepper.scaler.is_enabled() and "train_loss" in row
        if totals.skipped == sum(progress.drawn.counts) and not finding:
            raise TrainingError(
                f"every step of epoch {self.epoch + 1} had a non-finite loss or gradient and was "
                f"skipped; {_ADVICE}"
            )
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
        row.update(_learning_rates(self.optimizer))
        self._log.steps(self.step, row)
        bar.set_postfix(shown(row))
        if progress.stalled >= limit:
            raise TrainingError(
                f"the latest {progress.stalled} steps had a non-finite loss or gradient and were "
                f"skipped; {_ADVICE}"
            )

    def _validate(self) -> dict[str, float]:
        model = self._judged
        if self.accelerator.num_processes > 1:  # running statistics of the first: one model
            buffers, utils = Buffers(model), require("accelerate.utils", extra="train")
            buffers.set([utils.broadcast(buffer.clone()) for buffer in buffers.now()])
        tally, sums = self._progress.new_tally(), dict[str, Parts]()
        with in_mode(model, training=False):
            for batch in self._sources["val"].epoch(self.epoch):
                tau = self.config.tau_train_max
                outcome = self._forward.judged(batch, tau, model, sums)
                tally.add(outcome, batch.own, batch.amount)
        row = {**tally.totals(self.accelerator).means("val"), **self._parts("val", tally)}
        loss = whole(self.loss_fn, reduced(sums, self.accelerator))
        if torch.isfinite(loss):  # of all rows together, however they are batched
            row["val_loss"] = float(loss)
        return row

    @property
    def _judged(self) -> nn.Module:
        """The model that is validated, and kept: never a wrapper, which waits for the others."""
        return self.model if self._average is None else self._average.model

    def _enough(self) -> bool:
        """Tell whether the epoch ends before its batches do."""
        alone = self.accelerator.num_processes == 1
        return self._judge.steps_are_over() or bool(alone and self._progress.wish)

    def _save(self) -> None:
        now = (self.step, self._progress.running)
        if self.config.checkpoint_dir is None or now == self._saved:
            return
        path = self._checkpoints.save()
        if path is not None:
            self._saved, self.checkpoint = now, path
            self._events("on_checkpoint_end", self)


# --- what is set up once


def _engine(given: Any) -> Any:
    """Return the accelerator to use, a new one if none was given.

    Raises:
        TrainingError: It is set up with mixed precision or accumulation, which are the trainer's
            own, or for another number of processes than were started.
        MissingExtraError: Accelerate is not installed.
    """
    accelerator = given
    if given is None:
        # where there is no GPU Accelerate joins processes only if told that CPUs are meant
        on_cpus = started()[1] > 1 and not torch.accelerator.is_available()
        try:
            accelerate = require("accelerate", extra="train")
            # its state is one per process and refuses a second precision, so autocast is our own
            accelerator = accelerate.Accelerator(mixed_precision="no", cpu=on_cpus)
        except ValueError as error:
            if "already been initialized" not in str(error):
                raise TrainingError(
                    f"Accelerate must be able to join the processes: {error}"
                ) from error
            raise TrainingError(
                "Accelerate must be set up with mixed_precision='no' in this process "
                "(use_amp=True is the trainer's own), but was set up otherwise before"
            ) from error
    if accelerator.mixed_precision != "no":
        raise TrainingError(
            "accelerator must have mixed_precision='no' (use_amp=True is the trainer's own), "
            f"got {accelerator.mixed_precision!r}"
        )
    if accelerator.gradient_accumulation_steps != 1:
        raise TrainingError(
            "accelerator must have gradient_accumulation_steps=1 (grad_accumulation_steps of "
            f"TrainingConfig is the trainer's own), got {accelerator.gradient_accumulation_steps}"
        )
    # did all that were started join, or would each train alone? on TPUs Accelerate alone knows
    sizes = world_sizes() | {"Accelerate": accelerator.num_processes}
    if len(set(sizes.values())) > 1 and str(accelerator.distributed_type) != "DistributedType.XLA":
        said = ", ".join(f"{size} by {name}" for name, size in sizes.items())
        cpu = "" if torch.accelerator.is_available() else "cpu=True"
        raise TrainingError(
            f"all must tell one number of processes, got {said}; start the program with torchrun, "
            f"and write Accelerator({cpu}) where it makes its first accelerator, or make none"
        )
    return accelerator


def _check_parameters(
    model: nn.Module, optimizer: torch.optim.Optimizer, loss_fn: Any, accelerator: Any
) -> None:
    """Find out whether the optimizer moves the model.

    Raises:
        TrainingError: It holds none of its parameters, or some that no checkpoint would hold and
            no other process would know, or it runs the model itself.
    """
    if isinstance(optimizer, torch.optim.LBFGS):
        raise TrainingError(
            "optimizer must step on gradients that are there, got LBFGS, which wants to run the "
            "model again: fit_trunk(method='varpro') or head_readout go beyond first order"
        )
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    of_model = {id(p) for p in model.parameters()}
    if not held & of_model:
        raise TrainingError("optimizer must hold parameters of the model, got none of them")
    of_loss = {id(p) for p in loss_fn.parameters()} if isinstance(loss_fn, nn.Module) else set()
    if accelerator.num_processes > 1 and held - of_model:
        raise TrainingError(
            "optimizer must hold parameters of the model alone on several processes, "
            f"got {len(held - of_model)} others: make a loss's own weights part of the model"
        )
    if held - of_model - of_loss:
        raise TrainingError(
            "optimizer must hold parameters of the model and of a loss that is a module, "
            f"got {len(held - of_model - of_loss)} others"
        )


def _placed(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    accelerator: Any,
    device: torch.device,
    config: TrainingConfig,
) -> tuple[nn.Module, nn.Module, torch.optim.Optimizer]:
    """Bring model and optimizer to the device or devices.

    Returns:
        The model, the module to call in training (around it on several processes), the optimizer.

    Raises:
        TrainingError: Checkpoints or an average were asked for of a model whose weights are spread
            over processes.
    """
    sharded = any(hasattr(p, "full_tensor") for p in model.parameters())
    if sharded or str(getattr(accelerator, "distributed_type", "NO")).endswith("FSDP"):
        for name in ("checkpoint_dir", "ema_decay"):
            if getattr(config, name) is not None:
                raise TrainingError(
                    f"{name} must be None for weights that are spread over processes (FSDP); "
                    "save them with accelerator.save_state in a callback"
                )
        if not sharded:  # weights and the optimizer's references to them change together
            model, optimizer = accelerator.prepare(model, optimizer)
        return model, model, optimizer
    if accelerator.num_processes > 1:
        return model, accelerator.prepare_model(model), optimizer
    model.to(device)
    if optimizer.state:  # loading moves each state to the device of its parameter
        optimizer.load_state_dict(optimizer.state_dict())
    return model, model, optimizer


def _seed_run(
    config: TrainingConfig, accelerator: Any, sources: Iterable[Source]
) -> torch.Generator | None:
    """Seed everything, and return where thresholds are drawn from: alike on all processes.

    That is a stream of its own, so that drawing does not move the model's; `None`, torch's global
    one, without a seed on a single process.
    """
    utils, seed = require("accelerate.utils", extra="train"), config.seed
    together = accelerator.num_processes > 1
    if seed is not None:
        utils.set_seed(seed, device_specific=together)
    for source in sources:
        source.seed(seed)
    if together and seed is None:
        (seed,) = utils.broadcast_object_list([int(torch.randint(2**31, ()))])
    return None if seed is None else torch.Generator().manual_seed(seed)


def _learning_rates(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """Return `lr`, that of the first group of parameters; of others `lr_1`, ... where they differ.

    Empty if the first has none.
    """
    rates = [float(g["lr"]) for g in optimizer.param_groups if g.get("lr") is not None]
    shown = rates if len(set(rates)) > 1 else rates[:1]
    return {f"lr_{i}" if i else "lr": rate for i, rate in enumerate(shown)}
