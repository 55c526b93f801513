"""What the trainer adds to a step: a bare loop over the same model, loss and batches beside it.

Between two steps of the trainer, where it asks for its next batch, one step of the bare loop is
made. Both so meet the same neighbours on the machine, and their difference is far steadier than
either. One difference is the mean over a block of 50 steps, which holds one log line. Judged is the
time of this process, which waits for nothing here; the wall clock says the same on an idle machine.
"""

import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from statistics import fmean, median
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.train.rows import Row
from zeroproof.autodiff import gradient_policy, trace_bottom
from zeroproof.layers import ProjectiveMLP
from zeroproof.training import SCMTrainer, SCMTrainingLoss, TrainingConfig, lift_targets

BOUND = 100.0  # µs per step
BLOCK = 50
ROWS = 512
X = torch.linspace(-1, 1, ROWS)[:, None]
Y = 1 / (X - 0.3)
LOSS = SCMTrainingLoss(normalizer="chordal")


class Setting(NamedTuple):
    """A run to compare."""

    name: str
    options: dict[str, Any]
    ready: bool = True  # batches are in a list, not made by a `DataLoader`


SETTINGS = (
    Setting("list of batches", {}),
    Setting("DataLoader", {}, ready=False),
    Setting("log_every=10", {"log_every": 10}),
    Setting("log_dir", {"log_dir": "folder"}),
    Setting("τ_train drawn", {"tau_train_min": 1e-4, "tau_train_max": 1e-3}),
    Setting("max_grad_norm=1", {"max_grad_norm": 1.0}),
    Setting("ema_decay=0.99", {"ema_decay": 0.99}),
)


class Clock(NamedTuple):
    """Microseconds of the wall clock, and of this process, which neighbours disturb less."""

    wall: float
    process: float

    @classmethod
    def now(cls) -> "Clock":
        """Read both."""
        return cls(1e6 * time.perf_counter(), 1e6 * time.process_time())

    def since(self, before: "Clock") -> "Clock":
        """Return what has passed."""
        return Clock(self.wall - before.wall, self.process - before.process)


class Bare:
    """A loop by hand: the same loss and policy, and what the options ask for, without the trainer.

    It neither looks at gradients, nor counts, nor logs.
    """

    def __init__(self, config: TrainingConfig, kind: str = "Adam") -> None:
        self._config = config
        self.model, self._optimizer = built(kind)
        self._parameters = list(self.model.parameters())
        self._average: AveragedModel | None = None
        if (decay := config.ema_decay) is not None:
            mix = get_ema_multi_avg_fn(decay)
            self._average = AveragedModel(self.model, multi_avg_fn=mix)

    def step(self, x: Tensor, y: Tensor) -> None:
        """Make one step."""
        config = self._config
        loss = LOSS(
            outputs=self.model(x),
            targets=lift_targets(y),
            tau_train=config.tau_train_max,
            mask=~torch.isnan(y),
        )
        self._optimizer.zero_grad(set_to_none=True)
        with gradient_policy(config.gradient_policy):
            loss.backward()
        if config.max_grad_norm is not None:
            torch.nn.utils.clip_grad_norm_(self._parameters, config.max_grad_norm)
        self._optimizer.step()
        if self._average is not None:
            self._average.update_parameters(self.model)


class Between:
    """A loader that makes a step of the bare loop before it hands out each batch, and keeps time.

    What a loader takes for a batch is part of both times.
    """

    def __init__(self, loader: Any, bare: Bare) -> None:
        self._loader, self._bare = loader, bare
        self.bare: list[Clock] = []
        self.ours: list[Clock] = []

    @property
    def both(self) -> tuple[list[Clock], list[Clock]]:
        """Ours, and those of the bare loop."""
        return self.ours, self.bare

    def __iter__(self) -> Iterator[Any]:
        theirs, ours = iter(self._loader), iter(self._loader)
        for _ in range(len(self._loader)):
            start = Clock.now()
            self._bare.step(*next(theirs))
            middle = Clock.now()
            yield next(ours)
            self.bare.append(middle.since(start))
            self.ours.append(Clock.now().since(middle))


