import copy
import io
import math
import sys

import pytest
import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from zeroproof.autodiff import GradientPolicy, active_policy
from zeroproof.errors import (
    DataError,
    MissingExtraError,
    RangeError,
    ShapeError,
    TrainingError,
)
from zeroproof.inference import StrictModule, strict_inference
from zeroproof.training import History, SCMTrainer, SCMTrainingLoss, TrainingConfig

X = torch.linspace(-1, 1, 24)[:, None]
Y = 1 / (X - 0.3)
FIT = SCMTrainingLoss(normalizer="chordal", lambda_margin=0, lambda_sign=0, lambda_rejection=0)


class Tuples(nn.Module):
    """A small trunk with two linear heads."""

    def __init__(self, width=8, trunk=()):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(1, width), nn.Tanh(), *trunk)
        self.N, self.D = nn.Linear(width, 1), nn.Linear(width, 1)

    def forward(self, x):
        features = self.trunk(x)
        return self.N(features), self.D(features)


class Fixed(nn.Module):
    """Denominators given beforehand, whatever the weight: coverage is known exactly."""

    def __init__(self, *denominators):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.D = torch.tensor(denominators)[:, None]

    def forward(self, x):
        return self.weight * x, self.D + 0 * self.weight


def trained(model=None, *, loss_fn=FIT, data=None, rate=0.05, **options):
    """Train with plain gradient descent; returns the trainer, whose history holds the rows."""
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


def seeded(**options):
    torch.manual_seed(3)
    return Tuples(**options)


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def clockless(history):
    return [{k: v for k, v in row.items() if not k.startswith("time_")} for row in history]


# --- the loop


def test_it_learns_a_pole():
    torch.manual_seed(0)
    model = Tuples(32)
    x = torch.linspace(-1, 1, 256)[:, None]
    loader = DataLoader(TensorDataset(x, 1 / (x - 0.3)), batch_size=32, shuffle=True)
    trainer = SCMTrainer(
        model,
        torch.optim.Adam(model.parameters(), lr=1e-2),
        SCMTrainingLoss(normalizer="attached"),
        loader,
        config=TrainingConfig(max_epochs=40, seed=0, progress=False),
    )
    history = trainer.fit()
    assert history[-1]["train_loss"] < history[0]["train_loss"] / 20
    decoded, bottom, _ = strict_inference(*model(x))
    chordal = (torch.atan(decoded) - torch.atan(1 / (x - 0.3))).sin().abs()
    assert not bottom.any()
    assert chordal.mean() < 0.05


def test_a_step_is_that_of_a_bare_loop():
    trainer = trained(rate=0.1, max_epochs=3)
    model = seeded()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        FIT(outputs=model(X), targets=(Y, torch.ones_like(Y))).backward()
        optimizer.step()
    torch.testing.assert_close(weights(trainer.model), weights(model), rtol=1e-6, atol=1e-7)


def test_parameters_are_updated_in_place_and_the_modes_come_back():
    model = seeded(trunk=[nn.Dropout(0.1), nn.BatchNorm1d(8)])
    model.trunk[3].eval()  # frozen on purpose, in a model that is in training mode
    before, start = list(model.parameters()), weights(model)
    trained(model, val_loader=[(X, Y)])
    assert all(a is b for a, b in zip(before, model.parameters(), strict=True))
    assert not torch.equal(start, weights(model))
    assert [module.training for module in model.trunk] == [True, True, True, False]


def test_the_history_has_the_keys_of_the_contract():
    row = trained(val_loader=[(X, Y)]).history[0]
    assert isinstance(trained().fit(), History)
    expected = {
        "train_loss",
        "val_loss",
        "train_coverage",
        "val_coverage",
        "train_gap",
        "val_gap",
        "tau_train_mean",
        "skipped_steps",
        "masked_rows",
        "lr",
    }
    assert {key for key in row if not key.startswith("time_")} == expected
    assert {key for key in trained().history[0] if key.startswith("val_")} == set()
    assert all(math.isfinite(value) for value in row.values())
    assert row["lr"] == 0.05
    assert row["time_epoch_s"] > 0


def test_the_losses_are_means_over_rows_whatever_the_batches():
    parts = [(X[:5], Y[:5]), (X[5:6], Y[5:6]), (X[6:], Y[6:])]
    whole = trained(rate=0.0, val_loader=[(X, Y)]).history[0]
    split = trained(rate=0.0, data=parts, val_loader=parts).history[0]
    assert split["train_loss"] == pytest.approx(whole["train_loss"], rel=1e-6)
    assert split["val_loss"] == pytest.approx(whole["train_loss"], rel=1e-6)


