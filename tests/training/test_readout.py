import math

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from zeroproof.errors import DataError, RangeError, ShapeError, TrainingError
from zeroproof.inference import StrictModule
from zeroproof.layers import ProjectiveHead, ProjectiveMLP
from zeroproof.projective import chordal_distance
from zeroproof.training import (
    SCMTrainer,
    SCMTrainingLoss,
    SpectralReadoutCallback,
    TrainingConfig,
    head_readout,
    lift_targets,
)

POLE = 0.3
X = torch.linspace(-1, 1, 120, dtype=torch.float64)[:, None]
Y = torch.sin(2 * X) / (X - POLE)
FIT = SCMTrainingLoss(normalizer="chordal", lambda_margin=0, lambda_sign=0, lambda_rejection=0)


def net(k=1, **options):
    torch.manual_seed(0)
    return ProjectiveMLP(1, k, hidden=(16,), **options)


def loader(x=X, y=Y, *, shuffle=False):
    return DataLoader(TensorDataset(x, y), batch_size=32, shuffle=shuffle)


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(model, before):
    after = model.state_dict()
    return all(
        after[name].dtype == value.dtype and torch.equal(after[name], value)
        for name, value in before.items()
    )


def error(model, x, y, scale=1.0):
    with torch.no_grad():
        N, D = model(x)
    targets = lift_targets(y.double(), scale=scale)
    return chordal_distance(N.double(), D.double(), *targets).square().mean().item()


def double(model):
    return model.double()


# --- what it reaches


def test_float64_features_place_the_pole_to_rounding():
    model = net()
    result = head_readout(model, loader(), dtype=torch.float64)
    assert result.kept
    assert result.before > 1e-3
    assert result.after < 1e-24
    near = POLE + torch.tensor([[-1e-3], [1e-3], [1e-2]], dtype=torch.float64)
    N, D = model(near)
    torch.testing.assert_close(N / D, torch.sin(2 * near) / (near - POLE), rtol=1e-8, atol=0)


def test_float32_features_are_kept_in_float32():
    model = net()
    result = head_readout(model, loader())
    assert result.kept
    assert result.after < 1e-10
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_the_errors_are_those_of_the_model_on_the_held_out_rows():
    model, held = net(), (X[::7], Y[::7])
    before = error(model, *held, scale=2.0)
    result = head_readout(model, loader(), [held], scale=2.0)
    assert result.before == pytest.approx(before, rel=1e-6)
    assert result.after == pytest.approx(error(model, *held, scale=2.0), rel=1e-6)


KINDS = {
    "one output": (1, True),
    "shared denominator": (3, True),
    "separate denominators": (3, False),
}


@pytest.mark.parametrize(("outputs", "shared"), KINDS.values(), ids=KINDS)
def test_every_kind_of_head_is_solved(outputs, shared):
    model = double(net(outputs, shared_denominator=shared))
    poles = torch.full((outputs,), POLE) if shared else torch.linspace(-0.6, 0.6, outputs)
    y = (1 + torch.arange(outputs) + X) / (X - poles.double() - 1e-3)
    assert head_readout(model, loader(y=y)).after < 1e-22
    assert error(model, X, y) < 1e-22


def test_targets_may_be_infinite_or_unknown():
    y = Y.clone()
    at = [10, 20, 30]
    y[at] = torch.tensor([[math.inf], [-math.inf], [math.nan]], dtype=torch.float64)
    x = X.clone()
    x[at] = POLE
    model = double(net())
    assert head_readout(model, [(x, y)]).after < 1e-24
    N, D = model(x[at])
    assert (D.abs() < 1e-10 * N.abs()).all()


def test_complex_targets_need_a_complex_head():
    y = (1 + 0.5j) * Y + 1j
    trunk = double(net()).trunk
    model = nn.Sequential(trunk, ProjectiveHead(16, 1, dtype=torch.float64))
    before = state(model)
    with pytest.raises(TrainingError, match=r"the head must be complex.*got torch\.float64"):
        head_readout(model, [(X, y)])
    assert same(model, before)
    model = nn.Sequential(trunk, ProjectiveHead(16, 1, dtype=torch.complex128))
    assert head_readout(model, [(X, y)]).after < 1e-24


def test_a_row_may_hold_several_answers():
    model = nn.Sequential(nn.Unflatten(-1, (2, 1)), double(net()))
    x = torch.cat([X, -X], 1)
    y = torch.stack([Y, torch.sin(-2 * X) / (-X - POLE)], 1)
    assert head_readout(model, [(x, y)]).after < 1e-24


# --- what it leaves alone


@pytest.mark.parametrize("dtype", [None, torch.float64], ids=["as it is", "float64"])
def test_a_head_that_cannot_be_bettered_stays_bit_by_bit(dtype):
    model = net()
    with torch.no_grad():
        N, D = model(X)
        answers = N.double() / D.double()  # of the model itself: its error is 0
    before = state(model)
    result = head_readout(model, [(X, answers)], [(X, answers)], dtype=dtype)
    assert result.before <= 1e-31
    assert not result.kept
    assert same(model, before)


def test_an_error_on_the_way_leaves_the_model_as_it_was():
    model = net()
    before = state(model)
    with pytest.raises(DataError, match="every output needs a finite target"):
        head_readout(model, [(X, torch.full_like(X, math.inf))], dtype=torch.float64)
    assert same(model, before)