def built(kind: str = "Adam") -> tuple[ProjectiveMLP, torch.optim.Optimizer]:
    """Return a new model with its optimizer."""
    torch.manual_seed(0)
    model = ProjectiveMLP(1, 1, hidden=(64, 64))
    return model, getattr(torch.optim, kind)(model.parameters(), lr=1e-3)


def trainer(loader: Any, config: TrainingConfig) -> SCMTrainer:
    """Return a trainer of a new model."""
    return SCMTrainer(*built(), LOSS, loader, config=config)


def config_of(**options: Any) -> TrainingConfig:
    """Return the options of a run of one epoch, which is all that reads the loader."""
    alone: dict[str, Any] = {"target_scale": 1.0, "readout": None, "calibrate": False}
    return TrainingConfig(max_epochs=1, progress=False, device="cpu", **alone, **options)


def batches(steps: int, *, ready: bool) -> Any:
    """Return a loader of that many batches, all alike."""
    if ready:
        return [(X, Y)] * steps
    return DataLoader(TensorDataset(X.repeat(steps, 1), Y.repeat(steps, 1)), batch_size=ROWS)


def beside(setting: Setting, steps: int) -> Row:
    """Compare steps one by one."""
    with tempfile.TemporaryDirectory() as folder:
        options = setting.options | ({"log_dir": folder} if "log_dir" in setting.options else {})
        config = config_of(**options)
        clocks = Between(batches(steps, ready=setting.ready), Bare(config))
        trainer(clocks, config).fit()
    first = slice(BLOCK, None)  # a first block warms up
    wall, process = (
        differences(*([getattr(clock, kind) for clock in each[first]] for each in clocks.both))
        for kind in Clock._fields
    )
    bare = median(clock.wall for clock in clocks.bare[first])
    note = f"by the wall clock {median(wall):.3g}; bare step {bare:.0f}"
    return Row("loop", f"{setting.name}, µs per step more", process, BOUND, note)


def differences(ours: list[float], bare: list[float]) -> list[float]:
    """Return how much more each block took, per step."""
    return [
        fmean(ours[i : i + BLOCK]) - fmean(bare[i : i + BLOCK])
        for i in range(0, len(bare) - BLOCK + 1, BLOCK)
    ]


def whole(steps: int, repeats: int) -> Row:
    """Compare whole fits, their beginning and end included, in turn with whole loops."""
    loader, config = batches(steps, ready=True), config_of()
    bare, ours = Bare(config), trainer(loader, config)

    def loop() -> None:
        for x, y in loader:
            bare.step(x, y)

    found = [(timed(loop).process, timed(ours.fit).process) for _ in range(repeats + 1)][1:]
    more = [(theirs - mine) / steps for mine, theirs in found]
    note = f"fits of {steps} steps, their beginning and end included"
    return Row("loop", "whole fit, µs per step more", more, BOUND, note)


def timed(work: Callable[[], Any]) -> Clock:
    """Return how long it takes."""
    start = Clock.now()
    work()
    return Clock.now().since(start)


def loop(*, quick: bool) -> Iterator[Row]:
    """Compare every setting."""
    for setting in SETTINGS:
        yield beside(setting, BLOCK * (6 if quick else 21))
    yield whole(BLOCK if quick else 4 * BLOCK, 3 if quick else 15)


def trace(*, quick: bool) -> Iterator[Row]:
    """Compare steps of the bare loop under `trace_bottom` with plain ones, in turn."""
    for rows, kind in itertools.product((64, 512), ("SGD", "Adam")):
        bare, (x, y) = Bare(config_of(), kind), (X[: ROWS : ROWS // rows], Y[: ROWS : ROWS // rows])

        def steps(bare: Bare = bare, x: Tensor = x, y: Tensor = y) -> None:
            for _ in range(BLOCK):
                bare.step(x, y)

        ratios, plain = [], Clock(0, 0)
        for _ in range(3 if quick else 41):  # the first block warms up
            plain = timed(steps)
            with trace_bottom(bare.model):
                ratios.append(timed(steps).process / plain.process)
        note = f"plain step {plain.wall / BLOCK:.0f} µs"
        yield Row("trace", f"{rows} rows, {kind}: traced step over plain", ratios[1:], 2, note)
