"""The picture of a closed-form fit: which plot, on which points."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from zeroproof.errors import RangeError
from zeroproof.estimators.fitted import Fitted, oriented_tuples, strict
from zeroproof.estimators.singular import poles_of
from zeroproof.plots.fit import Answers, plot_curve, plot_parity
from zeroproof.projective import denominator_score
from zeroproof.solve.poles import on_interval

__all__ = ["picture_of"]

_GRID = 2001
_MOST_TARGETS = 4


def picture_of(
    fitted: Fitted,
    X: NDArray[np.float64],
    y: NDArray[Any],
    names: tuple[str, ...] | None = None,
) -> Any:
    """Return the figure: a curve over one column, else predictions against targets.

    Args:
        fitted: The fit.
        X: Rows of the columns that are used.
        y: Targets, `(n,)` or `(n, k)`.
        names: Names of the targets.

    Raises:
        RangeError: The targets are complex.
    """
    if np.iscomplexobj(y):
        raise RangeError("a picture needs real targets, got complex ones: plot parts of them")
    y = y.reshape(len(y), -1)
    names = names or (("y",) if y.shape[1] == 1 else tuple(f"y{j}" for j in range(y.shape[1])))
    targets = {name: y[:, j] for j, name in enumerate(names[:_MOST_TARGETS])}
    if X.shape[1] > 1:
        return plot_parity(targets, _answers(fitted, X, len(targets)))
    grid = np.linspace(X.min(), X.max(), _GRID)
    config = fitted.thresholds
    return plot_curve(
        X[:, 0],
        targets,
        grid,
        _answers(fitted, grid[:, None], len(targets)),
        (config.tau_infer, config.tau_train),
        fitted.names[0],
        _poles(fitted, (X.min(), X.max()), len(targets)),
    )


def _poles(fitted: Fitted, shown: tuple[float, float], count: int) -> list[Any]:
    low, high = fitted.domain[:, 0].tolist()
    tables = [poles_of(fitted.fit, (low, high), j) for j in range(count)]
    kept = (table.position[~table.spurious] for table in tables)
    return [on_interval(p, *shown).numpy() for p in kept]


def _answers(fitted: Fitted, X: NDArray[np.float64], count: int) -> list[Answers]:
    rows = torch.from_numpy(X)
    score = denominator_score(
        *oriented_tuples(fitted, rows), score="angle", scale=fitted.thresholds.scale
    )
    parts = [part.numpy() for part in (*strict(fitted, rows), score)]
    return [Answers(*(part[:, j] for part in parts)) for j in range(count)]
