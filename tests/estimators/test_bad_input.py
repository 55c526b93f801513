"""Whatever comes in, a fit answers, or one sentence says what must hold."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from zeroproof import ProjectiveRegressor
from zeroproof.errors import DataError, RangeError, ShapeError, ZeroProofError

RNG = np.random.default_rng(0)
x = RNG.uniform(-1, 1, (40, 1))
y = 1 / (x[:, 0] - 0.2)


class Same(nn.Module):
    def forward(self, rows):
        return torch.ones(len(rows), 3)


@pytest.mark.parametrize(
    ("X", "targets", "weight", "error"),
    [
        (x, y * 1e160, None, DataError),
        (x, y * 1e-300, None, DataError),
        (x * 1e160, y, None, DataError),
        (x * 1e-160, y, None, DataError),
        (x, [[1, 2], [3]] * 20, None, DataError),
        (x, ["a"] * 40, None, DataError),
        (x, {1: 2}, None, DataError),
        (x, np.array(["2020-01-01"] * 40, "M8[D]"), None, DataError),
        (x, np.ma.masked_array(y, y > 2), None, DataError),
        (x, np.full(40, 2**62) + np.arange(40), None, DataError),
        (x, y * np.nan, None, DataError),
        (x, np.r_[1, np.full(39, np.nan)], None, DataError),
        (x + 1j, y, None, DataError),
        (x[:, 0], y, None, ShapeError),
        (x[:, :, None], y, None, ShapeError),
        ([["a"]] * 40, y, None, DataError),
        (np.zeros((0, 1)), [], None, DataError),
        (np.zeros((9, 1)), np.arange(9.0), None, DataError),
        (x, y, [np.inf] * 40, DataError),
        (x, y, ["a"] * 40, DataError),
        (x, y, [1j] * 40, DataError),
        (x, y, [1, *[0] * 39], DataError),
    ],
)
def test_one_sentence_says_what_must_hold(X, targets, weight, error):
    with pytest.raises(error) as raised:
        ProjectiveRegressor().fit(X, targets, weight)
    assert len(str(raised.value)) < 250


def test_a_module_that_tells_nothing_is_refused():
    with pytest.raises(DataError, match="features must differ between rows"):
        ProjectiveRegressor(features=Same()).fit(x, y)


def test_a_scale_of_another_size_is_refused():
    with pytest.raises(RangeError, match="scale must be of the size of y"):
        ProjectiveRegressor(scale=1e-300).fit(x, y)


@pytest.mark.parametrize("size", [1e-160, 1e-90, 1e90])
def test_sizes_that_float64_holds_are_fitted(size):
    model = ProjectiveRegressor().fit(x, y * size)
    assert np.abs(model.predict(x) / size / y - 1).max() < 1e-10
    if size > 1e-100:
        assert np.abs(ProjectiveRegressor().fit(x * size, y).predict(x * size) / y - 1).max() < 1e-8


def inputs(rng, n, d):
    X = [
        lambda: rng.uniform(-1, 1, (n, d)),
        lambda: rng.integers(0, 3, (n, d)).astype(float),
        lambda: np.logspace(-6, 6, n * d).reshape(n, d),
        lambda: np.r_[rng.uniform(0, 1, (n - 1, d)), np.full((1, d), 1e4)],
        lambda: rng.choice([0.0, 1e6], (n, d)) + rng.normal(size=(n, d)),
        lambda: 1e-80 * rng.normal(size=(n, d)),
        lambda: 1e9 + rng.normal(size=(n, d)),
    ]
    return X[rng.integers(len(X))]()


def targets(rng, X):
    n = len(X)
    with np.errstate(all="ignore"):
        y = [
            lambda: rng.normal(size=n),
            lambda: np.full(n, 3.0),
            lambda: np.zeros(n),
            lambda: 1 / (X[:, 0] - X[0, 0]),
            lambda: 1e80 * np.exp(rng.normal(size=n)),
            lambda: rng.standard_cauchy(n),
            lambda: rng.integers(0, 2, n).astype(float),
            lambda: np.where(rng.random(n) < 0.5, np.nan, rng.normal(size=n)),
        ]
        return y[rng.integers(len(y))]()


@pytest.mark.parametrize("seed", range(30))
def test_odd_rows_are_fitted_or_refused(seed):
    rng = np.random.default_rng(seed)
    for n in rng.integers(1, 13, 3):
        X = inputs(rng, n, rng.integers(1, 4))
        weight = rng.integers(0, 3, n) if rng.random() < 0.3 else None
        model = ProjectiveRegressor(time_budget=0.3, random_state=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                model.fit(X, targets(rng, X), weight)
            except ZeroProofError:
                continue
            assert model.predict(X).shape == (n,)
            assert model.summary()
