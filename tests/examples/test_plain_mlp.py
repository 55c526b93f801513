import itertools
import time

import pytest
import torch

from examples.plain_mlp import fit_plain_mlp


@pytest.fixture
def clock(monkeypatch):
    """Let a reading of the clock take a hundredth of a second: training then ends by its steps."""
    ticks = itertools.count()
    monkeypatch.setattr(time, "perf_counter", lambda: next(ticks) / 100)


def test_it_learns_the_finite_rows_in_the_units_of_the_targets(clock):
    x = torch.linspace(-1, 1, 100, dtype=torch.float64)[:, None]
    y = 500 + 10 * x
    y[3] = torch.inf
    held_out = torch.arange(100) % 5 == 0
    predict = fit_plain_mlp(x, y, held_out, seconds=2.0, hidden=8)
    finite = torch.isfinite(y)
    assert predict(x).dtype == torch.float64
    assert (predict(x) - y)[finite].abs().max() < 3


def test_the_last_weights_stay_where_there_was_no_time_to_look(clock):
    x = torch.linspace(-1, 1, 20)[:, None]
    predict = fit_plain_mlp(x, x.double(), torch.arange(20) < 4, seconds=0.05, hidden=4)
    assert predict(x).shape == (20, 1)
