"""Thresholds of ⊥: read off labelled rows, and off the error of a closed-form fit.

Without guarantee, for the rows they are read off made the model too.
"""

import math
import warnings
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from zeroproof.defaults import TAU_INFER
from zeroproof.estimators.labels import Region, find_region
from zeroproof.inference import InferenceConfig, choose_thresholds
from zeroproof.projective import denominator_score

if TYPE_CHECKING:
    from zeroproof.estimators.closed_form import ClosedForm

__all__ = ["limits_of", "score_of", "thresholds_of"]

_SMALLEST = 1e-15  # rounding of the angle
_FROM_DATA = 0.1  # of the smallest score among finite rows: what was seen is never ⊥
_LOST = 0.01  # of the finite rows
_BY_CHANCE = 20.0  # times the share of finite rows lost: labels caught that say something
_CAUGHT = 0.95  # of the labels: fewer, and they may fill a region
_NEAR = 0.05  # score: |y| of twenty times the typical one
_GAP = 10.0  # in the gap the relative error may exceed a tenth


def thresholds_of(
    fit: "ClosedForm", X: Tensor, y: Tensor, scale: float, *, known: bool = False
) -> InferenceConfig:
    r"""Read thresholds on the angle score off a fit.

    An angle known to ε gives a relative error of ε / σ at the score σ, so τ_infer = ε, with ε the
    error of the held-out rows nearest to ⊥, yet below a tenth of the smallest score of a finite
    row; τ_train = 10 τ_infer. With singular rows they separate those from the others, at the cost
    of 1 % of these at most. A model whose D is constant keeps the guide's τ_infer.

    Args:
        fit: The fit.
        X: Rows, `(n, d)`.
        y: Their targets, `(n, m)`, inf and nan for ⊥.
        scale: Scale of the targets.
        known: Are errors known row by row? Thresholds then are those of rounding.
    """
    score = score_of(fit, X, scale)
    singular = ~torch.isfinite(y)
    constant = fit.model.constant_denominator
    if bool(singular.any()) and not constant:
        between = _between(score, singular, scale)
        if between is not None:
            return between
    if constant:
        chosen = TAU_INFER.value
    elif known:
        chosen = _SMALLEST
    else:
        error = 0.0 if math.isnan(fit.near) else math.sqrt(fit.near)
        seen = score[torch.isfinite(score)]
        chosen = min(error, _FROM_DATA * float(seen.min()) if len(seen) else 1.0)
    chosen = max(chosen, _SMALLEST)
    return InferenceConfig(
        tau_infer=chosen, tau_train=min(1.0, _GAP * chosen), score="angle", scale=scale
    )


def limits_of(
    fit: "ClosedForm", X: Tensor, y: Tensor, scale: float, *, known: bool, seed: int
) -> tuple[InferenceConfig, Region | None]:
    """Return thresholds, and the region that labels fill where thresholds do not catch them.

    Args:
        fit: The fit.
        X: Rows, `(n, d)`.
        y: Their targets, `(n, m)`, inf and nan for ⊥.
        scale: Scale of the targets.
        known: Are errors known row by row?
        seed: Of the search for a region.
    """
    singular = ~torch.isfinite(y)
    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always")
        thresholds = thresholds_of(fit, X, y, scale, known=known)
    if not bool(singular.any()):
        return thresholds, None
    score = score_of(fit, X, scale)
    # where y is of ordinary size a threshold may separate labels too, but they are no pole's
    near = score[singular] < min(thresholds.tau_infer, _NEAR)
    if float(near.double().mean()) < _CAUGHT:
        region = find_region(X, singular.any(1), seed)
        if region is not None:
            # labels at its edge are neither caught by it nor by a threshold
            rest = ~singular.any(1)
            return thresholds_of(fit, X[rest], y[rest], scale, known=known), region
    for warning in raised:
        warnings.warn(str(warning.message), stacklevel=4)
    return thresholds, None


def _warn_unexplained(count: int) -> None:
    warnings.warn(
        f"{count} targets are inf or nan where the fit is regular: if that means 'not measured', "
        "leave such rows out with missing='drop'",
        stacklevel=5,
    )


def _between(score: Tensor, singular: Tensor, scale: float) -> InferenceConfig | None:
    """Separate singular rows from the others, at the cost of 1 % of these at most.

    None where they lie among the others: such labels know nothing of the scores.
    """
    score, singular = score.flatten(), singular.flatten()
    found = choose_thresholds(score, singular, least=_SMALLEST)
    finite = score[~singular]
    most = float(finite.quantile(_LOST))
    tau = found.tau_infer
    stray = singular & (score > min(tau, most))
    caught = 1 - int(stray.sum()) / int(singular.sum())
    if tau > most or caught < 0.5:
        _warn_unexplained(int(stray.sum()))
    if caught <= _BY_CHANCE * float((finite < min(tau, most)).double().mean()):
        return None
    if tau > most:
        kept = choose_thresholds(score[~stray], singular[~stray], least=_SMALLEST)
        tau = max(kept.tau_infer, _SMALLEST)
    train = max(tau, min(max(_GAP * tau, found.tau_train), most))
    return InferenceConfig(tau_infer=tau, tau_train=train, score="angle", scale=scale)


def score_of(fit: "ClosedForm", X: Tensor, scale: float) -> Tensor:
    """Return the angle score of rows, `(n, m)`."""
    N, D = fit.model.tuples(X)
    score = denominator_score(N, D, "angle", scale)
    return torch.where(fit.model.cancelled(X), 0, score)
