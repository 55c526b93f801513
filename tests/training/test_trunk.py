import pytest
import torch
from torch import nn

from zeroproof.errors import DataError, RangeError, ShapeError, TrainingError
from zeroproof.projective import chordal_distance
from zeroproof.solve import spectral_readout
from zeroproof.training import default_trunk, fit_trunk
from zeroproof.training.trunk import METHODS, resolved_head

X = torch.rand(500, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2 - 1
Y_N = 1 + X @ torch.tensor([0.5, -0.2, 0.7]).double()
Y_D = X @ torch.tensor([0.6, 0.6, -0.5]).double() - 0.2
CURVED = X[:, 0] * X[:, 1] + X[:, 2]  # beyond a small trunk's random features
HELD = torch.arange(500) % 4 == 1
QUICK = {"steps": 60, "batch_size": 200}

methods = pytest.mark.parametrize("method", METHODS)


def trunk(width=12, **options):
    return default_trunk(3, width=width, depth=1, **options)


def features(module, x=X):
    with torch.no_grad():
        h = module.double()(x)
    return torch.cat([h, torch.ones_like(h[:, :1])], 1)


def chordal(fit, rows, Y_n=Y_N, Y_d=Y_D):
    H = features(fit.trunk)[rows]
    return chordal_distance(H @ fit.readout.a, H @ fit.readout.b, Y_n[rows], Y_d[rows]).square()


# --- the training


@pytest.mark.parametrize(("method", "steps"), [("joint", 1000), ("varpro", 300), ("hybrid", 300)])
def test_a_trained_trunk_is_better_than_its_start(method, steps):
    small = {"width": 8, "depth": 2}
    untrained = fit_trunk(default_trunk(3, **small), X, Y_N, CURVED, steps=1, learning_rate=1e-12)
    fit = fit_trunk(default_trunk(3, **small), X, Y_N, CURVED, method=method, steps=steps)
    assert fit.error < untrained.error / 4
    assert (fit.method, fit.steps) == (method, steps)


def test_varpro_solves_a_ridge_that_joint_training_only_nears():
    joint = fit_trunk(trunk(), X, Y_N, Y_D, method="joint", steps=400)
    varpro = fit_trunk(trunk(), X, Y_N, Y_D, method="varpro", steps=400)
    assert varpro.error < joint.error / 10


@methods
def test_the_head_is_the_readout_of_the_trained_features(method):
    module = trunk()
    fit = fit_trunk(module, X, Y_N, Y_D, method=method, held=HELD, **QUICK)
    assert fit.trunk is module
    assert {p.dtype for p in module.parameters()} == {torch.float64}
    again = spectral_readout(features(module), Y_N, Y_D, rho=fit.readout.rho)
    torch.testing.assert_close(fit.readout.a, again.a)
    torch.testing.assert_close(fit.readout.b, again.b)
    train = spectral_readout(features(module)[~HELD], Y_N[~HELD], Y_D[~HELD], rho=fit.readout.rho)
    held = chordal(fit._replace(readout=train), HELD).mean().item()
    assert 0.2 < fit.error / held < 5  # choose_rho shares its row weights along the path


@methods
def test_the_same_seed_gives_the_same_answer_and_leaves_the_stream(method):
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    first, second, other = (
        fit_trunk(trunk(), X, Y_N, Y_D, method=method, seed=seed, **QUICK) for seed in (1, 1, 2)
    )
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(first.readout.a, second.readout.a)
    assert not torch.equal(first.readout.a, other.readout.a)


def test_held_out_rows_are_not_trained_on():
    spoilt = Y_N.clone()
    spoilt[HELD] = 0
    first = fit_trunk(trunk(), X, Y_N, Y_D, held=HELD, **QUICK).trunk
    second = fit_trunk(trunk(), X, spoilt, Y_D, held=HELD.nonzero()[:, 0], **QUICK).trunk
    assert all(
        torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True)
    )


@methods
def test_rows_without_weight_do_not_count(method):
    weight = torch.ones(500, dtype=torch.float64)
    weight[::3] = 0
    spoilt = torch.where(weight > 0, Y_N, -3.0)
    fits = [
        fit_trunk(trunk(), X, Y, Y_D, method=method, weight=weight, held=HELD, **QUICK)
        for Y in (Y_N, spoilt)
    ]
    torch.testing.assert_close(fits[0].readout.a, fits[1].readout.a)


def test_a_time_budget_ends_the_training_but_not_the_readout():
    fit = fit_trunk(trunk(), X, Y_N, Y_D, time_budget=1e-9)
    assert fit.steps == 0
    assert fit.error < 1


def test_a_trunk_without_parameters_gets_its_readout():
    fit = fit_trunk(nn.Tanh(), X, torch.tanh(X[:, 0]), torch.tanh(X[:, 1]), method="varpro")
    assert fit.steps == 0
    assert fit.error < 1e-24


