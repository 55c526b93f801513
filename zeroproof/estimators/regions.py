"""Where a closed-form fit may be believed: thresholds of ⊥, and rows where candidates disagree."""

import math
import warnings

import torch
from torch import Tensor

from zeroproof.defaults import TAU_INFER
from zeroproof.estimators.closed_form import ClosedForm
from zeroproof.estimators.labels import Region, find_region
from zeroproof.estimators.model import FormModel, ReadoutModel, cancelled, tuples
from zeroproof.estimators.thresholds import choose_thresholds
from zeroproof.inference import InferenceConfig
from zeroproof.projective import denominator_score
from zeroproof.solve.forms import degrees_of

__all__ = ["disagreement", "limits_of", "thresholds_of"]

_SMALLEST = 1e-15  # rounding of the angle
_FROM_DATA = 0.1  # of the smallest score among finite rows: what was seen is never ⊥
_LOST = 0.01  # of the finite rows
_CAUGHT = 0.95  # of the labels: fewer, and they may fill a region
_NEAR = 0.05  # score: |y| of twenty times the typical one
_GAP = 10.0  # in the gap the relative error may exceed a tenth
_INFINITE = 1e8  # scales
_APART = 3.0  # times the relative error: more is not noise


def thresholds_of(
    fit: ClosedForm, X: Tensor, y: Tensor, scale: float, *, known: bool = False
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
    if constant_denominator(fit):
        chosen = TAU_INFER.value
    elif bool(singular.any()):
        return _between(score, singular, scale)
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
    fit: ClosedForm, X: Tensor, y: Tensor, scale: float, *, known: bool, seed: int
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


def _between(score: Tensor, singular: Tensor, scale: float) -> InferenceConfig:
    """Separate singular rows from the others, at the cost of 1 % of these at most."""
    score, singular = score.flatten(), singular.flatten()
    found = choose_thresholds(score, singular, least=_SMALLEST)
    finite = score[~singular]
    most = float(finite.quantile(_LOST))
    tau = found.tau_infer
    if tau > most:
        stray = singular & (score > most)
        warnings.warn(
            f"{int(stray.sum())} targets are inf or nan where the fit is regular: if that means "
            "'not measured', leave such rows out with missing='drop'",
            stacklevel=4,
        )
        kept = choose_thresholds(score[~stray], singular[~stray], least=_SMALLEST)
        # the guide's threshold, where none of them is kept, knows nothing of these scores
        tau = (
            kept.tau_infer if bool((singular & ~stray).any()) else _FROM_DATA * float(finite.min())
        )
        tau = max(tau, _SMALLEST)
    train = max(tau, min(max(_GAP * tau, found.tau_train), most))
    return InferenceConfig(tau_infer=tau, tau_train=train, score="angle", scale=scale)


def score_of(fit: ClosedForm, X: Tensor, scale: float) -> Tensor:
    """Return the angle score of rows, `(n, m)`."""
    N, D = tuples(fit.model, X)
    score = denominator_score(N, D, "angle", scale)
    return torch.where(cancelled(fit.model, X), 0, score)


def constant_denominator(fit: ClosedForm) -> bool:
    """Tell whether the model cannot have a pole."""
    model = fit.model
    if isinstance(model, ReadoutModel):
        columns = getattr(model.H_N, "columns", ())
        return len(model.b) == 1 and not any(c.transform == "inverse" for c in columns)
    return all(degrees_of(form)[1] == 0 for form in model.forms)


def disagreement(fit: ClosedForm, X: Tensor, scale: float) -> Tensor:
    """Return the largest relative difference between admissible fits for each row, `(n,)`.

    Relative to the larger answer or the scale; 0 below three times the fit's own relative error,
    and where all are next to ∞.
    """
    spread = torch.zeros(len(X), dtype=torch.float64)
    if not len(X):
        return spread
    answer = _decoded(fit.model, X)
    for other in fit.alternates:
        theirs = _decoded(other, X)
        size = torch.maximum(answer.abs(), theirs.abs()).clamp(min=scale * 1e-3)
        apart = ((answer - theirs).abs() / size).nan_to_num(nan=1.0, posinf=1.0)
        least = torch.minimum(*(part.abs().nan_to_num(nan=torch.inf) for part in (answer, theirs)))
        apart = torch.where(least > _INFINITE * scale, 0, apart)
        spread = torch.maximum(spread, apart.amax(1))
    noise = max(_APART * fit.relative, 1e-6) if math.isfinite(fit.relative) else 1e-6
    return torch.where(spread > noise, spread, 0.0)


def _decoded(model: FormModel | ReadoutModel, X: Tensor) -> Tensor:
    N, D = tuples(model, X)
    return N / torch.where(D == 0, torch.nan, D)
