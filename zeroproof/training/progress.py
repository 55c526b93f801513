"""How far a run has come: all that changes beside the model and the optimizer, and when it is over.

Beside counters and sums these are the weights to end with: of the best epoch, or an average.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from zeroproof.autodiff.compiled import copy_all
from zeroproof.autodiff.rewind import Buffers, random_state, set_random_state
from zeroproof.errors import CheckpointError
from zeroproof.training.config import TrainingConfig
from zeroproof.training.loaders import Batch, Source, from_all
from zeroproof.training.report import History, Tally, Totals
from zeroproof.training.step import Forward
from zeroproof.training.thresholds import ThresholdLog, perturbed_threshold

__all__ = [
    "Average",
    "Judge",
    "Progress",
    "all_state",
    "coverage_stalled",
    "plain",
    "set_all_state",
]

# counters, as they are in a checkpoint
_KEPT = (
    *("epoch", "step", "stalled", "reason", "running"),
    *("batches", "rows", "row", "logged_step"),
)
# reasons that follow from options, which may be others by now
_LIMITS = {None, "max_epochs", "max_steps", "coverage", "loss"}
_RISE = 1e-3


class Progress:
    """Counters of the run and sums of the running epoch.

    Args:
        config: Options.
        sources: The loaders, `"train"` and perhaps `"val"`.
        model: The model, whose generators belong to the run.
        forward: What has the loss, whose generators do too.

    Attributes:
        epoch: Index of the running epoch, or of the next one.
        batches: Batches that this process has taken from the loader in it.
        step: Optimizer steps of the run.
        stalled: Skipped steps up to the latest log line, without one that was made.
        rows: Rows of the running epoch, on all processes.
        row: The values of the running epoch, or of the latest one.
        running: Whether an epoch was begun and is not over.
        start: What its order of batches depends on, where checkpoints are written.
        read: Digests of the batches read in it before an interruption.
        reason: Why the run is over.
        scale: s, by which targets are divided; `None` before it is known.
        in_head: Whether s is multiplied into the model's head when the run is over.
        wish: Why a callback wants it to be.
        generator: Where thresholds are drawn from; `None` for torch's global one.
        now: The random state to go on with, where a run is resumed.
    """

    def __init__(
        self,
        config: TrainingConfig,
        sources: Mapping[str, Source],
        model: nn.Module,
        forward: Forward,
    ) -> None:
        self._config, self.sources, self._model, self._forward = config, sources, model, forward
        self.scale: float | None = None
        self.in_head = False
        self.epoch = self.step = self.stalled = 0
        self.history = History()
        self.reason: str | None = None
        self.wish = ""
        self.generator: torch.Generator | None = None
        self.now: dict[str, Any] = {}
        self.read: list[int] = []
        self.drawn = ThresholdLog(config.tau_train_min, config.tau_train_max)
        self.begin()
        self.running = False

    def begin(self) -> None:
        """Begin an epoch."""
        self.start: dict[str, Any] = {}
        self.running = True
        self.batches = self.rows = 0
        self._began, self._before = time.perf_counter(), 0.0
        self.row: dict[str, float] = {}
        self.drawn.clear()
        self.tally = self.new_tally()
        self.logged, self.logged_step = Totals(), self.step

    def _roots(self) -> dict[str, Any]:
        """Return what may hold generators; a loader that keeps its place keeps them too."""
        sources = self.sources.items()
        loaders = {f"{part}_loader": s.loader for part, s in sources if not s.keeps_place}
        return {**loaders, "model": self._model, "loss_fn": self._forward.loss_fn}

    @property
    def seconds(self) -> float:
        """What the running epoch has taken, before an interruption too."""
        return self._before + time.perf_counter() - self._began

    def end(self) -> None:
        """End the running epoch; its row belongs to the history."""
        self.history.append(self.row)
        self.running = False

    def mark(self) -> None:
        """Note what the order of the batches of this epoch depends on, before the first."""
        source = self.sources["train"]
        place = {} if source.keeps_place else source.state()
        self.start = {"random": random_state(self._roots()), "place": place}
        source.noting = True

    def rest(self) -> Iterator[Batch]:
        """Return the batches that are left of an epoch that was interrupted.

        Raises:
            CheckpointError: The loader does not read again what it read before.
        """
        source = self.sources["train"]
        source.noting = True
        set_random_state(self.start["random"], self._roots())
        if not source.keeps_place:
            source.restore(self.start["place"])
        stream = source.epoch(self.epoch, skip=self.batches)
        wrong = source.differs(self.read)
        if wrong is not None:
            raise CheckpointError(
                f"train_loader must read again what it read before the run was left, but batch "
                f"{wrong} of epoch {self.epoch} (both from 0) differs: its order or numbers depend "
                "on something that no checkpoint holds; make generators attributes of loader, "
                "sampler or data set, or give the loader state_dict and load_state_dict"
            )
        self.go_on()
        return stream

    def go_on(self) -> None:
        """Set the random state of a run that was resumed; nothing in any other.

        Raises:
            CheckpointError: A generator is not there.
        """
        lacking = set_random_state(self.now, self._roots()) if self.now else []
        if lacking:
            raise CheckpointError(
                f"the generator {lacking[0]} must be there when the run goes on, as it was when "
                "the checkpoint was written: make it in __init__, not in the first epoch"
            )
        self.now = {}

    def new_tally(self) -> Tally:
        """Return empty sums, decoded at τ_infer."""
        return Tally(self._config.decoding)

    def draw(self) -> float:
        """Draw τ_train for a step, and count it."""
        low, high = self._config.tau_train_min, self._config.tau_train_max
        tau = perturbed_threshold(low, high, self._config.threshold_mode, generator=self.generator)
        self.drawn.add(tau)
        return tau

    def state_dict(self) -> dict[str, Any]:
        """Return what is the same on every process."""
        return {
            **{name: getattr(self, name) for name in (*_KEPT, "scale", "in_head", "seconds")},
            "drawn": self.drawn.state_dict(),
            "generator": None if self.generator is None else self.generator.get_state(),
            "logged": list(self.logged),
            "history": [dict(row) for row in self.history],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Set what `state_dict` returned."""
        kinds = {"reason": (str, type(None)), "row": (dict,), "running": (bool,)}
        for name in _KEPT:
            if type(state[name]) not in kinds.get(name, (int, float)):
                raise TypeError(f"progress.{name} cannot be {state[name]!r:.60}")
        for name in _KEPT:
            setattr(self, name, state[name])
        # of a checkpoint without it, targets were lifted as they are
        self.scale, self.in_head = state.get("scale", 1.0), state.get("in_head", False)
        self._began, self._before = time.perf_counter(), state["seconds"]
        self.drawn.load_state_dict(state["drawn"])
        if state["generator"] is not None:
            self.generator = self.generator or torch.Generator()
            self.generator.set_state(state["generator"])
        self.logged = Totals(*state["logged"])
        self.history[:] = state["history"]

    def own_state(self) -> dict[str, Any]:
        """Return what differs from process to process."""
        digests = self.sources["train"].digests if self.running else []
        places = {
            part: source.state()
            for part, source in self.sources.items()
            # of an epoch that is running its start is known, unless the loader keeps its place
            if part != "train" or source.keeps_place or not self.running
        }
        return {
            "now": random_state(self._roots()),
            "start": self.start if self.running else {},
            "read": torch.tensor(digests) if digests else None,
            "places": places,
            "sums": list(self.tally.here()),
            "latest": list(self.tally.latest),
            "wish": self.wish,
        }

    def restore_own(self, state: Mapping[str, Any]) -> None:
        """Set what `own_state` returned; random states are tried alone, until they are needed."""
        here = random_state(self._roots())
        if state["start"]:
            set_random_state(state["start"]["random"], self._roots())
        set_random_state(state["now"], self._roots())
        set_random_state(here, self._roots())
        self.start, self.now, self.wish = state["start"], state["now"], state["wish"]
        read = state.get("read")  # not in version 1
        self.read = [] if read is None else read.tolist()
        self.tally = self.new_tally()
        self.tally.restore(Totals(*state["sums"]), tuple(state.get("latest", ())))
        for part, place in state["places"].items():
            self.sources[part].restore(place)


