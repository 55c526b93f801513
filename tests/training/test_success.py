"""What `fit` leaves: answers in the units of y, the head, thresholds, and what they catch."""

import math
import warnings

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from zeroproof import strict_inference
from zeroproof.errors import DataError, TrainingError
from zeroproof.inference import InferenceConfig, StrictModule, calibrated
from zeroproof.layers import ProjectiveMLP, Rational
from zeroproof.projective import target_scale
from zeroproof.scm import SCM
from zeroproof.training import SCMTrainer, SCMTrainingLoss, TrainingConfig, load_weights

X = torch.linspace(-1, 1, 257)[:, None]
Y = 1 / (X - 0.3)
CHORDAL = SCMTrainingLoss(normalizer="chordal", lambda_sign=0)


def fitted(y, *, x=X, model=None, epochs=3, val=None, loss_fn=CHORDAL, rate=1e-2, **options):
    """Return (model, trainer) after `fit`; options beside those of the config: none."""
    torch.manual_seed(0)
    model = ProjectiveMLP(x.shape[1], 1, hidden=(16,)) if model is None else model
    loader = DataLoader(TensorDataset(x, y), batch_size=32, shuffle=True)
    config = TrainingConfig(max_epochs=epochs, progress=False, seed=0, **options)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    trainer = SCMTrainer(model, optimizer, loss_fn, loader, val, config)
    trainer.fit()
    return model, trainer


def value(model, x=X):
    with torch.no_grad():
        N, D = model(x)
    return N / D


def close(found, expected):
    """Compare answers, some of which lie next to a zero of N."""
    size = float(expected.abs().median())
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * size)


# --- the scale of the targets


@pytest.mark.parametrize("size", [1 / 64, 128.0])
def test_targets_of_any_size_are_learned_alike_and_answered_in_their_units(size):
    # a power of two, so that every step is the same to the bit
    options = {"readout": None, "epochs": 2}
    plain, one = fitted(Y, **options)
    scaled, other = fitted(size * Y, **options)
    assert other.target_scale == size * one.target_scale == size * target_scale(Y)
    assert [r["train_loss"] for r in one.history] == [r["train_loss"] for r in other.history]
    close(value(scaled), size * value(plain))
    assert other.inference_config.scale in (size * target_scale(Y), target_scale(Y) * size)


def test_a_number_wins_and_answers_are_in_units_of_y_all_the_same():
    model, trainer = fitted(100 * Y, target_scale=64.0, epochs=30)
    assert (trainer.target_scale, trainer.unit) == (64.0, 1.0)
    far = (X - 0.3).abs() > 0.1
    assert ((value(model) / (100 * Y) - 1)[far].abs().median()) < 0.1


class Own(nn.Module):
    """Two heads of the user's own."""

    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(1, 8), nn.Tanh())
        self.N, self.D = nn.Linear(8, 1), nn.Linear(8, 1)

    def forward(self, x):
        h = self.trunk(x)
        return self.N(h), self.D(h)


class Behind(nn.Module):
    """A model that does something to the tuples of its head."""

    def __init__(self):
        super().__init__()
        self.inner = ProjectiveMLP(1, 1, hidden=(8,))

    def forward(self, x):
        N, D = self.inner(x)
        return N + x * D, D


@pytest.mark.parametrize("build", [Own, Behind])
def test_where_no_head_ends_the_model_nothing_is_scaled(build):
    _, trainer = fitted(100 * Y, model=build())
    assert (trainer.target_scale, trainer.unit, trainer.solved) == (1.0, 1.0, None)
    _, trainer = fitted(100 * Y, model=build(), target_scale=50.0)
    assert (trainer.target_scale, trainer.unit) == (50.0, 50.0)


