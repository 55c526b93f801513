import math

import numpy as np
import pytest
import torch

from zeroproof.layers.features import feature_matrix, fit_column, graded_features
from zeroproof.solve.space import Linear, Quotient, race_space, total_degree, values

RNG = np.random.default_rng(0)


def features(X, degree):
    rows = torch.from_numpy(X)
    columns = [fit_column(x, i) for i, x in enumerate(rows.T)]
    H = feature_matrix(graded_features(columns, degree), rows).numpy()
    return H, tuple(math.comb(X.shape[1] + k, k) for k in range(degree + 1))


def raced(X, y, degree=2):
    return race_space(X, *features(X, degree), y.reshape(len(X), -1), np.ones(len(X)))


def test_a_plane_is_linear_and_noise_a_constant():
    X = RNG.uniform(-1, 1, (120, 4))
    y = 2 + X @ [1, -2, 0.5, 3] + 0.3 * RNG.normal(size=120)
    race = raced(X, y)
    assert race.entry.name in {"linear", "ridge"}
    assert raced(X, RNG.normal(size=120)).entry.name == "constant"


def test_squares_and_products_are_seen():
    X = RNG.uniform(-1, 1, (150, 3))
    y = X[:, 0] * X[:, 1] + X[:, 2] ** 2 + 0.05 * RNG.normal(size=150)
    assert raced(X, y).entry.name == "ridge with squares and products"


def test_a_noisy_pole_is_a_rational_function():
    X = RNG.uniform(-1, 1, (300, 2))
    y = (1 + X[:, 0]) / (X[:, 1] - 0.3) * (1 + 0.01 * RNG.normal(size=300))
    race = raced(X, y)
    assert race.entry.name.startswith("rational function")
    assert race.noise == "relative"
    assert race.entry.price == 3.0


def test_more_columns_than_rows_are_a_ridge_or_a_constant():
    X = RNG.normal(size=(20, 200))
    y = X[:, 0] + 0.1 * RNG.normal(size=20)
    H = np.c_[np.ones(20), X]
    race = race_space(X, H, (1, 201), y[:, None], np.ones(20))
    assert race.entry.name in {"ridge", "constant"}
    assert np.isfinite(values(H, race.entry.fit)).all()


def test_outputs_share_a_denominator():
    X = RNG.uniform(-1, 1, (200, 2))
    D = X[:, 1] - 0.3
    race = raced(X, np.c_[1 / D, X[:, 0] / D])
    assert values(features(X, 2)[0], race.entry.fit).shape == (200, 2)
    assert race.entry.name.startswith("rational function of total degrees")


@pytest.mark.parametrize("degree", [1, 2])
def test_a_law_is_told_by_unseen_rows(degree):
    X = RNG.uniform(0.5, 2, (400, 3))
    y = (X[:, 0] * X[:, 1] if degree == 2 else X[:, 0]) / (X[:, 2] - X[:, 1] * (degree - 1) - 0.9)
    H, widths = features(X, degree)
    a, b, error = total_degree(H, widths[degree], y / np.median(np.abs(y)))
    assert error < 1e-12
    assert len(a) == len(b) == widths[degree]


def test_a_law_needs_more_rows_than_coefficients():
    X = RNG.uniform(-1, 1, (12, 3))
    H, widths = features(X, 2)
    assert total_degree(H, widths[2], X[:, 0]) is None


def test_columns_of_zeros_and_ones_leave_no_law():
    X = RNG.integers(0, 2, (300, 5)).astype(float)
    H, widths = features(X, 2)
    assert total_degree(H, widths[2], RNG.normal(size=300))[2] > 1e-3


@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize(
    "candidate",
    [Linear("ridge", 6, ridge=True), Linear("linear", 3, ridge=False), Quotient(2, 1, (6, 3))],
    ids=lambda candidate: candidate.name,
)
def test_rows_in_blocks_are_fitted_as_those_in_one(candidate, outputs, monkeypatch):
    rng = np.random.default_rng(0)
    X = rng.uniform(-1, 1, (300, 2))
    H, _ = features(X, 2)
    y = (X[:, :1] / (X[:, 1:] - 1.5) + 0.1 * rng.normal(size=(300, 1))) * np.arange(1, outputs + 1)
    w = rng.uniform(0.5, 2, y.shape)
    a, b = candidate.fit(H, y, w)
    free = candidate.free
    monkeypatch.setattr("zeroproof.solve.space._ENTRIES", 200)
    start = candidate.fit(H[:100], y[:100], w[:100])
    seen = []

    def some(at):
        seen.append(len(H[at]))
        return H[at]

    found = candidate.on_all(some, y, w, start)
    assert max(seen) < 100
    assert candidate.free == pytest.approx(free)
    assert values(H, found) == pytest.approx(values(H, (a, b)), abs=1e-4)
    square, whole = (((values(H, fit) - y) * w) ** 2 for fit in (found, (a, b)))
    assert square.sum() <= whole.sum() * (1 + 1e-12)
