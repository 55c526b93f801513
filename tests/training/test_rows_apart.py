"""Rows that are not finite leave the batch; the rest has the gradient that it would have alone."""

import math

import pytest
import torch
from torch import nn

from zeroproof.layers import ProjectiveHead, ProjectiveMLP, Rational
from zeroproof.scm import SCM
from zeroproof.training import SCMTrainer, SCMTrainingLoss, TrainingConfig

QUIET = "ignore:.*left out of training"
LOSS = SCMTrainingLoss(normalizer="chordal")
POLE = 0.25


def inverse(x):
    return (1 / (SCM(x) - POLE)).payload


class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = ProjectiveHead(8, 1)


class Middle(Head):
    """A rational function in the middle of a net, which meets its pole at 0.25 for any scale."""

    def __init__(self):
        super().__init__()
        self.scale, self.lift = nn.Parameter(torch.ones(1)), nn.Linear(1, 8)
        self.rational = Rational((1, 1), returns="tensor", init=([1, 0], [0, 1]))
        self.rational.denominator.requires_grad_(False)

    def forward(self, x):
        return self.head(torch.tanh(self.lift(self.rational(self.scale * (x - POLE)))))


class Divided(Head):
    """SCM division, then batch statistics and chance: one row spoils all."""

    def __init__(self):
        super().__init__()
        self.lift, self.norm, self.drop = nn.Linear(1, 8), nn.BatchNorm1d(8), nn.Dropout(0.3)

    def forward(self, x):
        return self.head(self.drop(torch.tanh(self.norm(self.lift(inverse(x))))))


class Recurrent(Head):
    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(1, 8, batch_first=True)

    def forward(self, x):
        return self.head(self.gru(inverse(x))[0][:, -1])


class Attentive(Head):
    def __init__(self):
        super().__init__()
        self.lift, self.mix = nn.Linear(1, 8), nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x):
        z = self.lift(inverse(x))
        return self.head(self.mix(z, z, z)[0].mean(1))


class Convolved(Head):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(1, 8, 3)

    def forward(self, x):
        return self.head(torch.tanh(self.conv(inverse(x).transpose(1, 2))).mean(-1))


class Rooted(Head):
    """Finite values; at the root of 0 the gradient alone is nan."""

    def __init__(self):
        super().__init__()
        self.scale, self.lift = nn.Parameter(torch.ones(1)), nn.Linear(1, 8)

    def forward(self, x):
        z = (self.scale * (x - POLE)).abs()
        root = torch.where(z > 0, z.sqrt(), torch.zeros_like(z))
        return self.head(torch.tanh(self.lift(root)))


NETS = {
    "rational": (Middle, ()),
    "division, batch norm, dropout": (Divided, ()),
    "gru": (Recurrent, (5,)),
    "attention": (Attentive, (5,)),
    "convolution": (Convolved, (5,)),
    "root": (Rooted, ()),
}


def rows(count, steps=(), seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = 2 * torch.rand(count, *steps, 1, generator=generator) - 1
    return x, x.reshape(count, -1).sum(1, keepdim=True)


def fitted(make, data, *, optimizer=None, **options):
    torch.manual_seed(5)
    model = make()
    optimizer = optimizer or (lambda p: torch.optim.Adam(p, lr=0.01))
    config = TrainingConfig(
        **{"max_epochs": 2, "progress": False, "coverage_threshold": 0, **options}
    )
    trainer = SCMTrainer(model, optimizer(model.parameters()), LOSS, data, config=config)
    torch.manual_seed(9)
    trainer.fit()
    return trainer


def same(one, other, rtol=0.0, atol=0.0):
    for name, value in other.state_dict().items():
        torch.testing.assert_close(one.state_dict()[name], value, rtol=rtol, atol=atol)


def spoilt(x, bad, kind):
    x = x.clone()
    x[bad] = math.nan if kind == "input" else x[bad]
    if kind == "inside":
        x[bad, ...] = POLE if x.ndim == 2 else x[bad]
        if x.ndim > 2:
            x[bad, 2] = POLE
    return x


# --- the weights are those of the sound rows alone


@pytest.mark.filterwarnings(QUIET)
@pytest.mark.parametrize("kind", ["input", "inside"])
@pytest.mark.parametrize("net", NETS)
def test_weights_are_those_of_a_run_on_the_sound_rows(net, kind):
    make, steps = NETS[net]
    x, y = rows(48, steps)
    bad = torch.zeros(48, dtype=torch.bool)
    bad[[3, 16, 17, 40]] = True
    parts = torch.arange(48).split(16)
    data = [(spoilt(x, bad, kind)[part], y[part]) for part in parts]
    alone = [(x[part][~bad[part]], y[part][~bad[part]]) for part in parts]
    ours, theirs = fitted(make, data), fitted(make, alone)
    same(ours.model, theirs.model)
    row, other = ours.history[-1], theirs.history[-1]
    assert (row["masked_rows"], row["skipped_steps"]) == (4, 0)
    assert row["train_loss"] == pytest.approx(other["train_loss"], rel=1e-6)


@pytest.mark.filterwarnings(QUIET)
@pytest.mark.parametrize("share", [0.001, 0.01, 0.1])
@pytest.mark.parametrize("size", [1, 7, 64, 1000])
def test_rows_with_bad_inputs_make_no_difference(share, size):
    count = 1000
    x, y = rows(count)
    bad = torch.rand(count, generator=torch.Generator().manual_seed(1)) < share
    bad[5] = True
    parts = torch.arange(count).split(size)
    poison = torch.tensor([math.nan, math.inf, -math.inf])[torch.arange(count) % 3][:, None]
    x = torch.where(bad[:, None], poison, x)
    data = [(x[part], y[part]) for part in parts]
    alone = [(a[~bad[part]], b[~bad[part]]) for (a, b), part in zip(data, parts, strict=True)]
    alone = [batch for batch in alone if len(batch[1])]
    ours = fitted(lambda: ProjectiveMLP(1, 1), data, max_epochs=1)
    same(ours.model, fitted(lambda: ProjectiveMLP(1, 1), alone, max_epochs=1).model)
    assert ours.history[0]["masked_rows"] == int(bad.sum())
    assert ours.history[0]["skipped_steps"] == len(parts) - len(alone)


@pytest.mark.filterwarnings(QUIET)
@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("net", ["rational", "root"])
def test_a_window_is_the_mean_over_its_sound_rows(net, size):
    x, y = rows(48)
    bad = torch.zeros(48, dtype=torch.bool)
    bad[[1, 9, 10]] = True
    bad[16:24] = True  # a whole micro-batch
    parts = torch.arange(48).split(8)
    data = [(spoilt(x, bad, "inside")[part], y[part]) for part in parts]
    windows = torch.arange(48).split(8 * size)
    alone = [(x[part][~bad[part]], y[part][~bad[part]]) for part in windows]
    sgd = {"optimizer": lambda p: torch.optim.SGD(p, lr=0.1)}
    make, _ = NETS[net]

    def squares(outputs, targets):
        return (outputs[0] * targets[1] - outputs[1] * targets[0]).square().mean()

    ours = fitted(make, data, grad_accumulation_steps=size, **sgd)
    theirs = fitted(make, alone, **sgd)
    assert ours.step == theirs.step
    assert ours.history[-1]["skipped_steps"] == 0
    same(ours.model, theirs.model, rtol=1e-5, atol=1e-6)