@methods
def test_modules_keep_their_mode(method):
    module = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Dropout(0.1).eval())
    fit_trunk(module, X, Y_N, Y_D, method=method, **QUICK)
    assert module.training
    assert not module[2].training


# --- kinds of targets


@pytest.mark.parametrize(
    ("method", "outputs", "is_complex"),
    [
        ("joint", 2, False),
        ("joint", 1, True),
        ("varpro", 1, False),
        ("varpro", 2, True),
        ("hybrid", 2, False),
        ("hybrid", 1, True),
    ],
)
def test_all_kinds_of_targets_are_fitted(method, outputs, is_complex):
    factor = torch.tensor([1, 1 + 0.5j] if is_complex else [1, 2])[:outputs]
    Y_n = Y_N[:, None] * factor
    fit = fit_trunk(trunk(8), X, Y_n, Y_D[:, None], method=method, steps=150)
    assert fit.readout.a.shape == (9, outputs)
    assert fit.readout.b.shape == (9, 1)
    assert fit.error < 1e-3


KINDS = {
    "one output": (1, torch.float64),
    "two outputs": (2, torch.float64),
    "complex": (1, torch.complex128),
    "two complex": (2, torch.complex128),
}


@pytest.mark.parametrize(("m", "dtype"), KINDS.values(), ids=KINDS)
def test_repeated_steps_of_the_head_end_at_the_readout(m, dtype):
    torch.manual_seed(0)
    H = features(trunk(5))
    Y_n = (Y_N[:, None] + 0.1 * torch.randn(500, m)).to(dtype)
    if dtype.is_complex:
        Y_n = Y_n * (1 + 0.5j)
    Y_d = Y_D[:, None].expand(-1, m)
    size = (Y_n.abs().square() + Y_d.square()).sqrt()
    rows = (H.to(dtype), Y_n / size, (Y_d / size).to(dtype), torch.ones(500, 1).double())
    best = spectral_readout(H, Y_n, Y_d, rho=1e-14, sweeps=40)
    a, b = best.a + 0.05 * torch.randn_like(best.a), best.b + 0.05 * torch.randn_like(best.b)
    for _ in range(60):
        a, b = resolved_head((a, b), *rows, rho=1e-14)
    near = chordal_distance(H.to(dtype) @ a, H.to(dtype) @ b, *rows[1:3]).square().mean().item()
    assert near == pytest.approx(best.objective, rel=2e-2)


# --- the ready-made trunk


def test_the_default_trunk_repeats_itself_and_leaves_the_stream():
    before = torch.random.get_rng_state()
    first, second = default_trunk(2, seed=3), default_trunk(2, seed=3)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(
        torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True)
    )
    assert [type(step) for step in default_trunk(2, depth=1, activation="silu")] == [
        nn.Linear,
        nn.SiLU,
    ]


# --- bad input

NAN = torch.full_like(X, torch.nan)
BAD_INPUT = {
    "method": ({"method": "sgd"}, RangeError, "method must be one of"),
    "steps": ({"steps": 0}, RangeError, "steps must be"),
    "budget": ({"time_budget": 0}, RangeError, "time_budget must be"),
    "rate": ({"learning_rate": -1}, RangeError, "learning_rate must be"),
    "weight": ({"weight": -torch.ones(500)}, RangeError, "weight must be at least 0"),
    "weights": ({"weight": torch.ones(3)}, ShapeError, r"weight must be \(n,\)"),
    "X": ({"X": X[:, 0]}, ShapeError, r"X must be \(n, d\)"),
    "rows": ({"X": X[:9]}, ShapeError, r"X must be \(n, d\)"),
    "D": ({"Y_d": Y_D[:9]}, ShapeError, "Y_n and Y_d must have equal shapes"),
    "nan": ({"X": NAN}, DataError, "X must be finite, got otherwise in row 0"),
    "held": ({"held": torch.ones(500, dtype=torch.bool)}, DataError, "rows must remain both"),
    "flat": ({"trunk": nn.Flatten(0)}, ShapeError, r"\(2, 3\) to features \(2, k\), got \(6,\)"),
    "no tensor": ({"trunk": nn.LSTM(3, 4)}, ShapeError, "features .* got tuple"),
    "one row": ({"trunk": nn.Unflatten(1, (1, 3))}, ShapeError, r"got \(2, 1, 3\)"),
    "infinite": ({"trunk": nn.Threshold(0.5, torch.inf)}, TrainingError, "finite features"),
}


@pytest.mark.parametrize(("change", "kind", "message"), BAD_INPUT.values(), ids=BAD_INPUT)
def test_bad_input_is_named(change, kind, message):
    arguments = {"trunk": trunk(), "X": X, "Y_n": Y_N, "Y_d": Y_D, "steps": 1, **change}
    with pytest.raises(kind, match=message):
        fit_trunk(**arguments)
