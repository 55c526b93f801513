import math
from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, TensorDataset

from zeroproof.errors import RangeError, TrainingError
from zeroproof.training import SCMTrainer, SCMTrainingLoss, TrainingConfig
from zeroproof.training.adaptive import AdaptiveCoverageScheduler, CoverageController
from zeroproof.training.sampler import AdaptiveSampler, AdaptiveSampling


@pytest.mark.parametrize(
    ("epoch", "expected"),
    [(0, 0.80), (1, 0.8075), (10, 0.875), (20, 0.95), (21, 0.95), (999, 0.95)],
)
def test_the_guides_schedule(epoch, expected):
    scheduler = AdaptiveCoverageScheduler(
        initial_coverage=0.80, target_coverage=0.95, warmup_epochs=20
    )
    assert scheduler.step(epoch) == pytest.approx(expected)
    assert scheduler == AdaptiveCoverageScheduler()


def test_no_warmup_gives_the_target_at_once():
    assert AdaptiveCoverageScheduler(0.5, 0.9, warmup_epochs=0).step(0) == 0.9


def test_the_answer_depends_on_the_epoch_alone():
    scheduler = AdaptiveCoverageScheduler()
    late = scheduler.step(15)
    scheduler.step(2)
    assert scheduler.step(15) == late


def test_equal_coverages_are_a_constant():
    scheduler = AdaptiveCoverageScheduler(0.9, 0.9)
    assert {scheduler.step(epoch) for epoch in range(30)} == {0.9}


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"initial_coverage": 1.2}, r"initial_coverage must lie in \[0, 1\], got 1.2"),
        ({"target_coverage": -0.1}, r"target_coverage must lie in \[0, 1\], got -0.1"),
        ({"initial_coverage": 0.99}, "initial_coverage must not exceed target_coverage"),
        ({"warmup_epochs": -1}, "warmup_epochs must be a whole number of at least 0, got -1"),
        ({"warmup_epochs": 2.5}, "warmup_epochs must be a whole number of at least 0, got 2.5"),
    ],
)
def test_arguments_are_checked(options, match):
    with pytest.raises(RangeError, match=match):
        AdaptiveCoverageScheduler(**options)


def test_the_epoch_is_checked():
    with pytest.raises(RangeError, match="epoch must be a whole number of at least 0, got -1"):
        AdaptiveCoverageScheduler().step(-1)


# --- the controller


@dataclass(frozen=True)
class Steered:
    """The least that a loss must have."""

    lambda_rejection: float = 0.0
    target_coverage: float = 0.0


def trainer_of(loss_fn, *rows):
    return SimpleNamespace(loss_fn=loss_fn, history=list(rows))


def test_the_step_is_the_formula():
    controller = CoverageController(0.9, gain=2.0, weight=0.01)
    assert controller.step(0, 0.4) == pytest.approx(0.01 * math.exp(1.0))
    assert controller.step(1, 1.0) == pytest.approx(0.01 * math.exp(0.8))
    assert controller.weight == pytest.approx(0.01 * math.exp(0.8))


@given(
    target=st.floats(0, 1),
    coverage=st.floats(0, 1),
    gain=st.floats(0.1, 100),
    weight=st.floats(1e-3, 1e3),
)
def test_the_weight_rises_where_coverage_is_missing_and_nowhere_else(
    target, coverage, gain, weight
):
    controller = CoverageController(target, gain=gain, weight=weight, low=1e-3, high=1e3)
    after = controller.step(0, coverage)
    assert 1e-3 <= after <= 1e3
    assert (after > weight) <= (coverage < target)
    assert (after < weight) <= (coverage > target)
    if abs(coverage - target) * gain > 1e-9:
        bound = 1e3 if coverage < target else 1e-3
        assert after != weight or weight == bound


def test_the_target_is_that_of_the_epoch():
    scheduler = AdaptiveCoverageScheduler(0.5, 0.9, warmup_epochs=4)
    controller = CoverageController(scheduler, gain=1.0)
    assert controller.step(0, 0.5) == 0.01
    assert controller.step(4, 0.5) == pytest.approx(0.01 * math.exp(0.4))


@pytest.mark.parametrize("target", [0.3, 0.8, 0.95])
@pytest.mark.parametrize("weight", [1e-4, 10.0])
@pytest.mark.parametrize("half", [0.01, 0.2])
def test_a_closed_loop_ends_at_the_target(target, weight, half):
    controller = CoverageController(target, weight=weight)
    coverage = []
    for epoch in range(200):
        coverage.append(controller.weight / (controller.weight + half))
        controller.step(epoch, coverage[-1])
    assert coverage[-1] == pytest.approx(target, abs=1e-6)
    assert controller.weight == pytest.approx(half * target / (1 - target), rel=1e-4)


@pytest.mark.parametrize(("target", "coverage", "bound"), [(1.0, 0.0, 10.0), (0.0, 1.0, 1e-4)])
def test_at_a_bound_it_turns_round_at_once(target, coverage, bound):
    controller = CoverageController(target, gain=1.0)
    for epoch in range(50):
        controller.step(epoch, coverage)
    assert controller.weight == bound
    controller.scheduler = AdaptiveCoverageScheduler(0.5, 0.5)
    back = controller.step(50, 1 - coverage)
    assert abs(math.log(back / bound)) == pytest.approx(0.5)


