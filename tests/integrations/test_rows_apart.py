"""Rows that are not finite, in the loops of others: weights are those of the sound rows alone."""

import copy
import math
import pickle
import warnings

import lightning.pytorch as pl
import pytest
import torch
from accelerate.state import AcceleratorState
from torch import nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments

from zeroproof import GradientPolicy
from zeroproof.inference import StrictModule
from zeroproof.integrations.lightning import ProjectiveLightning
from zeroproof.integrations.objective import ProjectiveObjective
from zeroproof.integrations.transformers import ProjectiveTrainerMixin
from zeroproof.layers import ProjectiveHead
from zeroproof.scm import SCM
from zeroproof.training import TrainingConfig

from .conftest import LOSS, X, Y

pytestmark = pytest.mark.filterwarnings("ignore:.*left out of training")
POLE, ROOT = 0.25, -0.25


class Net(nn.Module):
    """A pole at 0.25, a root at -0.25 whose gradient alone is nan; statistics and chance."""

    def __init__(self, drop=0.2):
        super().__init__()
        torch.manual_seed(3)
        self.scale, self.lift = nn.Parameter(torch.ones(1)), nn.Linear(1, 8)
        self.norm, self.drop, self.head = nn.BatchNorm1d(8), nn.Dropout(drop), ProjectiveHead(8, 1)

    def forward(self, x):
        pole = (1 / SCM(self.scale * (x - POLE))).payload
        root = (self.scale * (x - ROOT)).abs()
        root = torch.where(root > 0, root.sqrt(), torch.zeros_like(root))
        return self.head(self.drop(torch.tanh(self.norm(self.lift(torch.tanh(pole) + root)))))


def parts():
    """Batches with bad rows (one without any sound one), and those of the sound rows alone."""
    x = X.clone()
    x[2], x[3], x[9], x[10], x[20] = math.nan, POLE, ROOT, math.inf, POLE
    bad = torch.zeros(len(x), dtype=torch.bool)
    bad[[2, 3, 9, 10, 20]] = True
    batches = list(zip(x.split(8), Y.split(8), strict=True))
    none = (torch.full_like(x[:8], math.nan), Y[:8])
    alone = [(a[~m], b[~m]) for (a, b), m in zip(batches, bad.split(8), strict=True)]
    return [*batches[:2], none, batches[2]], alone


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.1)


def by_hand(batches, epochs=2, every=1, drop=0.2):
    model, objective = Net(drop), ProjectiveObjective(LOSS)
    optimizer = sgd(model.parameters())
    torch.manual_seed(7)
    for _ in range(epochs):
        for i, (x, y) in enumerate(batches):
            with objective.policy():
                (objective(model(x), y) / every).backward()
            if (i + 1) % every == 0:
                optimizer.step()
                optimizer.zero_grad()
    return model


def same(ours, theirs):
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, rtol=1e-6, atol=1e-7, msg=name)


def test_the_backward_of_the_objective():
    data, alone = parts()
    model, objective = Net(), ProjectiveObjective(LOSS)
    optimizer = sgd(model.parameters())
    torch.manual_seed(7)
    for _ in range(2):
        for x, y in data:
            optimizer.zero_grad()
            objective.backward(model, x, y)
            optimizer.step()
    same(model, by_hand(alone))


def test_the_objective_of_no_row_is_nan_and_of_no_entry_what_the_loss_says():
    objective = ProjectiveObjective(LOSS)
    N = torch.full((3, 1), math.nan, requires_grad=True)
    assert objective((N, N), torch.ones(3, 1)).isnan()
    assert objective((N.new_ones(3, 1), N.new_ones(3, 1)), torch.ones(3, 1)).isfinite()


def test_lightning(tmp_path):
    data, alone = parts()
    module = ProjectiveLightning(Net(), LOSS, optimizer=sgd)
    trainer = pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        max_epochs=2,
    )
    torch.manual_seed(7)
    # a loader without a generator of its own draws from the one that dropout uses
    trainer.fit(module, DataLoader(data, batch_size=None, generator=torch.Generator()))
    same(module.model, by_hand(alone))
    assert math.isfinite(trainer.logged_metrics["train_loss"])
    assert (module._sound.masked_rows, module._sound.skipped) == (2 * (5 + 8), 2)


