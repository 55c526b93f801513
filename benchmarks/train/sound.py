"""Rows that are not finite: the weights beside those of a run on the sound rows alone.

They are nan at the input, or ⊥, nan or a gradient that is not finite arises inside the network.
The other run sees the same batches with these rows taken out; empty ones are left out.
"""

import itertools
import math
import warnings
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from benchmarks.train.rows import Row
from zeroproof.layers import ProjectiveHead, ProjectiveMLP, Rational
from zeroproof.scm import SCM
from zeroproof.training import SCMTrainer, SCMTrainingLoss, TrainingConfig

SHARES, SIZES = (0.001, 0.01, 0.1), (1, 7, 32, 500)
POLE = 0.25
Make = Callable[[], nn.Module]


class Inside(nn.Module):
    """A network whose first step is 1 / (x - 0.25), or another that fails there."""

    def __init__(self, first: Callable[[Tensor], Tensor], *rest: nn.Module) -> None:
        super().__init__()
        self.first, self.rest = first, nn.Sequential(*rest, nn.Tanh(), ProjectiveHead(8, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return (N, D)."""
        return self.rest(self.first(x))


class Last(nn.GRU):
    """The answer at the end of a sequence."""

    def forward(self, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the last answer."""
        return super().forward(x)[0][:, -1]


class Mixed(nn.MultiheadAttention):
    """Attention of a sequence to itself."""

    def forward(self, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the mean over the sequence."""
        return super().forward(x, x, x)[0].mean(1)


class Scaled(nn.Module):
    """The root of the size of w z, with a learned w."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, z: Tensor) -> Tensor:
        """Return the root."""
        return (self.weight * z).abs().sqrt()


def divided(x: Tensor) -> Tensor:
    """Return 1 / (x - 0.25) as ⊥ arithmetic gives it: nan at the pole."""
    return (1 / (SCM(x) - POLE)).payload


def own(x: Tensor) -> Tensor:
    """Return sin z / z as one writes it: 0/0 at z = 0."""
    return torch.sin(x - POLE) / (x - POLE)


def rational() -> nn.Module:
    """Return 1 / z between linear layers, whose pole stays where it is."""
    middle = Rational((1, 1), returns="tensor", init=([1, 0], [0, 1]))
    middle.denominator.requires_grad_(requires_grad=False)
    return Inside(lambda x: x - POLE, middle, nn.Linear(1, 8))


def convolution() -> nn.Module:
    """Return a convolution along the sequence."""
    turn = nn.Flatten(), nn.Unflatten(1, (1, 5))
    return Inside(divided, *turn, nn.Conv1d(1, 8, 3), nn.Flatten(), nn.Linear(24, 8))


def plain() -> nn.Module:
    """Return a network that fails nowhere inside."""
    return ProjectiveMLP(1, 1)


def normed() -> nn.Module:
    """Return batch statistics and chance after the division: one row spoils all."""
    return Inside(divided, nn.Linear(1, 8), nn.BatchNorm1d(8), nn.Dropout(0.3))


NETS: dict[str, tuple[Make, int]] = {  # with the length of a row's sequence
    "Rational at its pole": (rational, 1),
    "GRU after a pole": (lambda: Inside(divided, Last(1, 8, batch_first=True)), 5),
    "attention after a pole": (
        lambda: Inside(divided, nn.Linear(1, 8), Mixed(8, 2, batch_first=True)),
        5,
    ),
    "convolution after a pole": (convolution, 5),
    "BatchNorm and Dropout after a pole": (normed, 1),
    "0/0 of one's own": (lambda: Inside(own, nn.Linear(1, 8)), 1),
    "root of 0: the gradient alone": (
        lambda: Inside(lambda x: x - POLE, Scaled(), nn.Linear(1, 8)),
        1,
    ),
}


def weights(make: Make, batches: list[tuple[Tensor, Tensor]], epochs: int) -> Tensor:
    """Return all weights and statistics after training."""
    torch.manual_seed(5)
    model = make()
    trainer = SCMTrainer(
        model,
        torch.optim.Adam(model.parameters(), lr=1e-2),
        SCMTrainingLoss(),
        batches,
        config=TrainingConfig(
            max_epochs=epochs,
            progress=False,
            target_scale=1.0,
            readout=None,
            calibrate=False,
            coverage_threshold=0,
            max_skipped_steps=len(batches) * epochs + 1,
            seed=9,
        ),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        trainer.fit()
    return torch.cat([value.flatten().double() for value in model.state_dict().values()])


def difference(make: Make, x: Tensor, bad: Tensor, value: float, size: int, epochs: int) -> float:
    """Return the largest difference of a weight where the bad rows end in a value."""
    y = x.flatten(1).sum(1, keepdim=True)
    x = x.clone()
    x[bad, -1] = value
    parts = torch.arange(len(x)).split(size)
    sound = [part[~bad[part]] for part in parts]
    ours, theirs = (
        weights(make, [(x[part], y[part]) for part in each if len(part)], epochs)
        for each in (parts, sound)
    )
    return float((ours - theirs).abs().max())


def drawn(rows: int, share: float, seed: int, *shape: int) -> tuple[Tensor, Tensor]:
    """Return inputs, and which of the rows are bad: at least one."""
    random = torch.Generator().manual_seed(seed)
    x = 2 * torch.rand(rows, *shape, generator=random) - 1
    return x, torch.rand(rows, generator=random).argsort() < max(1, round(share * rows))


def sound(*, quick: bool) -> Iterator[Row]:
    """Compare weights, for every share and batch size, then for every kind of network."""
    rows, seeds, epochs = (100, 1, 1) if quick else (1000, 3, 2)
    for share, size in itertools.product(SHARES, SIZES):
        found = [
            difference(plain, *drawn(rows, share, seed, 1), math.nan, size, epochs)
            for seed in range(seeds)
        ]
        measure = f"nan in {share:.1%} of {rows} rows, batches of {size}: largest difference"
        yield Row("sound", measure, [max(found)], 0, f"{seeds} seeds")
    seeds = 1 if quick else 10
    for name, (make, length) in NETS.items():
        shape = (length, 1) if length > 1 else (1,)
        found = [
            difference(make, *drawn(96, 0.1, seed, *shape), POLE, 16, epochs)
            for seed in range(seeds)
        ]
        yield Row("sound", f"{name}: largest difference", [max(found)], 0, f"{seeds} seeds")
