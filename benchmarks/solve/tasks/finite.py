"""Data without singularities: what is lost against ridge regression on the same features."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.datasets import load_diabetes
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.solve.measure import Array, Effort, Row, fit_rows
from zeroproof.layers import chebyshev_basis

FACTOR = 1.1
PENALTIES = np.logspace(-6, 6, 25)
DEGREE = 20


def finite(effort: Effort) -> Iterator[Row]:
    """Test error over ridge's, its penalty chosen on the training rows."""
    X, y = (np.asarray(part) for part in load_diabetes(return_X_y=True))
    yield _row("diabetes, 442 x 10", [_diabetes(X, y, seed) for seed in range(effort.seeds)])
    yield _row("noisy sine, 500 x 1", [_sine(seed) for seed in range(effort.seeds)])


def _row(task: str, runs: list[tuple[float, float, float]]) -> Row:
    ours, ridge, mean = (list(values) for values in zip(*runs, strict=True))
    ratio = [a / b for a, b in zip(ours, ridge, strict=True)]
    others = {"our rmse": ours, "ridge's": ridge, "the mean's": mean}
    return Row(task, "test rmse / ridge's", ratio, FACTOR, others)


def _diabetes(X: Array, y: Array, seed: int) -> tuple[float, float, float]:
    order = np.random.default_rng(seed).permutation(len(X))
    return _compared(X, y, order[110:], order[:110], lambda X: X, seed)


def _sine(seed: int) -> tuple[float, float, float]:
    random = np.random.default_rng(seed)
    X = random.uniform(-1, 1, (1500, 1))
    y = np.sin(4 * X[:, 0]) + 0.1 * random.standard_normal(1500)
    train, test = np.arange(500), np.arange(500, 1500)
    return _compared(X, y, train, test, _chebyshev, seed)


def _chebyshev(X: Array) -> Array:
    import torch

    return chebyshev_basis(torch.from_numpy(X[:, 0]), DEGREE)[:, 1:].numpy()


def _compared(
    X: Array, y: Array, train: Array, test: Array, basis: Any, seed: int
) -> tuple[float, float, float]:
    """Return the test errors of ours, of ridge and of the mean."""
    model = fit_rows(X[train], y[train], seed).model
    ridge = make_pipeline(StandardScaler(), RidgeCV(PENALTIES)).fit(basis(X[train]), y[train])
    answers = (model.predict(X[test]), ridge.predict(basis(X[test])), y[train].mean())
    first, second, third = (float(np.sqrt(np.mean((a - y[test]) ** 2))) for a in answers)
    return first, second, third
