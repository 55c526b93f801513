"""The overrides that docs/which-loop.md shows for Ignite and skorch do hold the policy."""

import pytest
import torch
from ignite.engine import Engine, supervised_training_step
from skorch import NeuralNet

from zeroproof.autodiff import GradientPolicy
from zeroproof.integrations.objective import ProjectiveObjective
from zeroproof.training import TrainingConfig

from .conftest import LOSS, X, Y

POLICIES = list(GradientPolicy)


def objective(policy):
    return ProjectiveObjective(LOSS, TrainingConfig(gradient_policy=policy))


@pytest.mark.parametrize("policy", POLICIES)
def test_ignite_steps_are_those_of_a_loop_written_by_hand(policy, model, loader, by_hand, weights):
    own, loss_fn = model(), objective(policy)
    optimizer = torch.optim.SGD(own.parameters(), lr=0.1)
    update = supervised_training_step(own, optimizer, loss_fn)

    def step(engine, batch):
        with loss_fn.policy():
            return update(engine, batch)

    Engine(step).run(loader, max_epochs=2)
    expected = by_hand(model(), [*loader, *loader], policy)
    torch.testing.assert_close(weights(own), weights(expected), rtol=0, atol=0)


@pytest.mark.parametrize("policy", POLICIES)
def test_skorch_steps_are_those_of_a_loop_written_by_hand(policy, model, loader, by_hand, weights):
    loss_fn = objective(policy)

    class ProjectiveNet(NeuralNet):
        def train_step_single(self, batch, **fit_params):
            with loss_fn.policy():
                return super().train_step_single(batch, **fit_params)

    options = {"lr": 0.1, "batch_size": 8, "max_epochs": 2, "train_split": None, "verbose": 0}
    net = ProjectiveNet(model(), criterion=lambda: loss_fn, **options).fit(X, Y)
    expected = by_hand(model(), [*loader, *loader], policy)
    torch.testing.assert_close(weights(net.module_), weights(expected), rtol=0, atol=0)
