"""What a run can be asked for beside the guide's options."""

import json

import pytest
import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from zeroproof.errors import DataError, RangeError, TrainingError
from zeroproof.layers import ProjectiveMLP
from zeroproof.training import SCMTrainer, SCMTrainingLoss, TrainingConfig

X = torch.linspace(-1, 1, 24)[:, None]
Y = 1 / (X - 0.3)
FIT = SCMTrainingLoss(normalizer="chordal", lambda_margin=0, lambda_sign=0, lambda_rejection=0)


def build(model, data, val=None, *, loss_fn=FIT, rate=0.05, callbacks=(), **options):
    return SCMTrainer(
        model,
        torch.optim.SGD(model.parameters(), lr=rate),
        loss_fn,
        data,
        val,
        config=TrainingConfig(**{"max_epochs": 1, "progress": False, **options}),
        callbacks=callbacks,
    )


# --- batches


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(1, 2)

    def forward(self, x, shift):
        return self.linear(x + shift).split(1, dim=-1)


@pytest.mark.parametrize(
    "batch",
    [(X, 1 + 0 * X, Y), [X, 1 + 0 * X, Y], {"x": X, "y": Y, "shift": 1 + 0 * X}],
    ids=["tuple", "list", "dict"],
)
def test_several_inputs_are_handed_to_the_model(batch):
    torch.manual_seed(0)
    model, plain = Two(), Two()
    plain.load_state_dict(model.state_dict())
    build(model, [batch], [batch]).fit()
    N, D = plain(X, 1 + 0 * X)
    FIT(outputs=(N, D), targets=(Y, torch.ones_like(Y))).backward()
    expected = plain.linear.weight - 0.05 * plain.linear.weight.grad
    torch.testing.assert_close(model.linear.weight, expected)


def test_a_dict_without_targets_is_refused(seeded):
    with pytest.raises(DataError, match=r"or a dict with an entry 'y', got a dict of 2"):
        build(seeded(), [{"x": X, "target": Y}]).fit()


# --- clipping


@pytest.mark.parametrize("limit", [1e-3, 1e9])
def test_gradients_are_scaled_down_to_a_norm_that_is_logged_before(seeded, weights, limit):
    model, start = seeded(), weights(seeded())
    row = build(model, [(X, Y)], rate=1.0, max_grad_norm=limit).fit()[0]
    free = seeded()
    FIT(outputs=free(X), targets=(Y, torch.ones_like(Y))).backward()
    norm = torch.cat([p.grad.flatten() for p in free.parameters()]).norm()
    assert row["grad_norm"] == pytest.approx(float(norm), rel=1e-5)
    moved = (weights(model) - start).norm()
    torch.testing.assert_close(moved, norm.clamp(max=limit), rtol=2e-3, atol=0)


def test_without_clipping_no_norm_is_logged(seeded):
    assert "grad_norm" not in build(seeded(), [(X, Y)]).fit()[0]


# --- the moving average


def test_the_average_is_validated_and_left_in_the_model(seeded, weights):
    model = seeded(trunk=[nn.BatchNorm1d(8)])
    seen = []

    class Note:
        def on_batch_end(self, trainer):
            seen.append(weights(trainer.model))

    trainer = build(model, [(X, Y)] * 4, [(X, Y)], rate=0.5, ema_decay=0.6, callbacks=[Note()])
    history = trainer.fit()
    average = seen[0]
    for each in seen[1:]:
        average = 0.6 * average + 0.4 * each
    torch.testing.assert_close(weights(model), average)
    assert not torch.allclose(weights(model), seen[-1], rtol=1e-3)
    model.eval()
    with torch.no_grad():
        loss = FIT(outputs=model(X), targets=(Y, torch.ones_like(Y)))
    assert history[0]["val_loss"] == pytest.approx(float(loss), rel=1e-6)


def test_the_best_average_is_kept(seeded, weights):
    losses, averages = iter([3.0, 1.0, 2.0]), []

    def loss_fn(outputs, targets):
        if not outputs[0].requires_grad:
            averages.append(weights(trainer._average.model))
            return torch.tensor(next(losses))
        return FIT(outputs=outputs, targets=targets)

    options = {"max_epochs": 3, "keep_best": True, "ema_decay": 0.5, "loss_fn": loss_fn}
    trainer = build(seeded(), [(X, Y)], [(X, Y)], **options)
    trainer.fit()
    assert trainer.best_epoch == 1
    assert torch.equal(weights(trainer.model), averages[1])


