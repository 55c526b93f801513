"""The picture of a run folder: which plot, on which points."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from zeroproof.export import predict_rows
from zeroproof.plots.fit import Answers, plot_curve, plot_parity
from zeroproof.projective import denominator_score

if TYPE_CHECKING:
    from zeroproof.estimators import TrainedFit

__all__ = ["picture"]

_GRID = 2000
_MOST_TARGETS = 4  # further ones are left to rows.csv


def picture(fitted: "TrainedFit", X: Tensor, y: Tensor) -> Any:
    """Return the figure for a fit: a curve for one input, else predictions against targets."""
    run = fitted.run
    shown = run.targets[:_MOST_TARGETS]
    targets = {name: y[:, place].numpy() for place, name in enumerate(shown)}
    if X.shape[1] > 1:
        return plot_parity(targets, _answers(fitted, X, len(shown)))
    grid = torch.linspace(float(X.min()), float(X.max()), _GRID, dtype=X.dtype)[:, None]
    return plot_curve(
        X[:, 0].numpy(),
        targets,
        grid[:, 0].numpy(),
        _answers(fitted, grid, len(shown)),
        (run.config.tau_infer, run.config.tau_train),
        run.features[0],
        at_rows=_answers(fitted, X, len(shown)),
    )


def _answers(fitted: "TrainedFit", X: Tensor, count: int) -> list[Answers]:
    result = predict_rows(fitted.run, X)
    with torch.no_grad():
        N, D = fitted.run.model(X)
    score = denominator_score(N, D, fitted.run.config.score, fitted.run.config.scale)
    parts = (result.decoded, result.bottom_mask, result.gap_mask, score)
    return [Answers(*(part[:, place].numpy() for part in parts)) for place in range(count)]