def test_coverage_and_gap_are_shares_of_all_answers():
    model = Fixed(1.0, -1.0, 5e-5, 1e-6, 9e-7, 0.0, math.nan, math.inf)
    x = torch.ones(8, 1)
    row = trained(model, loss_fn=zero_loss, data=[(x, x)] * 3).history[0]
    assert row["train_coverage"] == pytest.approx(4 / 8)
    assert row["train_gap"] == pytest.approx(2 / 8)


def test_rows_left_out_are_counted_in_every_epoch():
    model, x = Fixed(1.0, math.nan, 0.0, math.inf), torch.ones(4, 1)
    y = torch.tensor([[1.0], [1.0], [math.nan], [1.0]])  # a target that is bottom is a row
    history = trained(model, loss_fn=FIT, data=[(x, y)] * 3, max_epochs=2).history
    assert [row["masked_rows"] for row in history] == [6, 6]
    assert [row["skipped_steps"] for row in history] == [0, 0]
    assert trained().history[0]["masked_rows"] == 0
    assert type(trained().history[0]["masked_rows"]) is int


def zero_loss(outputs, targets):
    return outputs[0].nan_to_num().sum() * 0.0


def test_coverage_is_decoded_with_the_score_that_was_asked_for():
    x = torch.ones(2, 1)
    model = Fixed(1e-3, 1.0)
    options = {"tau_infer": 1e-2, "tau_train_min": 0.1, "tau_train_max": 0.1, "loss_fn": zero_loss}
    denominator = trained(model, data=[(x, x)], **options)
    angle = trained(model, data=[(x, x)], score="angle", scale=1e3, **options)
    assert denominator.history[0]["train_coverage"] == 0.5
    assert angle.history[0]["train_coverage"] == 1.0


def test_many_batches_of_changing_shape_are_counted_once_each():
    x, counted = torch.linspace(-1, 1, 3)[:, None], 0
    data = [(x.expand(3, k), x.expand(3, k)) for k in (1, 1, 2, 1, 2, 2)] * 100

    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(()))

        def forward(self, x):
            return x * self.weight, torch.where(x > 0.5, 1.0, 0.0) + 0 * self.weight

    counted = trained(Half(), loss_fn=zero_loss, data=data).history[0]
    assert counted["train_coverage"] == pytest.approx(1 / 3)


# --- thresholds, seeds, schedules


def test_every_step_draws_its_threshold_and_the_loss_sees_it():
    seen = []

    def loss_fn(outputs, targets, tau_train):
        seen.append(tau_train)
        return FIT(outputs=outputs, targets=targets)

    options = {"tau_train_min": 1e-4, "tau_train_max": 2e-4, "seed": 1, "max_epochs": 2}
    trainer = trained(loss_fn=loss_fn, data=[(X, Y)] * 5, val_loader=[(X, Y)], **options)
    first = seen[:5]
    assert len(set(first)) == 5
    assert all(1e-4 <= tau <= 2e-4 for tau in first)
    assert seen[5] == 2e-4  # validation does not move
    assert trainer.history[0]["tau_train_mean"] == pytest.approx(sum(first) / 5)


def test_the_same_seed_gives_the_same_history():
    def run(seed):
        torch.manual_seed(0)
        model = Tuples(trunk=[nn.Dropout(0.2)])
        loader = DataLoader(TensorDataset(X, Y), batch_size=5, shuffle=True)
        options = {"tau_train_max": 1e-3, "max_epochs": 3, "seed": seed}
        trainer = trained(model, loss_fn=SCMTrainingLoss(), data=loader, **options)
        return clockless(trainer.history), weights(model)

    first, second, other = run(7), run(7), run(8)
    assert first[0] == second[0]
    assert torch.equal(first[1], second[1])
    assert first[0] != other[0]


def test_max_steps_ends_in_the_middle_of_an_epoch():
    trainer = trained(data=[(X, Y)] * 4, max_epochs=5, max_steps=6, val_loader=[(X, Y)])
    assert len(trainer.history) == 2
    assert trainer.stop_reason == "max_steps"
    assert "val_loss" in trainer.history[1]


@pytest.mark.parametrize(("cadence", "rates"), [("epoch", [0.8, 0.4]), ("step", [0.8, 0.1])])
def test_the_scheduler_steps_at_its_cadence(cadence, rates):
    model = seeded()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.8)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    config = TrainingConfig(max_epochs=2, scheduler_cadence=cadence, progress=False)
    data = [(X, Y)] * 3
    history = SCMTrainer(model, optimizer, FIT, data, config=config, scheduler=scheduler).fit()
    assert [row["lr"] for row in history] == pytest.approx(rates)


