"""What the trainer refuses, each in one sentence."""

import sys

import pytest
import torch
from torch import nn

from zeroproof.errors import DataError, MissingExtraError, RangeError, ShapeError, TrainingError
from zeroproof.training import SCMTrainer, SCMTrainingLoss

X = torch.linspace(-1, 1, 24)[:, None]
Y = 1 / (X - 0.3)
FIT = SCMTrainingLoss(normalizer="chordal", lambda_margin=0, lambda_sign=0, lambda_rejection=0)


class One(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(1, 1)

    def forward(self, x):
        return self.linear(x)


class Uneven(One):
    def forward(self, x):
        return self.linear(x), self.linear(x)[:-1]


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"data": []}, DataError, "train_loader must yield at least one batch"),
        ({"val_loader": []}, DataError, "val_loader must yield at least one batch"),
        ({"data": iter([(X, Y)])}, RangeError, "train_loader must yield its batches anew in every"),
        ({"data": 3}, RangeError, "train_loader must yield its batches anew .* got int"),
        ({"data": [X]}, DataError, r"a batch must be a pair \(x, y\), .* got a Tensor"),
        ({"data": [(Y,)]}, DataError, r"a batch must be a pair \(x, y\), .* got a tuple of 1"),
        ({"data": [{"x": X}]}, DataError, "got a dict of 1"),
        ({"data": [(X, [1.0])]}, DataError, "targets y of a batch must be a tensor .* got list"),
        ({"data": [(X, Y[0, 0])]}, DataError, r"must be a tensor with rows, got shape \(\)"),
        ({"data": [(X, Y[:, 0])]}, ShapeError, r"have the shape of N, \(24, 1\), got \(24,\)"),
        ({"model": One()}, TrainingError, r"a pair of tensors \(N, D\), .* got a tensor of shape"),
        ({"model": Uneven()}, ShapeError, r"N and D must .* got \(24, 1\) and \(23, 1\)"),
        ({"loss_fn": 1.0}, RangeError, "loss_fn must be callable, got float"),
        ({"loss_fn": nn.MSELoss()}, RangeError, r"loss_fn must accept loss_fn\(outputs=\(N, D\)"),
        (
            {"loss_fn": lambda outputs, targets: outputs[0]},
            TrainingError,
            r"loss_fn must return a tensor with one entry, got shape \(24, 1\)",
        ),
        (
            {"loss_fn": lambda outputs, targets: 0.5},
            TrainingError,
            "loss_fn must return a tensor with one entry, got float",
        ),
        (
            {"loss_fn": lambda outputs, targets: outputs[0].detach().sum()},
            TrainingError,
            "the loss must depend on the model's parameters",
        ),
    ],
    ids=[
        "no batch",
        "no validation batch",
        "iterator",
        "no loader",
        "no pair",
        "single",
        "dict",
        "list targets",
        "no rows",
        "vector targets",
        "one tensor",
        "uneven pair",
        "no loss",
        "other loss",
        "vector loss",
        "number",
        "detached",
    ],
)
def test_bad_input_is_named_in_one_sentence(trained, options, error, sentence):
    with pytest.raises(error, match=sentence):
        trained(**options)


def test_an_optimizer_of_another_model_is_refused(seeded):
    optimizer = torch.optim.SGD(seeded().parameters(), lr=0.1)
    with pytest.raises(TrainingError, match="optimizer must hold parameters of the model"):
        SCMTrainer(seeded(), optimizer, FIT, [(X, Y)])


def test_an_optimizer_of_others_too_is_refused(seeded):
    model, other = seeded(), nn.Linear(1, 1)
    optimizer = torch.optim.SGD([*model.parameters(), *other.parameters()], lr=0.1)
    with pytest.raises(TrainingError, match="of a loss that is a module, got 2 others"):
        SCMTrainer(model, optimizer, FIT, [(X, Y)])


def test_an_optimizer_with_a_closure_is_refused(seeded):
    model = seeded()
    with pytest.raises(TrainingError, match="gradients that are there, got LBFGS"):
        SCMTrainer(model, torch.optim.LBFGS(model.parameters()), FIT, [(X, Y)])


def test_an_accelerator_of_other_precision_is_refused(seeded):
    class Half:
        mixed_precision = "bf16"

    model = seeded()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(TrainingError, match=r"mixed_precision='no' .* got 'bf16'"):
        SCMTrainer(model, optimizer, FIT, [(X, Y)], accelerator=Half())


def test_a_process_that_was_set_up_in_other_precision_is_refused(trained, monkeypatch):
    def refuse(**options):
        raise ValueError("AcceleratorState has already been initialized")

    monkeypatch.setattr("accelerate.Accelerator", refuse)
    with pytest.raises(TrainingError, match="mixed_precision='no' in this process"):
        trained()


def test_without_accelerate_the_error_says_what_to_install(trained, monkeypatch):
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(MissingExtraError, match=r"zeroproof-scm\[train\]"):
        trained()
