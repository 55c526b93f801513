"""Rows labelled singular: what became of them, and regions of inputs without an answer.

A denominator is 0 on a point, a curve, a surface. Labels that fill a region, as those of a
saturated detector or of places that cannot be reached, are no zero set; a classifier of the inputs
tells them.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from zeroproof._extras import require

__all__ = ["Edge", "Labels", "Region", "find_edge", "find_region"]

FEWEST = 8  # rows of either kind that a region is learned from
_MISTAKEN = 0.02  # of either kind of rows, on the wrong side of an edge
CAUGHT, LOST = 0.9, 0.05  # on rows held out, of a region worth having
_MOST_ROWS = 4000
_FOLDS = 5
_WIDTHS, _PENALTIES = (0.3, 1.0, 3.0, 10.0), (10.0, 1e3)


class Edge(NamedTuple):
    """Where labels begin that fill one end of a column: a saturated or censored range."""

    column: int
    value: float
    above: bool  # are the rows above it labelled, or those below?


class Labels(NamedTuple):
    """How many rows were labelled, and what the fit answers there.

    Attributes:
        infinite: Rows with ±inf.
        bottom: Rows with nan, taken as ⊥.
        missing: Rows left out since their target is missing.
        caught: Share of the labelled entries that are answered ⊥; nan if there are none.
        lost: Share of the finite entries that are answered ⊥; outliers do not count.
        edge: The end of a column that they fill, if they do.
    """

    infinite: int
    bottom: int
    missing: int
    caught: float
    lost: float
    edge: Edge | None = None


class Region(NamedTuple):
    """Inputs without an answer: Σ c_i exp(-γ |z - z_i|²) + b > 0 with z = (x - mean) / std.

    The decision of a support vector machine, Cortes & Vapnik 1995, with Gaussian kernel.
    """

    points: Tensor  # (k, d)
    coefficients: Tensor  # (k,)
    offset: Tensor  # ()
    gamma: Tensor  # ()
    mean: Tensor  # (d,)
    std: Tensor

    def holds(self, X: Tensor) -> Tensor:
        """Tell which rows lie in it, `(n,)`."""
        z = (X - self.mean) / self.std
        parts = [
            torch.exp(-self.gamma * torch.cdist(rows, self.points).square()) @ self.coefficients
            for rows in z.split(4096)
        ]
        return torch.cat(parts) + self.offset > 0


def find_edge(X: Tensor, singular: Tensor) -> Edge | None:
    """Return the end of a column that labelled rows fill.

    Args:
        X: Finite rows, `(n, d)`.
        singular: Which are labelled, `(n,)`.
    """
    label = singular.numpy()
    if not label.any():
        return None
    found = []
    for column, x in enumerate(X.T.numpy()):
        if min(len(np.unique(x[label])), len(np.unique(x[~label]))) < FEWEST:
            continue
        for above in (True, False):
            order = np.argsort(x if above else -x, kind="stable")
            here, end = label[order], x[order]
            # the first k rows taken as finite, the others as labelled
            early = np.cumsum(here) / label.sum()
            late = 1 - np.cumsum(~here) / (~label).sum()
            k = int((early + late).argmin())
            if max(early[k], late[k]) <= _MISTAKEN and k + 1 < len(x):
                middle = float(end[k] + end[k + 1]) / 2
                found.append((early[k] + late[k], Edge(column, middle, above)))
    return min(found)[1] if found else None


def find_region(X: Tensor, singular: Tensor, seed: int = 0) -> Region | None:
    """Return the region that the labelled rows fill, if rows held out confirm one.

    Args:
        X: Finite rows, `(n, d)`.
        singular: Which are labelled, `(n,)`.
        seed: Of the rows drawn and of the folds.
    """
    if min(int(singular.sum()), int((~singular).sum())) < FEWEST:
        return None
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(X))[:_MOST_ROWS]
    X, singular = X[rows], singular[rows]
    mean, std = X.mean(0), X.std(0, correction=0)
    std = torch.where(std > 0, std, 1)
    z, label = ((X - mean) / std).numpy(), singular.numpy()
    folds = rng.permutation(len(z)) % _FOLDS
    svc = require("sklearn.svm", extra="sklearn").SVC
    scored = []
    for gamma in _WIDTHS:
        for penalty in _PENALTIES:
            held = np.zeros(len(z), bool)
            for f in range(_FOLDS):
                own = folds == f
                if len(np.unique(label[~own])) < 2:
                    return None
                machine = svc(C=penalty, gamma=gamma / z.shape[1]).fit(z[~own], label[~own])
                held[own] = machine.predict(z[own])
            caught, lost = float(held[label].mean()), float(held[~label].mean())
            scored.append((lost - caught, caught, lost, gamma, penalty))
    _, caught, lost, gamma, penalty = min(scored)
    if caught < CAUGHT or lost > LOST:
        return None
    machine = svc(C=penalty, gamma=gamma / z.shape[1]).fit(z, label)
    parts = (machine.support_vectors_, machine.dual_coef_[0], machine.intercept_[0])
    points, coefficients, offset = (torch.tensor(part, dtype=torch.float64) for part in parts)
    width = torch.tensor(gamma / z.shape[1], dtype=torch.float64)
    return Region(points, coefficients, offset, width, mean, std)