def test_a_plateau_scheduler_is_given_the_loss():
    model = seeded()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.1, patience=0)

    def constant(outputs, targets):
        return 1.0 + 0 * outputs[0].sum()

    config = TrainingConfig(max_epochs=3, progress=False)
    history = SCMTrainer(
        model, optimizer, constant, [(X, Y)], [(X, Y)], config=config, scheduler=scheduler
    ).fit()
    assert [row["lr"] for row in history] == pytest.approx([0.5, 0.5, 0.05])


# --- early stopping and the best epoch


@pytest.mark.parametrize("with_validation", [False, True])
def test_training_stops_after_patience_epochs_below_the_threshold(with_validation):
    x = torch.ones(4, 1)
    low, options = Fixed(1.0, 1.0, 0.0, 0.0), {"max_epochs": 9, "coverage_patience": 3}
    loader = {"val_loader": [(x, x)]} if with_validation else {}
    trainer = trained(low, loss_fn=zero_loss, data=[(x, x)], **loader, **options)
    assert len(trainer.history) == 3
    assert trainer.stop_reason == "coverage"
    enough = {"coverage_threshold": 0.5, **options}
    trainer = trained(low, loss_fn=zero_loss, data=[(x, x)], **loader, **enough)
    assert len(trainer.history) == 9
    assert trainer.stop_reason == "max_epochs"


@pytest.mark.parametrize(("validated", "epochs"), [("covered", 5), ("bottom", 2)])
def test_validation_coverage_decides_where_there_is_a_loader(validated, epochs):
    class ByInput(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(()))

        def forward(self, x):
            return self.weight * torch.ones_like(x), x + 0 * self.weight

    covered, bottom = (torch.ones(2, 1),) * 2, (torch.zeros(2, 1),) * 2
    data = {"covered": (bottom, covered), "bottom": (covered, bottom)}[validated]
    trainer = trained(
        ByInput(),
        loss_fn=zero_loss,
        data=data[:1],
        val_loader=data[1:],
        max_epochs=5,
        coverage_patience=2,
    )
    assert len(trainer.history) == epochs


def test_keep_best_restores_the_weights_of_the_best_epoch():
    snapshots = []

    def loss_fn(outputs, targets):
        if not outputs[0].requires_grad:  # validation, once per epoch
            snapshots.append(weights(model))
            return torch.tensor([3.0, 1.0, 2.0][len(snapshots) - 1])
        return FIT(outputs=outputs, targets=targets)

    model = seeded()
    trainer = trained(model, loss_fn=loss_fn, val_loader=[(X, Y)], max_epochs=3, keep_best=True)
    assert trainer.best_epoch == 1
    assert torch.equal(weights(model), snapshots[1])
    assert not torch.equal(weights(model), snapshots[2])


def test_without_keep_best_the_last_weights_stay():
    trainer = trained(max_epochs=2)
    assert trainer.best_epoch is None


# --- accumulation


@pytest.mark.parametrize("sizes", [(12, 12), (8, 8, 8), (10, 10, 4), (23, 1)], ids=str)
def test_accumulation_is_one_large_batch(sizes):
    batches = list(zip(X.split(sizes), Y.split(sizes), strict=True))
    large = trained(rate=0.5)
    small = trained(rate=0.5, data=batches, grad_accumulation_steps=len(sizes))
    torch.testing.assert_close(weights(small.model), weights(large.model), rtol=1e-5, atol=1e-6)
    assert small.history[0]["train_loss"] == pytest.approx(large.history[0]["train_loss"], rel=1e-5)


def test_a_short_last_window_counts_in_full():
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
def test_a_step_that_is_not_finite_is_skipped_and_leaves_nothing_behind(poison):
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


def squared(outputs, targets):
    """A loss without any guard of its own."""
    return (outputs[0] * targets[1] - outputs[1] * targets[0]).square().mean()


def test_skipped_steps_are_counted_and_kept_out_of_the_mean():
    bad = (torch.full_like(X, math.nan), Y)
    row = trained(loss_fn=squared, data=[bad, (X, Y), bad]).history[0]
    alone = trained(loss_fn=squared).history[0]
    assert row["skipped_steps"] == 2
    assert row["train_loss"] == alone["train_loss"]
    assert row["train_coverage"] == pytest.approx(1 / 3)


def test_a_gradient_that_is_not_finite_under_a_finite_loss_is_skipped():
    def loss_fn(outputs, targets):
        return (0 * outputs[0]).sqrt().sum()  # value 0, slope 0 · inf

    with pytest.raises(TrainingError, match="every step of epoch 1 had a non-finite loss"):
        trained(loss_fn=loss_fn)


