import io
import math
import sys

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from zeroproof.inference import StrictModule, strict_inference
from zeroproof.training import History, SCMTrainer, SCMTrainingLoss, TrainingConfig

X = torch.linspace(-1, 1, 24)[:, None]
Y = 1 / (X - 0.3)
FIT = SCMTrainingLoss(normalizer="chordal", lambda_margin=0, lambda_sign=0, lambda_rejection=0)


def clockless(history):
    return [{k: v for k, v in row.items() if not k.startswith("time_")} for row in history]


# --- the loop


def test_most_networks_learn_a_pole(Tuples):
    learned = []
    for seed in range(4):
        torch.manual_seed(seed)
        model = Tuples(32)
        x = torch.linspace(-1, 1, 256)[:, None]
        loader = DataLoader(TensorDataset(x, 1 / (x - 0.3)), batch_size=32, shuffle=True)
        trainer = SCMTrainer(
            model,
            torch.optim.Adam(model.parameters(), lr=1e-2),
            SCMTrainingLoss(normalizer="attached"),
            loader,
            config=TrainingConfig(max_epochs=40, seed=seed, progress=False),
        )
        history = trainer.fit()
        decoded, bottom, _ = strict_inference(*model(x))
        chordal = (torch.atan(decoded) - torch.atan(1 / (x - 0.3))).sin().abs()
        falls = history[-1]["train_loss"] < history[0]["train_loss"] / 20
        learned.append(falls and not bottom.any() and chordal.mean() < 0.05)
    assert sum(learned) >= 3


def test_a_step_is_that_of_a_bare_loop(trained, seeded, weights):
    trainer = trained(rate=0.1, max_epochs=3)
    model = seeded()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        FIT(outputs=model(X), targets=(Y, torch.ones_like(Y))).backward()
        optimizer.step()
    torch.testing.assert_close(weights(trainer.model), weights(model), rtol=1e-6, atol=1e-7)


def test_parameters_are_updated_in_place_and_the_modes_come_back(trained, seeded, weights):
    model = seeded(trunk=[nn.Dropout(0.1), nn.BatchNorm1d(8)])
    model.trunk[3].eval()  # frozen on purpose, in a model that is in training mode
    before, start = list(model.parameters()), weights(model)
    trained(model, val_loader=[(X, Y)])
    assert all(a is b for a, b in zip(before, model.parameters(), strict=True))
    assert not torch.equal(start, weights(model))
    assert [module.training for module in model.trunk] == [True, True, True, False]


PARTS = ("fit", "margin", "sign", "rejection")


def test_the_history_has_the_keys_of_the_contract(trained):
    row = trained(val_loader=[(X, Y)]).history[0]
    assert isinstance(trained().fit(), History)
    expected = {
        "train_loss",
        "val_loss",
        "train_coverage",
        "val_coverage",
        "train_gap",
        "val_gap",
        "train_lost",
        "val_lost",
        *(f"{part}_{kind}" for part in ("train", "val") for kind in PARTS),
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


def test_the_losses_are_means_over_rows_whatever_the_batches(trained):
    parts = [(X[:5], Y[:5]), (X[5:6], Y[5:6]), (X[6:], Y[6:])]
    whole = trained(rate=0.0, val_loader=[(X, Y)]).history[0]
    split = trained(rate=0.0, data=parts, val_loader=parts).history[0]
    assert split["train_loss"] == pytest.approx(whole["train_loss"], rel=1e-6)
    assert split["val_loss"] == pytest.approx(whole["train_loss"], rel=1e-6)


def test_coverage_and_gap_are_shares_of_all_answers(Fixed, trained, zero_loss):
    model = Fixed(1.0, -1.0, 5e-5, 1e-6, 9e-7, 0.0, math.nan, math.inf)
    x = torch.ones(8, 1)
    row = trained(model, loss_fn=zero_loss, data=[(x, x)] * 3).history[0]
    assert row["train_coverage"] == pytest.approx(4 / 8)
    assert row["train_gap"] == pytest.approx(2 / 8)


def test_rows_left_out_are_counted_in_every_epoch(Fixed, trained):
    model, x = Fixed(1.0, math.nan, 0.0, math.inf), torch.ones(4, 1)
    y = torch.tensor([[1.0], [1.0], [math.nan], [1.0]])  # a target that is bottom is a row
    history = trained(model, loss_fn=FIT, data=[(x, y)] * 3, max_epochs=2).history
    assert [row["masked_rows"] for row in history] == [6, 6]
    assert [row["skipped_steps"] for row in history] == [0, 0]
    assert trained().history[0]["masked_rows"] == 0
    assert type(trained().history[0]["masked_rows"]) is int


def test_coverage_is_decoded_with_the_score_that_was_asked_for(Fixed, trained, zero_loss):
    x = torch.ones(2, 1)
    model = Fixed(1e-3, 1.0)
    options = {"tau_infer": 1e-2, "tau_train_min": 0.1, "tau_train_max": 0.1, "loss_fn": zero_loss}
    denominator = trained(model, data=[(x, x)], **options)
    angle = trained(model, data=[(x, x)], score="angle", scale=1e3, **options)
    assert denominator.history[0]["train_coverage"] == 0.5
    assert angle.history[0]["train_coverage"] == 1.0


def test_many_batches_of_changing_shape_are_counted_once_each(trained, zero_loss):
    x, counted = torch.linspace(-1, 1, 3)[:, None], 0
    data = [(x.expand(3, k), x.expand(3, k)) for k in (1, 1, 2, 1, 2, 2)] * 100

    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(()))

        def forward(self, x):
            return x * self.weight, torch.where(x > 0.5, 1.0, 0.0) + 0 * self.weight

    counted = trained(Half(), loss_fn=zero_loss, data=data, calibrate=False).history[0]
    assert counted["train_coverage"] == pytest.approx(1 / 3)