class Judge:
    """Watches epochs: which one was the best, with its weights, and whether the run is over.

    The best has enough coverage, and among those the lowest loss, of validation if there is one.

    Args:
        config: Limits and patience.
        progress: How far the run has come.
        part: `"val"` or `"train"`.

    Attributes:
        best: Index of the best epoch.
    """

    def __init__(self, config: TrainingConfig, progress: Progress, part: str) -> None:
        self._config, self._progress, self._part = config, progress, part
        self.best: int | None = None
        self._rank: tuple[bool, float] | None = None
        self._weights: dict[str, Any] = {}

    @property
    def loss(self) -> float | None:
        """The loss of the latest epoch, if one is known."""
        return self._progress.row.get(f"{self._part}_loss")

    def offer(self, model: nn.Module) -> None:
        """Keep the weights of the latest epoch if it is the best so far."""
        config = self._config
        if self.loss is None or not (config.keep_best or config.loss_patience):
            return
        coverage = self._progress.row.get(f"{self._part}_coverage", 0.0)
        rank = (coverage < config.coverage_threshold, self.loss)
        if self._rank is not None and rank >= self._rank:
            return
        self._rank, self.best = rank, self._progress.epoch
        for name, value in model.state_dict().items() if config.keep_best else ():
            old = self._weights.get(name)
            if not isinstance(value, Tensor):
                self._weights[name] = deepcopy(value)  # extra state of a module
            elif isinstance(old, Tensor) and (old.shape, old.dtype) == (value.shape, value.dtype):
                old.copy_(value)  # into what is kept, so that no epoch allocates anew
            else:
                self._weights[name] = value.detach().clone()

    def load_into(self, model: nn.Module) -> bool:
        """Load the weights kept, if there are some."""
        if self._weights:
            model.load_state_dict(self._weights)
        return bool(self._weights)

    def steps_are_over(self) -> bool:
        """Tell whether `max_steps` is reached."""
        limit = self._config.max_steps
        return limit is not None and self._progress.step >= limit

    def verdict(self, accelerator: Any) -> str | None:
        """Return why the run is over after an epoch: what a callback of any process wished, first.

        All processes have to call.
        """
        wishes = from_all([self._progress.wish], accelerator)
        return next(filter(None, wishes), None) or self._reason()

    def _reason(self) -> str | None:
        config, history = self._config, self._progress.history
        if self.steps_are_over():
            return "max_steps"
        coverages = [x for row in history if (x := row.get(f"{self._part}_coverage")) is not None]
        # a coverage that is where a schedule wants it does not stagnate
        enough = min(config.coverage_threshold, self._progress.row.get("target_coverage", 1.0))
        if coverages and coverage_stalled(coverages, enough, config.coverage_patience):
            return "coverage"
        since = len(history) - 1 - (self.best or 0)
        if config.loss_patience is not None and since >= config.loss_patience:
            return "loss"
        return "max_epochs" if len(history) >= config.max_epochs else None

    def reason_before(self) -> str | None:
        """Return why a run that is resumed was over already."""
        if self._progress.running or not self._progress.history:
            return None
        before = self._progress.reason
        return self._reason() if before in _LIMITS else before

    def state_dict(self) -> dict[str, Any]:
        """Return epoch, rank and weights of the best epoch."""
        rank = None if self._rank is None else list(self._rank)
        return {"epoch": self.best, "rank": rank, "weights": self._weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Set what `state_dict` returned."""
        self.best, self._weights = state["epoch"], dict(state["weights"])
        self._rank = None if state["rank"] is None else tuple(state["rank"])


class Average:
    """An exponential moving average of the weights; running statistics are copied.

    Formula: after the first step θ̄ = θ, then θ̄ ← decay·θ̄ + (1 - decay)·θ.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        # its counter stays on the CPU, where it is read in every step; torch's own update would
        # send it to the device each time
        self._averaged, self._mix = AveragedModel(model), get_ema_multi_avg_fn(decay)
        self._weights: tuple[list[Tensor], list[Tensor]] = (
            list(self.model.parameters()),
            list(model.parameters()),
        )
        self._buffers = Buffers(self.model), Buffers(model)

    @property
    def model(self) -> nn.Module:
        """The module with the averaged weights."""
        return self._averaged.module

    def load_into(self, model: nn.Module) -> None:
        """Put the averaged weights, and the running statistics, into a model."""
        model.load_state_dict(self.model.state_dict())

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after a step."""
        count = self._averaged.n_averaged
        if count == 0:
            copy_all(*self._weights)
        else:
            self._mix(*self._weights, count)
        own, others = self._buffers
        own.set(others.now())
        count += 1

    def state_dict(self) -> dict[str, Any]:
        """Return the averaged weights, all buffers, and their count."""
        return {"count": int(self._averaged.n_averaged), "model": all_state(self.model)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Set what `state_dict` returned."""
        self._averaged.n_averaged.fill_(state["count"])
        set_all_state(self.model, state["model"])


def plain(model: nn.Module) -> nn.Module:
    """Return the module inside a compiled one, whose names differ."""
    return getattr(model, "_orig_mod", model)


def all_state(model: nn.Module) -> dict[str, Any]:
    """Return parameters and all buffers, those too that a `state_dict` leaves out."""
    model = plain(model)
    return {**model.state_dict(), **dict(model.named_buffers())}


def set_all_state(model: nn.Module, state: Mapping[str, Any]) -> None:
    """Set what `all_state` returned."""
    model = plain(model)
    known = model.state_dict().keys()
    model.load_state_dict({name: value for name, value in state.items() if name in known})
    for name, buffer in model.named_buffers():
        buffer.data.copy_(state[name])


def coverage_stalled(coverages: Sequence[float], threshold: float, patience: int) -> bool:
    """Tell whether coverage stagnates below a threshold.

    The last `patience` epochs all had a coverage below it, and none of them was above the best one
    before them by 0.001. Of the first `patience` epochs the very first counts as the one before.

    Args:
        coverages: Coverage of every epoch so far, in [0, 1].
        threshold: What counts as enough; a coverage equal to it does.
        patience: Consecutive epochs that are awaited, at least 1.

    Examples:
        >>> coverage_stalled([0.95, 0.5, 0.6], threshold=0.9, patience=2)
        True
        >>> coverage_stalled([0.4, 0.5, 0.6], threshold=0.9, patience=2)
        False
    """
    recent = coverages[-patience:]
    if len(recent) < patience or max(recent) >= threshold:
        return False
    return max(recent) < max(coverages[:-patience] or coverages[:1]) + _RISE
