from functools import partial

import numpy as np
import pytest
from numpy.polynomial import chebyshev, polynomial

from zeroproof.solve.robust import heavy_tailed, trimmed_rows


def poles(x):
    return np.exp(x) / (x - 0.2) + 0.3 / (x + 0.5)


def line(x, most=8):
    return [partial(lambda d, X: chebyshev.chebvander(X[:, 0], d), d) for d in range(most + 1)]


def planes(X):
    return [
        lambda X: np.c_[np.ones(len(X)), X],
        lambda X: polynomial.polyvander3d(*X.T, [1, 1, 1]),
    ]


def spoilt(y, rng, share=0.05):
    hit = rng.random(len(y)) < share
    y = y.copy()
    y[hit] += 20 * np.median(np.abs(y)) * (3 + rng.random(hit.sum()))
    return y, hit


@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_outliers_are_found_and_good_rows_kept(noise):
    for seed in range(5):
        rng = np.random.default_rng(seed)
        x = rng.uniform(-1, 1, 300)
        y, hit = spoilt(poles(x) * (1 + noise * rng.normal(size=300)), rng)
        kept = trimmed_rows(x[:, None], line(x), y)
        assert kept[hit].mean() < 0.3
        assert kept[~hit].mean() > 0.98


@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_outliers_of_several_columns_are_found(noise):
    for seed in range(3):
        rng = np.random.default_rng(seed)
        X = rng.uniform(1, 3, (400, 3))
        law = X[:, 0] * X[:, 1] / (X[:, 0] - X[:, 2])
        y, hit = spoilt(law * (1 + noise * rng.normal(size=400)), rng)
        kept = trimmed_rows(X, planes(X), y)
        assert kept[hit].mean() < 0.2
        assert kept[~hit].mean() > 0.98


def test_rows_without_outliers_are_kept():
    for seed in range(5):
        rng = np.random.default_rng(seed)
        x = rng.uniform(-1, 1, 200)
        for y in (poles(x), 1 + x + 0.1 * rng.normal(size=200), x + 0.1 * rng.standard_t(3, 200)):
            assert trimmed_rows(x[:, None], line(x), y).all()


def test_rows_that_lie_together_are_no_outliers():
    rng = np.random.default_rng(0)
    x = np.sort(rng.uniform(-1, 1, 200))
    y = np.where(x > 0.9, 30.0, x + 0.01 * rng.normal(size=200))
    assert trimmed_rows(x[:, None], line(x, 1), y).all()


def test_tails_are_heavy_where_some_errors_stand_out():
    rng = np.random.default_rng(0)
    error = np.abs(rng.normal(size=300))
    assert not heavy_tailed(error)
    assert heavy_tailed(np.r_[error, 50])
    assert not heavy_tailed(np.r_[1e-9 * error, 1e-7])


def test_too_few_rows_have_no_outliers():
    x = np.array([0.0, 1.0])
    assert trimmed_rows(x[:, None], line(x), np.array([1.0, 5.0])).all()
