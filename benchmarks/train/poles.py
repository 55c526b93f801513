"""What `SCMTrainer` learns of poles, before and after the head that closes `fit`.

The rows of the recipe: 513 of [-1, 1], batches of 32, 100 epochs, Adam, `ProjectiveMLP`, and
everything else as it comes; the near error as in `success`.
"""

import itertools
import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from benchmarks.train.recipe import BOUND, POLES, REACH, SIGNS
from benchmarks.train.rows import Row
from benchmarks.train.success import EPOCHS, Target, fitted, near_error, ours
from zeroproof.training import Callback

SCALES = (0.01, 1.0, 100.0)
SHAPES: dict[str, tuple[Target, float]] = {  # with the pole that is looked at
    "1/(x - 0.3)": (lambda x: 1 / (x - 0.3), 0.3),
    "x/(x - 0.3)": (lambda x: x / (x - 0.3), 0.3),
    "1/(x - 0.3)²": (lambda x: 1 / (x - 0.3) ** 2, 0.3),
    "tan 4x": (lambda x: torch.tan(4 * x), math.pi / 8),
}


class Open(Callback):
    """Keeps the near error after the latest epoch: that of `readout=None`."""

    def __init__(self, y: Target, pole: float) -> None:
        self._asked, self.error = (y, pole), math.nan

    def on_epoch_end(self, trainer: Any) -> None:
        """Look at the model before its head is solved for."""
        self.error = near_error(trainer, *self._asked)


def pole(strength: float, at: float, x: torch.Tensor) -> torch.Tensor:
    """Return strength / (x - at)."""
    return strength / (x - at)


def both(
    y: Target, at: float, seed: int, *, inf: bool = False, dtype: Any = None, **how: Any
) -> tuple[float, float]:
    """Return the near errors without a readout and with the default one."""
    x = torch.linspace(-1, 1, 513, dtype=dtype)[:, None]
    labels = y(x)
    if inf:
        labels = torch.where((x - at).abs() < REACH, labels.sign() * math.inf, labels)
    watch = Open(y, at)
    trainer, _ = fitted(x, labels, seed, build=ours, callbacks=(watch,), **how)
    return watch.error, near_error(trainer, y, at)


def learned(measure: str, found: list[tuple[float, float]], bound: float | None) -> Iterator[Row]:
    """Return the share of runs that learned the pole, without a readout and with it."""
    for k, name in enumerate(("readout=None", "default readout")):
        errors = sorted(each[k] for each in found)
        share = 100 * sum(error <= BOUND for error in errors) / len(errors)
        middle, worst = errors[len(errors) // 2], errors[-1]
        note = f"{len(errors)} runs; near error {middle:.3g}, at worst {worst:.3g}"
        yield Row("scales", f"{measure}, {name}, % learned", [share], bound, note, least=True)


def scales(*, quick: bool) -> Iterator[Row]:
    """Count what is learned at every scale of the targets, then what nothing is promised for."""
    seeds, epochs = range(1 if quick else 10), 1 if quick else EPOCHS
    runs = list(itertools.product(seeds, POLES[:1] if quick else POLES, SIGNS))
    for scale, inf in itertools.product(SCALES, (False, True)):
        found = [
            both(partial(pole, scale * sign, at), at, seed, inf=inf, epochs=epochs)
            for seed, at, sign in runs
        ]
        labels = "±inf" if inf else "finite"
        yield from learned(f"± {scale:g}/(x - a), {labels} labels", found, 95)
    for (name, asked), rate in itertools.product(SHAPES.items(), (1e-2, 1e-3)):
        found = [both(*asked, seed, rate=rate, epochs=epochs) for seed in seeds]
        yield from learned(f"{name}, lr {rate:g}", found, None)


def readout(*, quick: bool) -> Iterator[Row]:
    """Measure the worst near error of five seeds once the head is solved for."""
    seeds, epochs = range(1 if quick else 5), 1 if quick else EPOCHS
    cases = [(name, torch.float64, 1e-6) for name in SHAPES if name != "x/(x - 0.3)"]
    for name, dtype, bound in (*cases, ("1/(x - 0.3)", torch.float32, 1e-3)):
        found = [both(*SHAPES[name], seed, dtype=dtype, epochs=epochs) for seed in seeds]
        before, after = zip(*found, strict=True)
        kind = str(dtype).removeprefix("torch.")
        note = f"best of {len(found)} seeds {min(after):.3g}; before it {max(before):.3g} at worst"
        yield Row("readout", f"{name}, {kind}: worst near error", [max(after)], bound, note)
