"""Whether a trained network says ⊥ where it was told to, and how near it comes to a pole.

Regions of ⊥, and ±inf next to a pole: caught and lost are counted on fresh rows farther than two
mean spacings from an edge, by the deployed form, `StrictModule(model, trainer.inference_config)`.
Poles: the median relative error on fresh rows within 0.1 of them.
Models and losses are the defaults where nothing else is said; the disc has the separation part.
"""

import itertools
import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.train.rows import Row
from zeroproof.inference import StrictModule
from zeroproof.layers import ProjectiveMLP
from zeroproof.training import SCMTrainer, SCMTrainingLoss, TrainingConfig

EPOCHS, RATE = 100, 1e-2
CHORDAL = SCMTrainingLoss(normalizer="chordal")
DEFAULT = SCMTrainingLoss()
Case = Callable[[Tensor], tuple[Tensor, Tensor]]  # x -> y, distance from the nearest edge
Target = Callable[[Tensor], Tensor]


def half_line(share: float) -> Case:
    """Return 1 / (x - a), a 0.1 within the share of [-1, 1] at its end that is ⊥."""
    edge = 1 - 2 * share

    def case(x: Tensor) -> tuple[Tensor, Tensor]:
        return torch.where(x > edge, math.nan, 1 / (x - edge - 0.1)), (x - edge).abs()

    return case


