"""What makes one step of the trainer: its micro-batches, its policy, its loss, and no NaN."""

import copy
import math

import pytest
import torch
from torch import nn

from zeroproof.autodiff import GradientPolicy, active_policy
from zeroproof.errors import TrainingError
from zeroproof.training import SCMTrainer, SCMTrainingLoss, TrainingConfig

# bad batches are made on purpose here
pytestmark = pytest.mark.filterwarnings("ignore:.*left out of training")
X = torch.linspace(-1, 1, 24)[:, None]
Y = 1 / (X - 0.3)


# --- accumulation


@pytest.mark.parametrize("sizes", [(12, 12), (8, 8, 8), (10, 10, 4), (23, 1)], ids=str)
def test_accumulation_is_one_large_batch(trained, weights, sizes):
    batches = list(zip(X.split(sizes), Y.split(sizes), strict=True))
    large = trained(rate=0.5)
    small = trained(rate=0.5, data=batches, grad_accumulation_steps=len(sizes))
    torch.testing.assert_close(weights(small.model), weights(large.model), rtol=1e-5, atol=1e-6)
    assert small.history[0]["train_loss"] == pytest.approx(large.history[0]["train_loss"], rel=1e-5)


def test_a_short_last_window_counts_in_full(trained, weights):
    # 24 rows in windows of 16 and 8 rows
    accumulated = trained(
        rate=0.5, data=list(zip(X.split(8), Y.split(8), strict=True)), grad_accumulation_steps=2
    )
    plain = trained(rate=0.5, data=[(X[:16], Y[:16]), (X[16:], Y[16:])])
    torch.testing.assert_close(
        weights(accumulated.model), weights(plain.model), rtol=1e-5, atol=1e-6
    )


# --- steps that must not be made


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_a_step_that_is_not_finite_is_skipped_and_leaves_nothing_behind(seeded, squared, poison):
    model = seeded(trunk=[nn.BatchNorm1d(8)])
    bad = (torch.full_like(X, poison), Y)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    config = TrainingConfig(max_epochs=1, progress=False)
    only_good = copy.deepcopy(model)
    SCMTrainer(model, optimizer, squared, [bad, (X, Y), bad], config=config).fit()
    good_optimizer = torch.optim.Adam(only_good.parameters(), lr=0.1)
    SCMTrainer(only_good, good_optimizer, squared, [(X, Y)], config=config).fit()
    for name, value in only_good.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name
    step = optimizer.state[model.N.weight]["step"]
    assert step == 1


def test_statistics_that_are_assigned_come_back_too(seeded, squared):
    class Running(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = seeded()
            self.register_buffer("mean", torch.zeros(1))

        def forward(self, x):
            if self.training:
                self.mean = self.mean + x.mean(0).detach()
            return self.inner(x)

    model, bad = Running(), (torch.full_like(X, math.nan), Y)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    config = TrainingConfig(max_epochs=1, progress=False)
    data = [(X + 1, Y), bad, (X + 1, Y)]
    history = SCMTrainer(model, optimizer, squared, data, config=config).fit()
    assert history[0]["skipped_steps"] == 1
    torch.testing.assert_close(model.mean, torch.tensor([2.0]))


def test_skipped_steps_are_counted_and_kept_out_of_the_mean(trained, squared):
    bad = (torch.full_like(X, math.nan), Y)
    row = trained(loss_fn=squared, data=[bad, (X, Y), bad]).history[0]
    alone = trained(loss_fn=squared).history[0]
    assert row["skipped_steps"] == 2
    assert row["train_loss"] == alone["train_loss"]
    assert row["train_coverage"] == pytest.approx(1 / 3)


def test_a_gradient_that_is_not_finite_under_a_finite_loss_is_skipped(trained):
    def loss_fn(outputs, targets):
        return (0 * outputs[0]).sqrt().sum()  # value 0, slope 0 · inf

    with pytest.raises(TrainingError, match="every step of epoch 1 had a non-finite loss"):
        trained(loss_fn=loss_fn)


def test_an_epoch_in_which_every_step_was_skipped_is_an_error(trained, seeded, weights, squared):
    bad = (torch.full_like(X, math.nan), Y)
    model = seeded()
    before = weights(model)
    with pytest.raises(TrainingError, match=r"every step of epoch 1 .* lower the learning rate"):
        trained(model, loss_fn=squared, data=[bad, bad])
    assert torch.equal(before, weights(model))


def test_a_bad_micro_batch_leaves_its_window_to_the_others(trained, squared, weights):
    bad = (torch.full_like(X, math.nan), Y)
    ours = trained(loss_fn=squared, data=[(X, Y), bad, bad, (X, Y)], grad_accumulation_steps=2)
    alone = trained(loss_fn=squared, data=[(X, Y), (X, Y)])
    assert ours.history[0]["skipped_steps"] == 0
    torch.testing.assert_close(weights(ours.model), weights(alone.model))


# --- policies


def test_reject_silences_the_losses_of_tuples(trained, seeded, weights):
    model = seeded()
    before = weights(model)
    loss_fn = SCMTrainingLoss(lambda_rejection=0)
    trained(model, loss_fn=loss_fn, gradient_policy=GradientPolicy.REJECT, max_epochs=2)
    assert torch.equal(before, weights(model))


@pytest.mark.parametrize("policy", [GradientPolicy.CLAMP, GradientPolicy.PROJECT])
def test_the_policy_of_the_config_is_in_force_while_backward_runs(trained, squared, policy):
    class Gate(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.view_as(x)

        @staticmethod
        def backward(ctx, gradient):
            seen.append(active_policy())
            return gradient

    def loss_fn(outputs, targets):
        return Gate.apply(squared(outputs, targets))

    seen = []
    trained(loss_fn=loss_fn, gradient_policy=policy)
    assert seen == [policy]


def test_clamp_bounds_what_project_lets_through(trained, seeded, weights):
    loss_fn, data = SCMTrainingLoss(normalizer="attached"), [(X, 1e3 * Y)]
    clamped, free = (
        weights(trained(loss_fn=loss_fn, data=data, gradient_policy=policy).model)
        for policy in (GradientPolicy.CLAMP, GradientPolicy.PROJECT)
    )
    start = weights(seeded())
    assert 0 < (clamped - start).norm() < (free - start).norm()


# --- losses


def test_a_loss_may_be_any_callable_of_the_form(trained, squared):
    seen = []

    class Module(nn.Module):
        def forward(self, outputs, targets):
            seen.append("module")
            return squared(outputs, targets)

    class WithBoth:
        def __call__(self, *, outputs, targets, tau_train, mask):
            seen.append((tau_train, mask.tolist()))
            return squared(outputs, targets)

    def with_anything(**options):
        seen.append(sorted(options))
        return squared(options["outputs"], options["targets"])

    x = torch.ones(3, 1)
    y = torch.tensor([[1.0], [math.nan], [math.inf]])
    for loss_fn in (Module(), WithBoth(), with_anything):
        trained(loss_fn=loss_fn, data=[(x, y)])
    assert seen == [
        "module",
        (1e-4, [[True], [False], [True]]),
        ["mask", "outputs", "targets", "tau_train"],
    ]


def test_targets_are_lifted_in_their_units(trained, squared):
    seen = []

    def loss_fn(outputs, targets):
        seen.extend(targets)
        return squared(outputs, targets)

    y = torch.tensor([[4.0], [-math.inf]])
    trained(loss_fn=loss_fn, data=[(torch.ones(2, 1), y)], target_scale=2.0)
    assert seen[0].tolist() == [[2.0], [-1.0]]
    assert seen[1].tolist() == [[1.0], [0.0]]
