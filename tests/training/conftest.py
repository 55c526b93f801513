import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from zeroproof.training import SCMTrainer, SCMTrainingLoss, TrainingConfig

X = torch.linspace(-1, 1, 24)[:, None]
Y = 1 / (X - 0.3)
FIT = SCMTrainingLoss(normalizer="chordal", lambda_margin=0, lambda_sign=0, lambda_rejection=0)


class TupleNet(nn.Module):
    """A small trunk with two linear heads."""

    def __init__(self, width=8, trunk=()):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(1, width), nn.Tanh(), *trunk)
        self.N, self.D = nn.Linear(width, 1), nn.Linear(width, 1)

    def forward(self, x):
        features = self.trunk(x)
        return self.N(features), self.D(features)


class FixedNet(nn.Module):
    """Denominators given beforehand, whatever the weight: coverage is known exactly."""

    def __init__(self, *denominators):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.D = torch.tensor(denominators)[:, None]

    def forward(self, x):
        return self.weight * x, self.D + 0 * self.weight


@pytest.fixture(name="Tuples")
def tuples():
    return TupleNet


@pytest.fixture(name="Fixed")
def fixed():
    return FixedNet


@pytest.fixture(scope="session")
def answers(tmp_path_factory):
    """Return what one process answers, and what each of two: processes_worker.py says what."""
    folder = tmp_path_factory.mktemp("processes")
    run_processes(folder)
    names = ("answers1-0", "answers2-0", "answers2-1")
    return [torch.load(folder / f"{name}.pt") for name in names]


def run_processes(folder, *launcher):
    worker = Path(__file__).with_name("processes_worker.py")
    command = [sys.executable, *launcher, str(worker), str(folder)]
    run_bare(command)


def run_bare(command):
    """Run in an environment that says nothing about Accelerate."""
    bare = {k: v for k, v in os.environ.items() if not k.startswith("ACCELERATE")}
    ended = subprocess.run(
        command,
        env={**bare, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]


@pytest.fixture
def seeded():
    def build(**options):
        torch.manual_seed(3)
        return TupleNet(**options)

    return build


@pytest.fixture
def trained(seeded):
    """Train with plain gradient descent; returns the trainer, whose history holds the rows."""

    def train(model=None, *, loss_fn=FIT, data=None, rate=0.05, **options):
        model = model or seeded()
        keywords = {key: options.pop(key) for key in ("val_loader", "scheduler") if key in options}
        trainer = SCMTrainer(
            model,
            keywords.pop("optimizer", torch.optim.SGD(model.parameters(), lr=rate)),
            loss_fn,
            [(X, Y)] if data is None else data,
            config=TrainingConfig(**{"max_epochs": 1, "progress": False, **options}),
            **keywords,
        )
        trainer.fit()
        return trainer

    return train


@pytest.fixture
def weights():
    def flat(model):
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    return flat


@pytest.fixture
def squared():
    """A loss without any guard of its own."""

    def loss_fn(outputs, targets):
        return (outputs[0] * targets[1] - outputs[1] * targets[0]).square().mean()

    return loss_fn


@pytest.fixture
def zero_loss():
    def loss_fn(outputs, targets):
        return outputs[0].nan_to_num().sum() * 0.0

    return loss_fn