# --- when to stop, and what to keep


class Steered(nn.Module):
    """Its denominators in validation are set from outside."""

    def __init__(self):
        super().__init__()
        self.weight, self.D = nn.Parameter(torch.zeros(())), 1.0

    def forward(self, x):
        D = torch.ones_like(x)
        if not self.training:
            D[: int(self.D * len(x))] = 0.0
        return x + self.weight, D + 0 * self.weight


def steered(epochs, **options):
    """Validate with given (loss, share of bottoms) per epoch."""
    model, plan = Steered(), iter(epochs)

    class Steer:
        def on_epoch_begin(self, trainer):
            self.loss, model.D = next(plan)

    steer = Steer()

    def loss_fn(outputs, targets):
        if outputs[0].requires_grad:
            return (outputs[0] - 1).square().mean()
        return torch.tensor(steer.loss)

    options = {"max_epochs": len(epochs), "keep_best": True, "coverage_patience": 99, **options}
    trainer = build(model, [(X, X)], [(X, X)], loss_fn=loss_fn, callbacks=[steer], **options)
    trainer.fit()
    return trainer


@pytest.mark.parametrize(
    ("epochs", "best"),
    [
        ([(3.0, 0), (1.0, 0), (2.0, 0)], 1),
        ([(3.0, 0), (1.0, 0.5), (2.0, 0)], 2),  # the lowest loss does not cover enough
        ([(3.0, 0.5), (1.0, 0.5), (2.0, 0.5)], 1),  # nothing does
        ([(1.0, 0.5), (9.0, 0)], 1),
    ],
    ids=str,
)
def test_the_best_epoch_is_one_that_covers_enough(epochs, best):
    assert steered(epochs).best_epoch == best


def test_patience_with_the_loss_ends_a_run():
    epochs = [(3.0, 0), (1.0, 0), (2.0, 0), (1.5, 0), (0.5, 0)]
    trainer = steered(epochs, loss_patience=2)
    assert (trainer.stop_reason, len(trainer.history)) == ("loss", 4)
    assert steered(epochs, loss_patience=3).stop_reason == "max_epochs"
    assert steered(epochs, loss_patience=2, keep_best=False).best_epoch is None


@pytest.mark.filterwarnings("ignore:.*left out of training")
def test_nothing_but_skipped_steps_ends_an_epoch_early(seeded, squared):
    bad = (torch.full_like(X, torch.nan), Y)
    trainer = build(
        seeded(),
        [(X, Y), *[bad] * 1000],
        loss_fn=squared,
        max_skipped_steps=20,
        log_every=10,
    )
    with pytest.raises(TrainingError, match=r"the latest 20 steps had a non-finite .* lower the"):
        trainer.fit()
    assert trainer.step == 30


@pytest.mark.filterwarnings("ignore:.*left out of training")
def test_skipped_steps_with_others_between_are_no_reason(seeded, squared):
    bad = (torch.full_like(X, torch.nan), Y)
    data = [bad, bad, bad, bad, (X, Y)] * 10
    options = {"loss_fn": squared, "max_skipped_steps": 5, "log_every": 5, "rate": 1e-3}
    assert build(seeded(), data, **options).fit()[0]["skipped_steps"] == 40


# --- schedules, thresholds, compiling


@pytest.mark.filterwarnings("ignore:.*left out of training")
def test_the_schedule_counts_skipped_steps_too(seeded, squared):
    bad, model = (torch.full_like(X, torch.nan), Y), seeded()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    config = TrainingConfig(max_epochs=1, scheduler_cadence="step", progress=False)
    data = [bad, (X, Y), bad]
    SCMTrainer(model, optimizer, squared, data, config=config, scheduler=scheduler).fit()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-3 / 8)


def test_the_distribution_of_the_thresholds_is_in_the_history(trained):
    options = {"tau_train_min": 1e-4, "tau_train_max": 4e-4, "seed": 2}
    row = trained(data=[(X, Y)] * 200, **options).history[0]
    low, mean, high = (row[f"tau_train_{name}"] for name in ("min", "mean", "max"))
    assert 1e-4 <= low < 1.2e-4
    assert mean == pytest.approx(2.5e-4, rel=0.1)
    assert 3.8e-4 < high <= 4e-4
    assert row["tau_train_std"] == pytest.approx(3e-4 / 12**0.5, rel=0.1)


