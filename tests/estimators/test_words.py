import math

import numpy as np
import pandas as pd
import pytest
from torch import nn

from zeroproof import ProjectiveRegressor
from zeroproof.errors import RangeError

LINE = np.linspace(-1, 1, 120)[:, None]
x = LINE[:, 0]
PLANE = np.random.default_rng(0).uniform(0.2, 1.2, (200, 2))


def fitted(X, y, **options):
    return ProjectiveRegressor(**{"time_budget": 1.0, **options}).fit(X, y)


@pytest.mark.parametrize(
    ("model", "parts"),
    [
        (
            lambda: fitted(pd.DataFrame({"speed": x}), 3 / (x - 0.25)),
            ["function of degrees (0, 1)", "of speed", "0.25 ± ", "(residue 3 ± ", "⊥ below"],
        ),
        (lambda: fitted(LINE, x**2, degrees=(2, 0)), ["degrees (2, 0)", "constant", "plain model"]),
        (lambda: fitted(LINE, np.exp(x)), ["No pole between the smallest and the largest input"]),
        (lambda: fitted(LINE, np.c_[x, 1 / (x - 0.25)]), ["own poles: poles(output=0)"]),
        (
            lambda: fitted(LINE, np.random.default_rng(0).normal(size=120), degrees=(1, 1)),
            ["Polished by least squares"],
        ),
        (
            lambda: fitted(PLANE, PLANE[:, 0] / (PLANE[:, 1] - 0.7)),
            ["y = N / D", "total degree (1, 1)", "in x0, x1"],
        ),
        (lambda: fitted(PLANE, 1 / np.hypot(*PLANE.T), time_budget=3.0), ["y² = N / D"]),
        (lambda: fitted(PLANE, PLANE[:, 0], features="random"), ["random tanh waves"]),
        (lambda: fitted(PLANE, PLANE[:, 0], features="fourier"), ["random cosines"]),
        (
            lambda: fitted(PLANE, PLANE, features="chebyshev", degrees=1, shared_denominator=False),
            ["of degree (1, 1) in each column", "one denominator for each output"],
        ),
        (
            lambda: fitted(PLANE, PLANE[:, 0], features=nn.Linear(2, 3)),
            ["y = N / D with 4 and 4 weights of the features of a module"],
        ),
        (lambda: fitted(LINE, 1 / (x - 0.3 - 0.1j)), ["No pole between"]),
    ],
    ids=[
        "line", "polynomial", "exponential", "outputs", "noise", "linear", "root", "random",
        "fourier", "chebyshev", "module", "complex",
    ],
)  # fmt: skip
def test_a_summary_says_what_was_fitted_and_how_well(model, parts):
    said = model().summary()
    assert [part for part in parts if part not in said] == []
    assert "On rows held out: root mean square angle" in said


def test_many_poles_are_counted_rather_than_listed():
    said = fitted(LINE, np.tan(15 * x)).summary()
    assert said.count("residue") == 8
    assert "and 2 more" in said


def test_a_summary_names_what_else_served_alike():
    y = PLANE[:, 0] + 0.3 * np.random.default_rng(0).normal(size=200)
    model = fitted(PLANE, y)
    assert model.fitted_.fit.alternates
    assert "candidates that held-out rows cannot tell apart" in model.summary()


@pytest.mark.parametrize(
    ("X", "y"),
    [
        (LINE, np.where(abs(x) < 0.02, math.inf, 1 / x)),
        (LINE, np.c_[x, 1 / (x - 0.25)]),
        (PLANE, 1 / (PLANE[:, 1] - 0.7)),
    ],
    ids=["curve", "two curves", "parity"],
)
def test_a_plot_is_a_figure_of_data_and_fit(X, y):
    from matplotlib.figure import Figure

    model = fitted(X, y)
    given, kept = model.plot(X, y), model.plot()
    for figure in (given, kept):
        assert isinstance(figure, Figure)
        assert figure.axes
        assert any(axis.lines or axis.collections for axis in figure.axes)
    tensors = model.plot(X.tolist(), y.tolist())
    assert len(tensors.axes) == len(given.axes)


def test_a_plot_of_complex_targets_is_refused():
    with pytest.raises(RangeError, match="a picture needs real targets, got complex ones"):
        fitted(LINE, 1 / (x - 0.3 - 0.1j)).plot()


def test_a_summary_sets_the_fit_beside_plain_models():
    rng = np.random.default_rng(0)
    model = fitted(LINE, 2 + x + 0.2 * rng.normal(size=120))
    ours, *others = model.fit_.comparison
    assert ours.delivered
    assert not any(each.delivered for each in others)
    constant = next(each for each in others if each.name == "constant")
    assert constant.error == pytest.approx(1)
    assert ours.error < 0.6
    assert 0 < ours.spread < 0.1
    assert "Error on unseen rows, where the best constant has 1" in model.summary()
