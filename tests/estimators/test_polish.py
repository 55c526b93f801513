import math

import numpy as np
import pytest
import torch

from zeroproof import ProjectiveRegressor
from zeroproof.estimators.closed_form import objective, polished
from zeroproof.estimators.model import ReadoutModel
from zeroproof.estimators.options import Request, Rows
from zeroproof.layers.features import fit_column, graded_features

X = torch.linspace(-1, 1, 80, dtype=torch.float64)[:, None]
Y = (1 + X) / (X - 1.3)
NOISE = 0.05 * torch.randn(80, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
ROWS = Rows(X, Y + NOISE, torch.ones(80, dtype=torch.float64))
REQUEST = Request("polynomial", None, False, "auto", None, 1.0, 0.0, "auto", 1.0, 0)
LINE = graded_features([fit_column(X[:, 0], 0)], 1)


def vector(*values):
    return torch.tensor(values, dtype=torch.float64)


def readout(target="y"):
    a, b = vector(1.0, 1.0)[:, None], vector(-1.3, 1.2)[:, None]
    return ReadoutModel(LINE, LINE, a, b, target, 1.0)


@pytest.mark.parametrize("power", [0.0, 1.0])
def test_the_polish_lowers_its_objective_to_a_stationary_point(power):
    model = readout()
    request = REQUEST._replace(weight_power=power)
    after = polished(model, ROWS, request)
    best = objective(after, ROWS, request)
    assert best < objective(model, ROWS, request)
    assert polished(after, ROWS, request) is not after
    assert objective(polished(after, ROWS, request), ROWS, request) == pytest.approx(best, rel=1e-9)


@pytest.mark.parametrize("power", [0.0, 0.7])
def test_the_objective_is_the_stated_sum(power):
    weight = torch.rand(80, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    y = ROWS.y.clone()
    y[3], y[5] = math.inf, math.nan
    N, D = readout().tuples(X)
    terms = weight[:, None] * (N / D - y) ** 2 / (1 + y**2) ** power
    exact = sum(float(t) for i, t in enumerate(terms[:, 0]) if i not in {3, 5})
    request = REQUEST._replace(weight_power=power)
    assert objective(readout(), Rows(X, y, weight), request) == pytest.approx(exact, rel=1e-12)


def test_an_infinite_answer_is_infinitely_wrong():
    zero = readout()._replace(b=torch.zeros(2, 1, dtype=torch.float64))
    assert objective(zero, ROWS, REQUEST) == math.inf


@pytest.mark.parametrize("target", ["square", "log"])
def test_transformed_targets_are_not_polished(target):
    model = readout(target)
    assert polished(model, ROWS, REQUEST) is model


def test_a_start_with_a_pole_in_a_row_is_left_alone():
    model = readout()._replace(b=torch.ones(2, 1, dtype=torch.float64))
    assert polished(model, ROWS, REQUEST) is model


def test_separate_denominators_are_polished_apart():
    rows = ROWS._replace(y=torch.cat([ROWS.y, 2 / (X + 1.5) + NOISE], 1))
    b = torch.stack([vector(-1.3, 1.0), vector(1.5, 1.0)], 1)
    start = readout()._replace(a=torch.ones(2, 2, dtype=torch.float64), b=b)
    after = polished(start, rows, REQUEST)
    alone = polished(start._replace(a=start.a[:, :1], b=start.b[:, :1]), ROWS, REQUEST)
    got, own = (N / D for N, D in (after.tuples(X), alone.tuples(X)))
    torch.testing.assert_close(got[:, :1], own)


def test_more_features_than_rows_do_no_harm():
    y = np.arange(6.0)
    x = np.linspace(-1, 1, 6)[:, None] ** [1, 2, 3]
    assert np.isfinite(ProjectiveRegressor(time_budget=0.3).fit(x, y).predict(x)).all()