def test_a_compiled_model_is_trained_as_the_model(seeded, weights):
    model, plain = seeded(), seeded()
    compiled = build(torch.compile(model, backend="aot_eager"), [(X, Y)] * 3, [(X, Y)])
    build(plain, [(X, Y)] * 3, [(X, Y)]).fit()
    compiled.fit()
    torch.testing.assert_close(weights(model), weights(plain))


def test_an_order_without_a_generator_is_that_of_the_seed_and_left_as_it_was(seeded):
    seen = []

    def run(seed, draws):
        loader = DataLoader(TensorDataset(X, Y), batch_size=1, shuffle=True)
        torch.randn(draws)  # what was drawn before the run does not matter
        seen.append([])
        model = seeded()
        hook = model.register_forward_pre_hook(lambda _, args: seen[-1].append(float(args[0])))
        build(model, loader, seed=seed, coverage_threshold=0.0).fit()
        hook.remove()
        assert loader.sampler.generator is None

    run(1, 0)
    run(1, 5)
    run(2, 0)
    assert seen[0] == seen[1] != seen[2]


def validated(seed, dtype):
    """Return the lowest validation loss on noisy rows beside a pole, 2 % of each."""
    noise = torch.randn(512, 1, generator=torch.Generator().manual_seed(seed))
    x = torch.linspace(-1, 1, 512)[:, None]
    y = (1 + 0.02 * noise) / (x - 0.3)
    torch.manual_seed(seed)
    model = ProjectiveMLP(1, 1, hidden=(64, 64))
    history = SCMTrainer(
        model,
        torch.optim.Adam(model.parameters(), lr=3e-3),
        SCMTrainingLoss(normalizer="chordal", lambda_sign=0),
        DataLoader(TensorDataset(x[::2], y[::2]), batch_size=32, shuffle=True),
        [(x[1::2], y[1::2])],
        config=TrainingConfig(
            max_epochs=60,
            use_amp=dtype is not None,
            amp_dtype=dtype,
            seed=seed,
            progress=False,
            ema_decay=0.95,
            target_scale=1.0,
        ),
    ).fit()
    assert history[0]["val_loss"] > 1e-2
    return min(row["val_loss"] for row in history)


@pytest.mark.slow
def test_half_precision_reaches_the_quality_of_float32():
    # rounding sends each run another way, so that means are compared
    full, *halves = (
        sum(validated(seed, dtype) for seed in (0, 1)) / 2
        for dtype in (None, torch.bfloat16, torch.float16)
    )
    assert full < 2e-4
    assert all(half <= 1.1 * full for half in halves)


def test_a_scheduler_that_needs_a_loss_does_not_step_without_one(seeded, weights):
    model = seeded()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
    config = TrainingConfig(scheduler_cadence="step", progress=False)
    with pytest.raises(RangeError, match="must be 'epoch' for a ReduceLROnPlateau, which needs"):
        SCMTrainer(model, optimizer, FIT, [(X, Y)], config=config, scheduler=plateau)
    assert torch.equal(weights(model), weights(seeded()))


def test_accumulation_of_an_accelerator_is_refused(seeded):
    model = seeded()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    accelerator = Accelerator(gradient_accumulation_steps=4)
    with pytest.raises(TrainingError, match=r"gradient_accumulation_steps=1 .* own\), got 4"):
        SCMTrainer(model, optimizer, FIT, [(X, Y)], accelerator=accelerator)


def test_the_rates_of_groups_that_differ_are_all_told(seeded, tmp_path):
    model = seeded()
    groups = [{"params": model.trunk.parameters(), "lr": 0.0}, {"params": model.N.parameters()}]
    optimizer = torch.optim.SGD(groups, lr=0.01)
    halves = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.5**epoch)
    config = TrainingConfig(max_epochs=3, progress=False, log_dir=tmp_path, log_every=1)
    history = SCMTrainer(model, optimizer, FIT, [(X, Y)], config=config, scheduler=halves).fit()
    told = [json.loads(line) for line in (tmp_path / "steps.jsonl").read_text().splitlines()]
    for rows in (history, told):
        assert [(row["lr"], row["lr_1"]) for row in rows] == [(0, 0.01), (0, 0.005), (0, 0.0025)]