def test_an_epoch_in_which_every_step_was_skipped_is_an_error():
    bad = (torch.full_like(X, math.nan), Y)
    model = seeded()
    before = weights(model)
    with pytest.raises(TrainingError, match=r"every step of epoch 1 .* lower the learning rate"):
        trained(model, loss_fn=squared, data=[bad, bad])
    assert torch.equal(before, weights(model))


def test_one_bad_micro_batch_skips_its_window():
    bad = (torch.full_like(X, math.nan), Y)
    data = [(X, Y), bad, (X, Y), (X, Y)]
    row = trained(loss_fn=squared, data=data, grad_accumulation_steps=2).history[0]
    assert row["skipped_steps"] == 1


# --- policies


def test_reject_silences_the_losses_of_tuples():
    model = seeded()
    before = weights(model)
    loss_fn = SCMTrainingLoss(lambda_rejection=0)
    trained(model, loss_fn=loss_fn, gradient_policy=GradientPolicy.REJECT, max_epochs=2)
    assert torch.equal(before, weights(model))


@pytest.mark.parametrize("policy", [GradientPolicy.CLAMP, GradientPolicy.PROJECT])
def test_the_policy_of_the_config_is_in_force_while_backward_runs(policy):
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


def test_clamp_bounds_what_project_lets_through():
    loss_fn, data = SCMTrainingLoss(normalizer="attached"), [(X, 1e3 * Y)]
    clamped, free = (
        weights(trained(loss_fn=loss_fn, data=data, gradient_policy=policy).model)
        for policy in (GradientPolicy.CLAMP, GradientPolicy.PROJECT)
    )
    start = weights(seeded())
    assert 0 < (clamped - start).norm() < (free - start).norm()


# --- losses


def test_a_loss_may_be_any_callable_of_the_form():
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


def test_targets_are_lifted_in_their_units():
    seen = []

    def loss_fn(outputs, targets):
        seen.extend(targets)
        return squared(outputs, targets)

    y = torch.tensor([[4.0], [-math.inf]])
    trained(loss_fn=loss_fn, data=[(torch.ones(2, 1), y)], target_scale=2.0)
    assert seen[0].tolist() == [[2.0], [-1.0]]
    assert seen[1].tolist() == [[1.0], [0.0]]


# --- mixed precision


class Recorder:
    """A loss that notes the types it is given."""

    def __init__(self):
        self.dtypes = set()

    def __call__(self, outputs, targets):
        loss = FIT(outputs=outputs, targets=targets)
        self.dtypes |= {x.dtype for x in (*outputs, *targets, loss)}
        return loss


@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16], ids=str)
def test_mixed_precision_is_the_forward_alone(dtype):
    class Watched(Tuples):
        def forward(self, x):
            N, D = super().forward(x)
            seen.add(N.dtype)
            return N, D

    seen, loss_fn = set(), Recorder()
    torch.manual_seed(3)
    model = Watched()
    before = weights(model)
    options = {"use_amp": True, "amp_dtype": dtype, "max_epochs": 2, "val_loader": [(X, Y)]}
    trainer = trained(model, loss_fn=loss_fn, data=[(X, Y)] * 3, **options)
    assert seen == {dtype or torch.bfloat16}
    assert loss_fn.dtypes == {torch.float32}
    assert not torch.equal(before, weights(model))
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    full = trained(data=[(X, Y)] * 3, max_epochs=2)
    assert trainer.history[1]["train_loss"] == pytest.approx(full.history[1]["train_loss"], rel=0.1)


def test_float16_finds_its_loss_scale_by_skipping():
    def large(outputs, targets):
        return 1e3 * squared(outputs, targets)

    trainer = trained(
        loss_fn=large,
        data=[(X, Y)] * 30,
        use_amp=True,
        amp_dtype=torch.float16,
        rate=1e-6,
        gradient_policy=GradientPolicy.CLAMP,
    )
    assert 0 < trainer.history[0]["skipped_steps"] < 30


def test_float16_that_never_works_says_so():
    def loss_fn(outputs, targets):
        return (0 * outputs[0]).sqrt().sum() + squared(outputs, targets)

    with pytest.raises(TrainingError, match="float16 gradients stayed non-finite"):
        trained(loss_fn=loss_fn, data=[(X, Y)] * 99, use_amp=True, amp_dtype=torch.float16)


def test_trainers_of_both_precisions_live_in_one_process():
    for use_amp in (True, False, True):
        assert trained(use_amp=use_amp).history[0]["skipped_steps"] == 0


