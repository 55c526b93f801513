import numpy as np
import pytest

from zeroproof.solve.robust import heavy_tailed, trimmed_rows


def poles(x):
    return np.exp(x) / (x - 0.2) + 0.3 / (x + 0.5)


@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_outliers_are_found_and_good_rows_kept(noise):
    for seed in range(5):
        rng = np.random.default_rng(seed)
        x = rng.uniform(-1, 1, 300)
        y = poles(x) * (1 + noise * rng.normal(size=300))
        hit = rng.random(300) < 0.05
        y[hit] += 20 * np.median(np.abs(y)) * (3 + rng.random(hit.sum()))
        kept = trimmed_rows(x, y)
        assert kept[hit].mean() < 0.3
        assert kept[~hit].mean() > 0.97


def test_rows_without_outliers_are_kept():
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, 200)
    assert trimmed_rows(x, poles(x)).mean() > 0.95
    assert trimmed_rows(x, 1 + x + 0.1 * rng.normal(size=200)).mean() > 0.98


def test_tails_are_heavy_where_some_errors_stand_out():
    rng = np.random.default_rng(0)
    error = np.abs(rng.normal(size=300))
    assert not heavy_tailed(error)
    error[:10] = 50
    assert heavy_tailed(error)
    error[:100] = 50
    assert not heavy_tailed(error)


def test_too_few_rows_have_no_outliers():
    assert trimmed_rows(np.array([0.0, 1.0]), np.array([1.0, 5.0])).all()