def test_reading_the_scale_leaves_the_batches_of_the_run_as_they_were():
    seen = []

    class Watched(Own):
        def forward(self, x):
            if self.training:
                seen.append(x.clone())
            return super().forward(x)

    for scale in ("auto", 1.0):
        torch.manual_seed(3)
        model = Watched()
        loader = DataLoader(TensorDataset(X, Y), batch_size=32, shuffle=True)
        config = TrainingConfig(
            max_epochs=2, progress=False, target_scale=scale, readout=None, calibrate=False
        )
        torch.manual_seed(5)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        SCMTrainer(model, optimizer, CHORDAL, loader, config=config).fit()
    assert all(map(torch.equal, seen[: len(seen) // 2], seen[len(seen) // 2 :]))


def test_training_goes_on_and_checkpoints_are_read_in_the_same_units(tmp_path):
    options = {"readout": None, "calibrate": False, "checkpoint_dir": tmp_path}
    model, trainer = fitted(128 * Y, **options)
    fresh = ProjectiveMLP(1, 1, hidden=(16,))
    load_weights(tmp_path, fresh)
    assert torch.equal(value(fresh), value(model))
    trainer.optimizer.param_groups[0]["lr"] = 0.0
    trainer.config = trainer.config  # the same run again, without a step that moves it
    before = value(model)
    trainer.fit(resume_from="auto")
    close(value(model), before)
    with trainer.in_training_units():
        close(value(model) * trainer.target_scale, before)
    close(value(model), before)


def test_another_trainer_goes_on_from_what_the_model_answers():
    model, trainer = fitted(128 * Y)
    before, learned = value(model), trainer.history[-1]["train_loss"]
    _, other = fitted(128 * Y, model=model, rate=0.0, readout=None)
    close(value(model), before)
    assert other.history[0]["train_loss"] < learned


def test_a_run_that_breaks_off_leaves_the_model_in_units_of_y():
    class Stop:
        def on_epoch_end(self, trainer):
            self.inside = value(trainer.model)
            raise KeyboardInterrupt

    stop, model = Stop(), ProjectiveMLP(1, 1, hidden=(16,))
    loader = DataLoader(TensorDataset(X, 128 * Y), batch_size=32)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    config = TrainingConfig(progress=False)
    trainer = SCMTrainer(model, optimizer, CHORDAL, loader, config=config, callbacks=[stop])
    with pytest.raises(KeyboardInterrupt):
        trainer.fit()
    close(value(model), stop.inside * trainer.target_scale)


def test_targets_without_a_number_are_refused():
    with pytest.raises(DataError, match=r"finite targets, got ±inf or ⊥ in all 257 rows"):
        fitted(torch.full_like(Y, math.nan))


# --- the head


def test_fit_ends_with_the_closed_form_head_if_it_halves_the_error():
    model, trainer = fitted(Y)
    assert trainer.solved.kept
    assert trainer.solved.after < trainer.solved.before / 2
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    near = (X - 0.3).abs() < 0.1
    assert ((value(model) / Y - 1)[near].abs().median()) < 1e-3
    again = fitted(Y, epochs=1, model=model, target_scale=1.0, rate=0.0)[1]
    assert not again.solved.kept  # it is there already
    assert fitted(Y, readout=None)[1].solved is None


# --- thresholds


def half_line(rows, seed=0):
    x = torch.rand(rows, 1, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return x, torch.where(x > 0.4, math.nan, 1 / (x - 0.5))


@pytest.mark.parametrize("with_validation", [False, True])
def test_a_region_of_bottom_is_answered_bottom_on_fresh_rows(with_validation):
    x, y = half_line(2048)
    val = [half_line(500, 1)] if with_validation else None
    model, trainer = fitted(y, x=x, epochs=40, val=val)
    assert trainer.inference_config.score == "angle"
    module = StrictModule(model, trainer.inference_config).eval()
    fresh, labels = half_line(20_000, 2)
    bottom = module(fresh).bottom_mask
    sure, singular = (fresh - 0.4).abs() > 4 / 2048, labels.isnan()
    caught, lost = (bottom[kind & sure].double().mean() for kind in (singular, ~singular))
    assert (caught >= 0.98, lost <= 0.02) == (True, True)
    rows = val[0][1] if with_validation else y
    assert trainer.val_caught.rows == int(rows.isnan().sum())
    assert trainer.val_lost.rows == int((~rows.isnan()).sum())
    assert trainer.val_caught.low <= trainer.val_caught.share <= trainer.val_caught.high
    # alone or in a batch, in this machine's arithmetic or exported
    program = torch.export.export(module, (fresh[:3],), strict=True).module()
    assert torch.equal(program(fresh[:3]).bottom_mask, bottom[:3])
    if not with_validation:
        seen = module(x).bottom_mask
        assert all(module(x[[k]]).bottom_mask == seen[k] for k in range(0, 2048, 67))
        N, D = model(x)
        assert torch.equal(strict_inference(N, D, trainer.inference_config).bottom_mask, seen)
    last = trainer.history[-1]
    part = "val" if with_validation else "train"
    assert last[f"{part}_coverage"] == 1 - last[f"{part}_lost"]
    assert 0 <= last[f"{part}_caught"] <= 1


@pytest.mark.parametrize("options", [{"tau_infer": 1e-5}, {"score": "angle"}], ids=str)
def test_thresholds_of_the_user_stay_and_are_measured(options):
    x, y = half_line(512)
    _, trainer = fitted(y, x=x, target_scale=2.0, **options)
    assert trainer.inference_config == InferenceConfig(scale=2.0, **options)
    assert trainer.val_caught.rows == int(y.isnan().sum())


def test_with_fewer_than_five_labels_the_configured_thresholds_stay():
    y = Y.clone()
    y[:4] = math.nan
    _, trainer = fitted(y)
    assert trainer.inference_config == InferenceConfig(scale=trainer.target_scale)
    assert trainer.val_caught.rows == 4
    assert fitted(Y)[1].val_caught is None


@pytest.mark.parametrize(
    ("bad", "good", "low", "high"),
    [
        ([1e-3] * 9, [0.5] * 99, 1.9e-3, 2.01e-3),  # twice Youden's
        ([1e-3] * 9, [1.5e-3] * 99, 1.4e-3, 1.5e-3),  # the upper end, below the finite rows
        ([0.2] * 9, [0.1] * 9 + [0.9] * 90, 0.0, 0.1),  # no more than 1 % of these is lost
    ],
)
def test_thresholds_are_the_upper_end_within_limits(bad, good, low, high):
    score = torch.tensor(bad + good)
    singular = torch.arange(len(score)) < len(bad)
    config = calibrated(score, singular, 3.0)
    assert low < config.tau_infer < high
    assert (config.score, config.scale) == ("angle", 3.0)
    assert calibrated(score[5:], singular[5:], 3.0) is None


# --- what is said


class Positive(ProjectiveMLP):
    """A model that cannot answer ⊥ at thresholds on D."""

    def forward(self, x):
        N, D = super().forward(x)
        return N, 1 + D.square()


def test_a_model_that_cannot_answer_bottom_is_refused_or_warned_of():
    x, y = half_line(256)
    with pytest.raises(TrainingError, match="must be able to reach D = 0"):
        fitted(y, x=x, model=Positive(1, 1, hidden=(8,)), tau_infer=1e-7)
    with pytest.warns(UserWarning, match="must be able to reach D = 0"):
        fitted(y, x=x, model=Positive(1, 1, hidden=(8,)))


def test_labels_that_are_answered_by_numbers_are_told(monkeypatch):
    monkeypatch.setattr("zeroproof.training.trainer._TRIED", 1)
    x, y = half_line(256)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        fitted(y, x=x, model=Own(), tau_infer=1e-7, epochs=5)
    words = "entries labelled ±inf or ⊥ are answered by a number"
    assert sum(words in str(each.message) for each in said) == 1


def test_a_model_that_learned_nothing_is_told(monkeypatch):
    monkeypatch.setattr("zeroproof.training.trainer._TRIED", 1)
    with pytest.warns(UserWarning, match="hardly better than one constant answer"):
        fitted(Y, model=Own(), rate=0.0)


# --- SCM values


def test_a_model_of_scm_values_is_trained_by_the_same_loss():
    x = torch.linspace(-1, 1, 129)[:, None]
    y = 1 / (x - 0.25)  # a pole on a row
    model = nn.Sequential(Rational(degrees=(1, 1), init=([1.1, 0.0], [-0.2, 1.0])))
    assert isinstance(model(x), SCM)
    torch.manual_seed(0)
    model, trainer = fitted(y, x=x, model=model, epochs=40)
    answer = model(x)
    far = (x - 0.25).abs() > 0.1
    assert ((answer.payload / y - 1)[far].abs().median()) < 0.02
    assert trainer.val_caught.rows == 1


# --- what looking does not move


@pytest.mark.parametrize("own", [False, True])
def test_reading_beforehand_leaves_the_order_of_the_rows_alone(own):
    def orders(**options):
        class Watched(torch.utils.data.Dataset):
            def __len__(self):
                return 24

            def __getitem__(self, i):
                seen.append(i)
                return X[i], Y[i]

        seen: list[int] = []
        torch.manual_seed(0)
        model = ProjectiveMLP(1, 1, hidden=(4,))
        generator = torch.Generator().manual_seed(7) if own else None
        loader = DataLoader(Watched(), batch_size=8, shuffle=True, generator=generator)
        config = TrainingConfig(max_epochs=2, progress=False, seed=0, calibrate=False, **options)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        trainer = SCMTrainer(model, optimizer, CHORDAL, loader, config=config)
        trainer.fit()
        return seen

    alone = orders(target_scale=1.0, readout=None)
    assert orders(readout=None)[-48:] == alone


def test_the_head_is_solved_for_as_the_labels_weigh():
    y = torch.cat([Y, 5 * X])
    x, weight = torch.cat([X, X]), torch.cat([torch.ones_like(X), torch.full_like(X, 1e-9)])
    torch.manual_seed(0)
    model = ProjectiveMLP(1, 1, hidden=(16,))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    config = TrainingConfig(max_epochs=2, progress=False, seed=0)
    batch = {"x": x, "y": y, "weight": weight}
    trainer = SCMTrainer(model, optimizer, CHORDAL, [batch], config=config)
    trainer.fit()
    assert trainer.solved is not None
    assert trainer.solved.after < 1e-6
    near = torch.tensor([[0.25], [0.31]])
    torch.testing.assert_close(value(model, near), 1 / (near - 0.3), rtol=1e-2, atol=0)


def test_thresholds_that_are_not_chosen_are_in_the_units_of_y_all_the_same():
    options = {"score": "angle", "tau_infer": 1e-3, "tau_train_min": 1e-3, "tau_train_max": 1e-3}
    _, trainer = fitted(100 * Y, calibrate=False, **options)
    assert trainer.inference_config.scale == pytest.approx(trainer.target_scale)
    assert trainer.inference_config.tau_infer == 1e-3