def test_an_accelerator_may_be_handed_over():
    model = seeded()
    accelerator = Accelerator(mixed_precision="no")
    trainer = SCMTrainer(
        model,
        torch.optim.SGD(model.parameters(), lr=0.1),
        FIT,
        [(X, Y)],
        config=TrainingConfig(max_epochs=1, progress=False),
        accelerator=accelerator,
    )
    assert trainer.accelerator is accelerator
    assert len(trainer.fit()) == 1


# --- inputs and progress


def test_a_strict_module_gives_its_tuples_in_validation_too():
    wrapped = trained(StrictModule(seeded()), val_loader=[(X, Y)])
    assert clockless(wrapped.history) == clockless(trained(val_loader=[(X, Y)]).history)
    assert wrapped.model.training
    assert wrapped.model.eval()(X).decoded.shape == Y.shape


def test_inputs_may_be_nested():
    class Nested(Tuples):
        def forward(self, inputs):
            return super().forward(inputs["x"] + inputs["shift"][0])

    torch.manual_seed(3)
    data = [({"x": X, "shift": (torch.zeros(1),)}, Y)]
    torch.testing.assert_close(
        weights(trained(Nested(), data=data).model), weights(trained().model), rtol=0, atol=0
    )


def test_double_precision_stays_double():
    loss_fn = Recorder()
    trained(seeded().double(), loss_fn=loss_fn, data=[(X.double(), Y.double())])
    assert loss_fn.dtypes == {torch.float64}


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("stream", "progress", "shown"),
    [(Terminal, True, True), (Terminal, False, False), (io.StringIO, True, False)],
    ids=["terminal", "switched off", "no terminal"],
)
def test_progress_is_shown_on_a_terminal_alone(stream, progress, shown, monkeypatch):
    stderr = stream()
    monkeypatch.setattr(sys, "stderr", stderr)
    trained(progress=progress)
    assert ("train_coverage" in stderr.getvalue()) is shown
    assert bool(stderr.getvalue()) is shown


# --- bad input


class One(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(1, 1)

    def forward(self, x):
        return self.linear(x)


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"data": []}, DataError, "train_loader must yield at least one batch"),
        ({"val_loader": []}, DataError, "val_loader must yield at least one batch"),
        ({"data": iter([(X, Y)])}, RangeError, "train_loader must yield its batches anew in every"),
        ({"data": 3}, RangeError, "train_loader must yield its batches anew .* got int"),
        ({"data": [X]}, DataError, r"a batch must be a pair \(x, y\), got a Tensor"),
        ({"data": [(X, Y, Y)]}, DataError, r"a batch must be a pair \(x, y\), got a tuple of 3"),
        ({"data": [{"x": X}]}, DataError, "got a dict of 1"),
        ({"data": [(X, [1.0])]}, DataError, "targets y of a batch must be a tensor .* got list"),
        ({"data": [(X, Y[0, 0])]}, DataError, r"must be a tensor with rows, got shape \(\)"),
        ({"data": [(X, Y[:, 0])]}, ShapeError, r"have the shape of N, \(24, 1\), got \(24,\)"),
        ({"model": One()}, TrainingError, r"a pair of tensors \(N, D\), got a tensor of shape"),
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
        "triple",
        "dict",
        "list targets",
        "no rows",
        "vector targets",
        "one tensor",
        "no loss",
        "other loss",
        "vector loss",
        "number",
        "detached",
    ],
)
def test_bad_input_is_named_in_one_sentence(options, error, sentence):
    with pytest.raises(error, match=sentence):
        trained(**options)


def test_an_optimizer_of_another_model_is_refused():
    optimizer = torch.optim.SGD(seeded().parameters(), lr=0.1)
    with pytest.raises(TrainingError, match="optimizer must hold parameters of the model"):
        SCMTrainer(seeded(), optimizer, FIT, [(X, Y)])


def test_an_accelerator_of_other_precision_is_refused():
    class Half:
        mixed_precision = "bf16"

    model = seeded()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(TrainingError, match=r"mixed_precision='no' .* got 'bf16'"):
        SCMTrainer(model, optimizer, FIT, [(X, Y)], accelerator=Half())


def test_a_process_that_was_set_up_in_other_precision_is_refused(monkeypatch):
    def refuse(**options):
        raise ValueError("AcceleratorState has already been initialized")

    monkeypatch.setattr("accelerate.Accelerator", refuse)
    with pytest.raises(TrainingError, match="mixed_precision='no' in this process"):
        trained()


def test_without_accelerate_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(MissingExtraError, match=r"zeroproof-scm\[train\]"):
        trained()