@pytest.fixture
def hugging(tmp_path):
    yield lambda model, rows, size, **options: type("Mine", (ProjectiveTrainerMixin, Trainer), {})(
        model=model,
        args=TrainingArguments(
            output_dir=str(tmp_path / "out"),
            use_cpu=True,
            report_to="none",
            disable_tqdm=True,
            save_strategy="no",
            logging_strategy="no",
            num_train_epochs=2,
            per_device_train_batch_size=size,
            max_grad_norm=0.0,
            lr_scheduler_type="constant",
            train_sampling_strategy="sequential",
            **options,
        ),
        train_dataset=rows,
        loss_fn=LOSS,
        optimizers=(sgd(model.parameters()), None),
    )
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.parametrize("every", [1, 3])
def test_hugging_face(hugging, every):
    data, alone = parts()
    if every > 1:
        data.pop(2)
    rows = [{"x": a, "labels": b} for x, y in data for a, b in zip(x, y, strict=True)]
    model = Net(drop=0.0)  # the Trainer seeds on its own
    hugging(model, rows, 8, gradient_accumulation_steps=every).train()
    same(model, by_hand(alone, every=every, drop=0.0))


def test_a_strict_module_in_training_in_a_loop_that_knows_of_nothing():
    data, alone = parts()
    for x, _ in data:  # a gradient alone that is nan, no forward can see
        x[x == ROOT] = POLE

    def trained(batches, wrap):
        model = Net()
        optimizer, called = sgd(model.parameters()), wrap(model)
        torch.manual_seed(7)
        for x, y in batches:
            optimizer.zero_grad()
            N, D = called(x)
            assert len(N) == len(y)
            ProjectiveObjective(LOSS).loss_fn(
                outputs=(N, D), targets=(torch.nan_to_num(y), torch.ones_like(y))
            ).backward()
            optimizer.step()
        return model

    data.pop(2)
    module = StrictModule(Net())
    same(trained(data, lambda m: StrictModule(m).train()), trained(alone, lambda m: m))
    N, _ = module.train()(data[0][0])
    assert N.isnan().flatten().tolist() == [False, False, True, True] + [False] * 4
    copied = pickle.loads(pickle.dumps(copy.deepcopy(module)))
    assert torch.isfinite(copied(data[0][0][:2])[0]).all()
    N, D = module(torch.full((4, 1), math.nan))
    assert N.isnan().all()
    LOSS(outputs=(N, D), targets=(torch.ones(4, 1),) * 2).backward()
    assert all(torch.isfinite(p.grad).all() for p in module.parameters())


class Scaled(nn.Module):
    """A loss with a weight of its own, which learns."""

    def __init__(self):
        super().__init__()
        self.a = nn.Parameter(torch.ones(()))

    def forward(self, outputs, targets):
        (N, D), (Y_n, Y_d) = outputs, targets
        return self.a * (N * Y_d - D * Y_n).square().mean()


class Rooted(nn.Module):
    """Finite everywhere; the gradient at 0 is not."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.ones(()))

    def forward(self, x):
        z = self.w * x
        return torch.where(z > 0, z.sqrt(), 0), torch.ones_like(x)


def test_a_weight_of_the_loss_has_the_gradient_of_the_sound_rows_too():
    x = torch.tensor([[0.5], [0.0], [2.0]])
    found = []
    for rows in (x, x[[0, 2]]):
        model, loss = Rooted(), Scaled()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ProjectiveObjective(loss).backward(model, rows, rows)
        found.append((model.w.grad, loss.a.grad))
    torch.testing.assert_close(*found)


def test_a_derivative_that_is_an_answer_is_not_rejected():
    class Slope(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.ones(()))

        def forward(self, x):
            x = x.detach().requires_grad_()
            y = (self.w / SCM(x)).payload.sum()
            (self.seen,) = torch.autograd.grad(y, x, create_graph=True)
            return self.seen, torch.ones_like(x)

    model, x = Slope(), torch.tensor([[0.5], [2.0]])
    objective = ProjectiveObjective(LOSS, TrainingConfig(gradient_policy=GradientPolicy.REJECT))
    objective.backward(model, x, x)
    torch.testing.assert_close(model.seen, -1 / x**2)