def test_size_and_direction_of_the_tuples_stay():
    model = double(net())
    with torch.no_grad():
        for parameter in model.head.parameters():
            parameter.mul_(-50)
        before = torch.cat(model(X))
        assert head_readout(model, [(X, Y)]).kept
        after = torch.cat(model(X))
    assert after.square().mean().item() == pytest.approx(before.square().mean().item())
    assert (before * after).sum() > 0


def test_modes_and_hooks_are_as_before():
    model = StrictModule(nn.Sequential(nn.Linear(1, 8), nn.Dropout(0.5), ProjectiveHead(8, 1)))
    model.train()
    model.model[1].eval()
    head_readout(model, [(X.float(), Y)])
    assert model.training
    assert not model.model[1].training
    assert not model.model[2]._forward_pre_hooks


# --- which rows


def test_a_shuffled_loader_gives_the_same_head():
    first, second = double(net()), double(net())
    noisy = Y * (1 + 0.05 * torch.randn_like(Y))
    plain = head_readout(first, loader(y=noisy))
    shuffled = head_readout(second, loader(y=noisy, shuffle=True))
    assert (shuffled.kept, shuffled.rho) == (plain.kept, plain.rho)
    assert shuffled.after == pytest.approx(plain.after, rel=1e-6)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def test_noise_asks_for_a_larger_penalty():
    noisy = Y * (1 + 0.05 * torch.randn_like(Y))
    clean = head_readout(double(net()), loader()).rho
    assert head_readout(double(net()), loader(y=noisy)).rho > 1e4 * clean


# --- the trainer


def trainer(model, *, callbacks=(), val_loader=None, **options):
    return SCMTrainer(
        model,
        torch.optim.Adam(model.parameters(), lr=1e-3),
        FIT,
        loader(X.float(), Y.float()),
        val_loader,
        TrainingConfig(max_epochs=2, progress=False, seed=0, **options),
        callbacks=callbacks,
    )


def test_the_callback_is_the_readout_after_the_last_epoch():
    plain, ended, callback = net(), net(), SpectralReadoutCallback(dtype=torch.float64)
    by_hand = trainer(plain, target_scale=2.0)
    history = by_hand.fit()
    other = trainer(ended, callbacks=[callback], target_scale=2.0)
    assert [row["train_loss"] for row in other.fit()] == [row["train_loss"] for row in history]
    assert callback.result == by_hand.readout(dtype=torch.float64)
    assert callback.result.kept
    assert same(ended, state(plain))


def test_callbacks_are_called_once_and_need_no_method():
    class Counter:
        calls = 0

        def on_fit_end(self, trainer):
            assert len(trainer.history) == 2
            self.calls += 1

    counter = Counter()
    trainer(net(), callbacks=[object(), counter]).fit()
    assert counter.calls == 1


def test_the_trainer_holds_out_its_validation_rows():
    held = (X[::7].float(), Y[::7].float())
    model = net()
    fitted = trainer(model, val_loader=[held], readout=None, target_scale=1.0)
    assert fitted.readout().after == pytest.approx(error(model, *held), rel=1e-4, abs=1e-15)


# --- bad input


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = ProjectiveHead(1, 1)

    def forward(self, x):
        self.head(x)
        return self.head(x)


class Single(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = ProjectiveHead(1, 1)

    def forward(self, x):
        return self.head(x)[0]


ROWS = [(X.float(), Y.float())]
BAD_INPUT = {
    "no head": (nn.Linear(1, 2), ROWS, {}, TrainingError, "exactly one ProjectiveHead.*got 0"),
    "two heads": (
        nn.ModuleList([ProjectiveHead(1, 1), ProjectiveHead(1, 1)]),
        ROWS,
        {},
        TrainingError,
        "exactly one ProjectiveHead.*got 2",
    ),
    "used twice": (Twice(), ROWS, {}, TrainingError, "use its ProjectiveHead once, got 2 times"),
    "no pair": (Single(), ROWS, {}, TrainingError, r"must return a pair \(N, D\), got Tensor"),
    "features": (
        ProjectiveHead(1, 1),
        [(torch.full_like(X, math.nan).float(), Y)],
        {},
        DataError,
        "features of the trunk must be finite, got otherwise in 120 of the 120 rows",
    ),
    "shapes": (ProjectiveHead(1, 2), ROWS, {}, ShapeError, "targets y of a batch must have"),
    "iterator": (ProjectiveHead(1, 1), iter(ROWS), {}, DataError, "anew each time"),
    "one row": (
        ProjectiveHead(1, 1),
        [(X[:1].float(), Y[:1])],
        {},
        DataError,
        "needed|rows must be held out",
    ),
    "dtype": (ProjectiveHead(1, 1), ROWS, {"dtype": torch.float16}, RangeError, "dtype must be"),
    "scale": (ProjectiveHead(1, 1), ROWS, {"scale": 0}, RangeError, "scale must be"),
}


@pytest.mark.parametrize(
    ("model", "rows", "options", "kind", "message"), BAD_INPUT.values(), ids=BAD_INPUT
)
def test_bad_input_is_named(model, rows, options, kind, message):
    with pytest.raises(kind, match=message):
        head_readout(model, rows, **options)
