"""The Physics Trinity: networks where they were shown rows, and beyond, near the singularity.

Lennard-Jones force and potential, seen at r ≥ 0.9, asked at 0.5 to 0.9; a resonator's complex
response, seen at Q of 5 to 30, asked at 100 to 200; joint velocities of a planar arm of two links,
seen at |θ2| ≥ 0.1, asked at 0.001 to 0.1. `SCMTrainer` with its defaults, a plain network on
asinh(y), and `ProjectiveRegressor()`. Nothing is promised: a table to choose by.
"""

import warnings
from collections.abc import Callable, Iterator
from statistics import median
from typing import NamedTuple

import numpy as np
import torch

from benchmarks.solve.baselines import trained
from benchmarks.solve.measure import Array, Predict, error
from benchmarks.solve.tasks.arms import velocities
from benchmarks.train.rows import Row
from benchmarks.train.success import EPOCHS, fitted
from zeroproof import ProjectiveRegressor
from zeroproof.layers import ProjectiveMLP

ROWS, TESTS = 2000, 2000


class Law(NamedTuple):
    """A law, and where it is seen and asked: each draws inputs."""

    truth: Predict
    seen: Callable[[np.random.Generator, int], Array]
    asked: Callable[[np.random.Generator, int], Array]


def box(*ranges: tuple[float, float]) -> Callable[[np.random.Generator, int], Array]:
    """Return a uniform draw from a box."""
    low, high = np.array(ranges).T
    return lambda random, rows: random.uniform(low, high, (rows, len(ranges)))


def arm(low: float, high: float) -> Callable[[np.random.Generator, int], Array]:
    """Return a draw of θ1, θ2 of that size and either sign, and the hand's velocity."""

    def draw(random: np.random.Generator, rows: int) -> Array:
        X = box((-np.pi, np.pi), (low, high), (-1, 1), (-1, 1))(random, rows)
        X[:, 1] *= random.choice([-1, 1], rows)
        return X

    return draw


def response(X: Array) -> Array:
    """Return 1 / (1 - r² + i r / Q) at X = (r, Q), r the frequency over the resonance's."""
    z = 1 / (1 - X[:, 0] ** 2 + 1j * X[:, 0] / X[:, 1])
    return np.stack([z.real, z.imag], 1)


FAR, NEAR = box((0.9, 2.5)), box((0.5, 0.9))
LAWS = {
    "LJ force": Law(lambda X: 24 * (2 * X**-13.0 - X**-7.0), FAR, NEAR),
    "LJ potential": Law(lambda X: 4 * (X**-12.0 - X**-6.0), FAR, NEAR),
    "resonator": Law(response, box((0.5, 1.5), (5, 30)), box((0.5, 1.5), (100, 200))),
    "two-link arm": Law(lambda X: velocities(X, 2), arm(0.1, np.pi - 0.1), arm(0.001, 0.1)),
}


def by_trainer(X: Array, y: Array, seed: int, epochs: int) -> tuple[Predict, list[str]]:
    """Train with `SCMTrainer`; returns what predicts, and the warnings of `fit`."""
    mean, std = X.mean(0).tolist(), X.std(0).tolist()
    rows, targets = (torch.from_numpy(z).float() for z in (X, y))
    trainer, said = fitted(
        rows,
        targets,
        seed,
        build=lambda n: ProjectiveMLP(n, y.shape[1], x_mean=mean, x_std=std),
        epochs=epochs,
    )

    def predict(X: Array) -> Array:
        with torch.no_grad():
            N, D = trainer.model(torch.from_numpy(X).float())
        return (trainer.unit * N / D).double().numpy()

    return predict, said


def by_formula(X: Array, y: Array, seed: int) -> tuple[Predict, list[str]]:
    """Fit the estimator."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        model = ProjectiveRegressor(random_state=seed).fit(X, y)
    return model.predict, [str(each.message) for each in said]


def trinity(*, quick: bool) -> Iterator[Row]:
    """Compare the three on every law: the median relative error in range, and out of it."""
    seeds, rows, epochs = (1, 100, 1) if quick else (3, ROWS, EPOCHS)
    for name, law in LAWS.items():
        found: dict[str, list[tuple[float, float, bool]]] = {}
        for seed in range(seeds):
            random = np.random.default_rng(seed)
            X = law.seen(random, rows)
            y = law.truth(X)
            steps = epochs * rows // 64
            methods = {
                "SCMTrainer": by_trainer(X, y, seed, epochs),
                "MLP on asinh": (trained("MLP+asinh", X, y, seed, steps), []),
                "ProjectiveRegressor": by_formula(X, y, seed),
            }
            tests = law.seen(random, TESTS), law.asked(random, TESTS)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                for method, (predict, said) in methods.items():
                    inside, outside = (error(predict, law.truth, Z) for Z in tests)
                    told = any("skill" in text for text in said)
                    found.setdefault(method, []).append((inside, outside, told))
        for method, runs in found.items():
            inside = median(run[0] for run in runs)
            note = f"in range {inside:.2g}; {sum(run[2] for run in runs)} of {seeds} warn of skill"
            yield Row(
                "trinity", f"{name}, {method}: out of range", [r[1] for r in runs], None, note
            )
