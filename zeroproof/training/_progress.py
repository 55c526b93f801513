"""How far a run has come: all that changes from step to step beside weights and optimizer."""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from zeroproof.autodiff.rewind import random_state, set_random_state
from zeroproof.errors import CheckpointError
from zeroproof.training._source import Source
from zeroproof.training._tally import Tally, Totals
from zeroproof.training.config import TrainingConfig
from zeroproof.training.history import History
from zeroproof.training.loaders import Batch
from zeroproof.training.thresholds import ThresholdLog, perturbed_threshold

__all__ = ["Progress"]

_TAU = ("tau_train_min", "tau_train_max", "threshold_mode")
# as they are, in a checkpoint
_KEPT = (
    *("epoch", "step", "stalled", "reason", "running"),
    *("batches", "rows", "row", "logged_step"),
)


class Progress:
    """Counters of the run and sums of the running epoch.

    Args:
        config: Options.
        roots: Returns the objects whose generators belong to the run, by name.

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

    def __init__(self, config: TrainingConfig, roots: Callable[[], Mapping[str, Any]]) -> None:
        self._config, self._roots = config, roots
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

    @property
    def seconds(self) -> float:
        """What the running epoch has taken, before an interruption too."""
        return self._before + time.perf_counter() - self._began

    def end(self) -> None:
        """End the running epoch; its row belongs to the history."""
        self.history.append(self.row)
        self.running = False

    def mark(self, source: Source) -> None:
        """Note what the order of the batches of this epoch depends on, before the first."""
        place = {} if source.keeps_place else source.state()
        self.start = {"random": random_state(self._roots()), "place": place}
        source.noting = True

    def rest(self, source: Source) -> Iterator[Batch]:
        """Return the batches that are left of an epoch that was interrupted.

        Raises:
            CheckpointError: The loader does not read again what it read before.
        """
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
        low, high, mode = (getattr(self._config, name) for name in _TAU)
        tau = perturbed_threshold(low, high, mode, generator=self.generator)
        self.drawn.add(tau)
        return tau

    def state(self) -> dict[str, Any]:
        """Return what is the same on every process."""
        return {
            **{name: getattr(self, name) for name in (*_KEPT, "scale", "in_head", "seconds")},
            "drawn": self.drawn.state_dict(),
            "generator": None if self.generator is None else self.generator.get_state(),
            "logged": list(self.logged),
            "history": [dict(row) for row in self.history],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Set what `state` returned."""
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

    def own_state(self, sources: Mapping[str, Source]) -> dict[str, Any]:
        """Return what differs from process to process."""
        digests = sources["train"].digests if self.running else []
        places = {
            part: source.state()
            for part, source in sources.items()
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

    def restore_own(self, state: Mapping[str, Any], sources: Mapping[str, Source]) -> None:
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
            sources[part].restore(place)
