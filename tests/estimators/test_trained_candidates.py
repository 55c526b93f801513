"""The plain network beside the projective one: on regular data it must cost nothing to ask."""

import math

import pytest
import torch
from torch import nn

from zeroproof.data import numbers, read_table
from zeroproof.estimators import FitOptions, fit_table
from zeroproof.estimators.trained import TrainedCandidate, choose
from zeroproof.export import predict_rows

STEPS = 400
F64 = {"dtype": torch.float64}


@pytest.fixture(autouse=True)
def _one_thread():
    """Train the baseline as the fit trains: small steps on two threads crawl on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def hahn1():
    table = read_table("examples/data/hahn1.csv")
    return numbers(table, ["temperature_kelvin"]), numbers(table, ["thermal_expansion"])


def wave(n, offset=0.0, move=0.0):
    x, noise = 2 * torch.rand(n, 1, **F64) - 1, torch.randn(n, 1, **F64)
    return x + move, offset + torch.sin(5 * x) + 0.1 * noise


def two_units():
    x, noise = 2 * torch.rand(400, 1, **F64) - 1, torch.randn(400, 2, **F64)
    clean = torch.cat([torch.sin(5 * x), torch.cos(3 * x)], dim=1)
    return x, (clean + 0.1 * noise) * torch.tensor([1e6, 1e-3], **F64)


def growth():
    x, noise = 2 * torch.rand(400, 1, **F64) - 1, torch.randn(400, 1, **F64)
    return x, torch.exp(3 * x) * (1 + 0.02 * noise)


def several_inputs():
    x, noise = 2 * torch.rand(600, 3, **F64) - 1, torch.randn(600, 1, **F64)
    return x, x[:, :1] * x[:, 1:2] + torch.sin(3 * x[:, 2:]) + 0.1 * noise


REGULAR = {
    "hahn1": hahn1,
    "noisy sine": lambda: wave(400),
    "1000 ± 1": lambda: wave(400, offset=1000.0),
    "time stamps": lambda: wave(400, move=1.7e9),
    "two units": two_units,
    "growth": growth,
    "three inputs": several_inputs,
}


def plain_mlp(X, y, held_out, steps, batch_size=512, rate=2e-2):
    """Return held-out predictions of the usual network: same trunk, steps and rows."""
    torch.manual_seed(0)
    X_mean, X_std = X[~held_out].mean(0), X[~held_out].std(0)
    y_mean, y_std = y[~held_out].mean(0), y[~held_out].std(0)
    X, z = ((X - X_mean) / X_std).float(), ((y - y_mean) / y_std).float()
    layers = [nn.Linear(X.shape[1], 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU()]
    net = nn.Sequential(*layers, nn.Linear(64, y.shape[1]))
    optimizer = torch.optim.Adam(net.parameters(), lr=rate, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    best, kept = math.inf, torch.empty(0)
    for step in range(1, steps + 1):
        rows = torch.nonzero(~held_out).flatten()
        rows = rows[torch.randperm(len(rows))[:batch_size]]
        loss = nn.functional.mse_loss(net(X[rows]), z[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 25 == 0:
            with torch.no_grad():
                answer = net(X[held_out])
            error = float(nn.functional.mse_loss(answer, z[held_out]))
            if error < best:
                best, kept = error, answer.double() * y_std + y_mean
    return kept


@pytest.mark.parametrize("name", REGULAR)
def test_on_regular_data_it_is_no_worse_than_a_plain_network_by_more_than_a_fifth(name):
    X, y = REGULAR[name]()
    names = tuple(f"x{i}" for i in range(X.shape[1])), tuple(f"y{i}" for i in range(y.shape[1]))
    fitted = fit_table(X, y, *names, FitOptions(steps=STEPS, progress=False))
    ours, bottom, _ = predict_rows(fitted.run, X[fitted.held_out])
    usual = plain_mlp(X, y, fitted.held_out, STEPS)
    assert not bottom.any()
    error, baseline = (
        (answer - y[fitted.held_out]).square().mean(0).sqrt() for answer in (ours, usual)
    )
    assert (baseline < 0.7 * y.std(0)).all()  # a baseline that learned something
    assert (error <= 1.2 * baseline).all()
    assert (
        "no pole near the rows and answers as a plain model would"
        in fitted.run.facts["diagnosis"]["verdict"]
    )


@pytest.mark.parametrize(
    ("plain", "projective", "light_tailed", "kept"),
    [
        (0.10, 0.10, True, "plain"),
        (0.10, 0.091, True, "plain"),
        (0.10, 0.08, True, "projective"),
        (0.99, 1.00, True, "plain"),
        (0.10, 0.10, False, "projective"),
        (0.10, 0.119, False, "projective"),
        (0.10, 0.13, False, "plain"),
        (0.80, 5.00, False, "projective"),
        (0.10, math.inf, False, "plain"),
    ],
)
def test_which_is_kept(plain, projective, light_tailed, kept):
    candidates = {
        name: TrainedCandidate(None, None, None, unexplained)  # pyright: ignore[reportArgumentType]
        for name, unexplained in (("plain", plain), ("projective", projective))
    }
    assert choose(candidates, light_tailed=light_tailed) == kept


def test_where_a_target_is_singular_there_is_no_plain_network():
    x = torch.linspace(-1, 1, 41, **F64)[:, None]
    y = torch.sin(x)
    y[3] = math.nan
    fitted = fit_table(x, y, ("x",), ("y",), FitOptions(hidden=(8,), steps=30, progress=False))
    assert fitted.run.facts["kept"] == "projective"
    assert list(fitted.run.facts["unexplained"]) == ["projective"]


def test_a_kept_plain_network_has_denominators_of_1():
    X, y = wave(100)
    fitted = fit_table(X, y, ("x",), ("y",), FitOptions(hidden=(8,), steps=50, progress=False))
    assert fitted.run.facts["kept"] == "plain"
    _, D = fitted.run.model(X)
    assert (D == 1).all()
    assert fitted.run.facts["diagnosis"]["nearest_pole"] is None