def two_regions(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return sin 3x, and ⊥ on two intervals."""
    size = x.abs()
    inside = (size > 0.5) & (size < 0.8)
    return torch.where(inside, math.nan, torch.sin(3 * x)), torch.minimum(
        (size - 0.5).abs(), (size - 0.8).abs()
    )


def disc(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return x_0, and ⊥ on a disc in two dimensions."""
    r = x.norm(dim=1, keepdim=True)
    edge = math.sqrt(0.3)
    return torch.where(r < edge, math.nan, x[:, :1]), (r - edge).abs()


def band(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return 1 / (x - 0.3), and ±inf within 0.004 of its pole."""
    off = x - 0.3
    y = torch.where(off.abs() < 0.004, off.sign() * math.inf, 1 / off)
    return y, (off.abs() - 0.004).abs()


CASES: dict[str, tuple[Case, int]] = {
    "⊥ on 30 % of a line": (half_line(0.3), 1),
    "⊥ on 3 % of a line": (half_line(0.03), 1),
    "⊥ in two regions": (two_regions, 1),
    "⊥ on a disc": (disc, 2),
    "±inf within 0.004 of a pole": (band, 1),
}


def inputs(rows: int, columns: int, seed: int) -> Tensor:
    """Return uniform inputs."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(rows, columns, generator=generator) * 2 - 1


def fitted(
    x: Tensor,
    y: Tensor,
    seed: int,
    *,
    build: Callable[[int], nn.Module],
    loss: Any = DEFAULT,
    cosine: bool = False,
    rate: float = RATE,
    epochs: int = EPOCHS,
    **more: Any,
) -> tuple[SCMTrainer, list[str]]:
    """Train with the defaults of everything else; returns the trainer and its warnings."""
    torch.manual_seed(seed)
    model = build(x.shape[1]).to(x.dtype)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    trainer = SCMTrainer(
        model,
        optimizer,
        loss,
        DataLoader(TensorDataset(x, y), batch_size=64 if len(x) > 1024 else 32, shuffle=True),
        config=TrainingConfig(max_epochs=epochs, progress=False, seed=seed),
        scheduler=torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs) if cosine else None,
        **more,
    )
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        trainer.fit()
    return trainer, [str(each.message) for each in said]


def ours(columns: int) -> nn.Module:
    """Return the package's own network, of its own width."""
    return ProjectiveMLP(columns, 1)


def shares(case: Case, columns: int, rows: int, seed: int, **how: Any) -> tuple[float, float]:
    """Return caught and lost on fresh rows."""
    x = inputs(rows, columns, 1000 + seed)
    trainer, _ = fitted(x, case(x)[0], seed, build=ours, **how)
    x = inputs(200_000, columns, 77)
    y, off = case(x)
    bottom = StrictModule(trainer.model, trainer.inference_config).eval()(x).bottom_mask
    sure, singular = off > 2 * 2 / rows ** (1 / columns), ~torch.isfinite(y)
    caught, lost = (bottom[kind & sure].double().mean() for kind in (singular, ~singular))
    return float(caught), float(lost)


def regions(rows: int, seeds: int, epochs: int) -> Iterator[Row]:
    """Measure every region; the defaults with a cosine schedule are judged at 4096 rows."""
    ways = (("detached", False), ("detached", True), ("chordal", True))
    for (name, (case, columns)), (normalizer, cosine) in itertools.product(CASES.items(), ways):
        separation = 0.1 if columns > 1 else 0.0
        loss = SCMTrainingLoss(normalizer=normalizer, lambda_separation=separation)
        how = {"loss": loss, "cosine": cosine, "epochs": epochs}
        found = [shares(case, columns, rows, seed, **how) for seed in range(seeds)]
        way = ("defaults" if normalizer == "detached" else normalizer) + ", cosine" * cosine
        judge = rows >= 4096 and cosine and normalizer == "detached"
        for k, (share, bound) in enumerate((("caught", 0.98), ("lost", 0.02))):
            figures = [each[k] for each in found]
            note = f"{seeds} seeds, worst {max(figures) if k else min(figures):.4f}"
            measure = f"{name}, {rows} rows, {way}: {share}"
            yield Row("success", measure, figures, bound if judge else None, note, not k)


class TwoHeads(nn.Module):
    """A network of the user's own, with two linear heads."""

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(columns, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh())
        self.N, self.D = nn.Linear(32, 1), nn.Linear(32, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return (N, D)."""
        h = self.trunk(x)
        return self.N(h), self.D(h)


def near_error(trainer: SCMTrainer, y: Target, pole: float) -> float:
    """Return the median relative error on rows 1e-3 to 0.1 from the pole."""
    x = pole + torch.linspace(-0.1, 0.1, 4000)[:, None]
    x = x[((x - pole).abs() > 1e-3).flatten()].to(next(trainer.model.parameters()).dtype)
    with torch.no_grad():
        N, D = trainer.model(x)
    return float((trainer.unit * N.double() / D.double() / y(x.double()) - 1).abs().median())


def near(y: Target, seed: int, **how: Any) -> float:
    """Return the near error at the pole 0.3 of a network trained on 513 rows."""
    x = torch.linspace(-1, 1, 513)[:, None]
    return near_error(fitted(x, y(x), seed, **how)[0], y, 0.3)


POLES: dict[str, Target] = {
    "1/(x - 0.3)": lambda x: 1 / (x - 0.3),
    "100/(x - 0.3)": lambda x: 100 / (x - 0.3),
    "0.01/(x - 0.3)": lambda x: 0.01 / (x - 0.3),
    "x/(x - 0.3)": lambda x: x / (x - 0.3),
    "1/(x - 0.3)²": lambda x: 1 / (x - 0.3) ** 2,
}


def poles(seeds: int, epochs: int) -> Iterator[Row]:
    """Measure the recipe with the package's network and with one of the user's own."""
    models, losses = (("ProjectiveMLP", ours), ("own two heads", TwoHeads)), (DEFAULT, CHORDAL)
    ways = itertools.product(POLES.items(), models, (RATE, 1e-3), losses)
    for (name, y), (model, build), rate, loss in ways:
        how = {"loss": loss, "build": build, "rate": rate, "epochs": epochs}
        figures = [near(y, seed, **how) for seed in range(seeds)]
        note = f"near error ≤ 0.1 in {sum(each <= 0.1 for each in figures)} of {seeds} seeds"
        way = "defaults" if loss is DEFAULT else "chordal"
        yield Row("success", f"{name}, {model}, lr {rate:g}, {way}", figures, None, note)


def success(*, quick: bool) -> Iterator[Row]:
    """Measure regions and poles."""
    if quick:
        yield from regions(256, 1, 1)
        yield from poles(1, 1)
        return
    yield from regions(1024, 3, EPOCHS)
    yield from regions(4096, 10, EPOCHS)
    yield from poles(10, EPOCHS)