def test_it_steers_the_loss_of_a_trainer_and_writes_the_history():
    scheduler = AdaptiveCoverageScheduler(0.5, 0.9, warmup_epochs=2)
    loss = SCMTrainingLoss(lambda_rejection=0, tau_train=0.5)
    controller, trainer = CoverageController(scheduler, gain=1.0), trainer_of(loss)
    expected, weight = [], 0.01
    for target, row in [
        (0.5, {"train_coverage": 0.5}),
        (0.7, {"train_coverage": 1.0, "val_coverage": 0.4}),
        (0.9, {}),
        (0.9, {"train_coverage": 1.0}),
    ]:
        controller.on_epoch_begin(trainer)
        assert trainer.loss_fn == replace(loss, lambda_rejection=weight, target_coverage=target)
        trainer.history.append(dict(row))
        controller.on_epoch_end(trainer)
        expected.append({**row, "lambda_rejection": weight, "target_coverage": target})
        coverage = row.get("val_coverage", row.get("train_coverage", target))
        weight *= math.exp(target - coverage)
        assert trainer.loss_fn.lambda_rejection == controller.weight == pytest.approx(weight)
        weight = controller.weight
    assert trainer.history == expected


def test_its_state_is_a_number_that_goes_on():
    first, second = CoverageController(0.9), CoverageController(0.9)
    first.step(0, 0.2)
    state = first.state_dict()
    assert all(isinstance(value, float) for value in state.values())
    second.load_state_dict(state)
    trainer = trainer_of(Steered())
    second.on_fit_begin(trainer)
    assert trainer.loss_fn == Steered(first.weight, 0.9)
    assert second.step(1, 0.5) == first.step(1, 0.5)
    bounded = CoverageController(0.9, low=0.005, high=0.02)
    bounded.load_state_dict({"weight": 5.0})
    assert bounded.weight == 0.02


@pytest.mark.parametrize("loss_fn", [lambda outputs, targets: 0.0, Steered, object()])
@pytest.mark.parametrize("hook", ["on_fit_begin", "on_epoch_begin", "on_epoch_end"])
def test_a_loss_that_cannot_be_steered_is_refused(loss_fn, hook):
    match = "loss_fn must be an SCMTrainingLoss, or a dataclass with the fields lambda_rejection"
    with pytest.raises(TrainingError, match=match):
        getattr(CoverageController(), hook)(trainer_of(loss_fn, {"train_coverage": 0.5}))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"scheduler": 1.5}, r"target_coverage must lie in \[0, 1\], got 1.5"),
        ({"scheduler": "fast"}, "target_coverage must be a number, got 'fast'"),
        ({"gain": 0.0}, r"gain must lie in \(0, 100\], got 0.0"),
        ({"gain": 101.0}, r"gain must lie in \(0, 100\], got 101.0"),
        ({"weight": 0.0}, r"weight must lie in \(0, inf\), got 0.0"),
        ({"low": 0.0}, r"low must lie in \(0, inf\), got 0.0"),
        ({"high": math.inf}, r"high must lie in \(0, inf\), got inf"),
        ({"weight": 1e-5}, "low must not exceed weight, got low=0.0001 and weight=1e-05"),
        ({"weight": 11.0}, "weight must not exceed high, got weight=11.0 and high=10.0"),
    ],
)
def test_the_controllers_arguments_are_checked(options, match):
    with pytest.raises(RangeError, match=match):
        CoverageController(**options)


@pytest.mark.parametrize("coverage", [-0.1, 1.1, math.nan])
def test_the_coverage_is_checked(coverage):
    controller = CoverageController()
    with pytest.raises(RangeError, match=r"coverage must lie in \[0, 1\], got"):
        controller.step(0, coverage)
    assert controller.weight == 0.01


# --- with the trainer


class KilledError(Exception):
    pass


class Kill:
    def __init__(self, step):
        self.step = step

    def on_batch_end(self, trainer):
        if trainer.step == self.step:
            raise KilledError


@pytest.fixture
def run(seeded, tmp_path):
    """Build a trainer that samples and steers, and dies after a step."""

    def build(step, name):
        x = torch.linspace(-1, 1, 64)[:, None]
        dataset = TensorDataset(x, 1 / (x - 0.3))
        sampler, model = AdaptiveSampler(dataset, seed=4), seeded()
        scheduler = AdaptiveCoverageScheduler(0.2, 0.7, warmup_epochs=2)
        return SCMTrainer(
            model,
            torch.optim.Adam(model.parameters(), lr=1e-2),
            SCMTrainingLoss(tau_train=0.5, temperature=0.1),
            DataLoader(dataset, batch_size=16, sampler=sampler),
            config=TrainingConfig(
                max_epochs=3,
                progress=False,
                seed=0,
                coverage_threshold=0,
                tau_infer=0.4,
                tau_train_min=0.5,
                tau_train_max=0.5,
                checkpoint_dir=tmp_path / name,
                checkpoint_every_steps=1,
            ),
            callbacks=[
                AdaptiveSampling(sampler, dataset),
                CoverageController(scheduler, weight=1.0),
                Kill(step),
            ],
        )

    return build


@pytest.mark.parametrize("step", [6, 8])  # an epoch has four
def test_a_run_that_was_killed_ends_as_one_that_was_not(run, weights, step):
    def told(history):
        return [{k: v for k, v in row.items() if not k.startswith("time_")} for row in history]

    whole = run(-1, "whole")
    expected = told(whole.fit())
    assert len({row["lambda_rejection"] for row in expected}) == 3
    with pytest.raises(KilledError):
        run(step + 1, "killed").fit()
    again = run(-1, "killed")
    assert told(again.fit(resume_from="auto")) == expected
    assert torch.equal(weights(again.model), weights(whole.model))