# --- thresholds, seeds, schedules


def test_every_step_draws_its_threshold_and_the_loss_sees_it(trained):
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


def test_the_same_seed_gives_the_same_history(Tuples, trained, weights):
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


def test_max_steps_ends_in_the_middle_of_an_epoch(trained):
    trainer = trained(data=[(X, Y)] * 4, max_epochs=5, max_steps=6, val_loader=[(X, Y)])
    assert len(trainer.history) == 2
    assert trainer.stop_reason == "max_steps"
    assert "val_loss" in trainer.history[1]


@pytest.mark.parametrize(("cadence", "rates"), [("epoch", [0.8, 0.4]), ("step", [0.8, 0.1])])
def test_the_scheduler_steps_at_its_cadence(seeded, cadence, rates):
    model = seeded()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.8)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    config = TrainingConfig(max_epochs=2, scheduler_cadence=cadence, progress=False)
    data = [(X, Y)] * 3
    history = SCMTrainer(model, optimizer, FIT, data, config=config, scheduler=scheduler).fit()
    assert [row["lr"] for row in history] == pytest.approx(rates)


def test_a_plateau_scheduler_is_given_the_loss(seeded):
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


# --- inputs and progress


def test_a_strict_module_gives_its_tuples_in_validation_too(trained, seeded):
    wrapped = trained(StrictModule(seeded()), val_loader=[(X, Y)])
    assert clockless(wrapped.history) == clockless(trained(val_loader=[(X, Y)]).history)
    assert wrapped.model.training
    assert wrapped.model.eval()(X).decoded.shape == Y.shape


def test_inputs_may_be_nested(Tuples, trained, weights):
    class Nested(Tuples):
        def forward(self, inputs):
            return super().forward(inputs["x"] + inputs["shift"][0])

    torch.manual_seed(3)
    data = [({"x": X, "shift": (torch.zeros(1),)}, Y)]
    torch.testing.assert_close(
        weights(trained(Nested(), data=data).model), weights(trained().model), rtol=0, atol=0
    )


def test_a_trainer_says_in_a_line_what_it_trains_and_how_far_it_came(seeded):
    model = seeded()
    trainer = SCMTrainer(
        model,
        torch.optim.SGD(model.parameters(), lr=0.1),
        FIT,
        [(X, Y)],
        config=TrainingConfig(max_epochs=2, progress=False, tau_infer=1e-7, target_scale=2.0),
    )
    name, unknown = type(model).__name__, "unit not yet known, τ_infer 1e-07, τ_train "
    assert repr(trainer).startswith(f"SCMTrainer({name}, step 0, epochs 0 of 2, {unknown}")
    trainer.fit()
    known = f"unit {trainer.unit:.4g}, τ_infer 1e-07"
    assert repr(trainer).startswith(f"SCMTrainer({name}, step 2, epochs 2 of 2, {known}")


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("stream", "progress", "shown"),
    [(Terminal, True, True), (Terminal, False, False), (io.StringIO, True, False)],
    ids=["terminal", "switched off", "no terminal"],
)
def test_progress_is_shown_on_a_terminal_alone(trained, stream, progress, shown, monkeypatch):
    stderr = stream()
    monkeypatch.setattr(sys, "stderr", stderr)
    trained(progress=progress)
    assert ("train_coverage" in stderr.getvalue()) is shown
    assert bool(stderr.getvalue()) is shown
