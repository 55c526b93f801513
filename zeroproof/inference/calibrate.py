"""Thresholds that separate answers whose labels are known."""

import math

import torch
from torch import Tensor

from zeroproof.defaults import TAU_INFER, TAU_TRAIN
from zeroproof.inference.strict import InferenceConfig

__all__ = ["calibrated", "choose_thresholds"]

_APART = 2e-3  # relative change of N / D; half of it on each side of τ
_ROUNDING = 16.0  # units in the last place of 1, by which a sum in another order may differ
_BEYOND = 4.0  # times the singular score, where no finite row says how far the gap reaches
_FEWEST = 5  # entries of either kind that thresholds are read off
_LOST = 0.01  # of the finite entries, at most
_UPWARDS = 2.0  # times Youden's threshold: singular rows to come may score above those seen


def calibrated(score: Tensor, singular: Tensor, scale: float) -> InferenceConfig | None:
    """Choose τ_infer and τ_train for the angle score of a trained model.

    Of the thresholds with the largest Youden's J, see `choose_thresholds`, the upper end: between a
    region of ⊥ and the finite rows scores rise steeply, and rows to come may score above all that
    were seen. It loses 1 % of the finite entries at most and is at most twice the lowest of them;
    on both sides it keeps a margin for rounding. τ_train = 2 τ_infer.

    Args:
        score: Angle scores of labelled tuples, of any shape.
        singular: True where the label is ⊥ or ±inf, the same shape.
        scale: Scale of the score, in the units of N / D.

    Returns:
        Thresholds; `None` with fewer than five entries of either kind.
    """
    bad, good = _ranked(score.flatten(), singular.flatten())
    if min(len(bad), len(good)) < _FEWEST:
        return None
    candidates, gain = _gains(bad, good, score.dtype)
    lowest = float(candidates[int(torch.nonzero(gain == gain.max()).max())])
    above = good[good >= lowest]
    next_one = float(above[0]) if len(above) else math.inf
    rounding = _ROUNDING * torch.finfo(score.dtype).eps
    limit = float(good[int(_LOST * len(good))]) * (1 - _APART) - rounding
    tau = min(max(lowest, next_one * (1 - _APART) - rounding), _UPWARDS * lowest, limit, 1.0)
    tau = max(tau, torch.finfo(torch.float32).tiny)
    return InferenceConfig(tau_infer=tau, tau_train=min(1.0, 2 * tau), score="angle", scale=scale)


def choose_thresholds(
    score: Tensor,
    singular: Tensor,
    tau_infer: float | None = None,
    tau_train: float | None = None,
    least: float = TAU_INFER.value,
) -> InferenceConfig:
    """Choose τ_infer and τ_train for the angle score in the target frame (scale 1).

    τ_infer maximises Youden's J = P(score < τ | ⊥) - P(score < τ | finite) over the scores of
    singular rows (W. J. Youden, Cancer 3:32, 1950), where a singular row counts only if τ keeps a
    margin above it: scores differ by rounding between processors and sizes of a batch. Of rows that
    do as well it takes the one that loses fewer finite rows, and of the gap above that the
    geometric middle. τ_train lies as far above 95 % of the singular scores, and at least at
    2 τ_infer, so that the gap holds answers that look as singular rows did. Without singular rows,
    or without others, the guide's defaults stay.

    Args:
        score: Scores of labelled tuples, `(n,)`.
        singular: True where the target was ⊥ or ±inf, `(n,)`.
        tau_infer: Fixed by the user, or `None`.
        tau_train: Fixed by the user, or `None`.
        least: Neither threshold falls below it, and smaller scores count as it.
    """
    bad, good = _ranked(score, singular)
    if len(bad) and len(good):
        candidates, gain = _gains(bad, good, score.dtype)
        best = int(torch.nonzero(gain == gain.max()).min())
        most = math.ceil(0.95 * len(bad)) - 1
        chosen, common = (
            _middle(float(candidates[i]), float(bad[i]), bad, good, least) for i in (best, most)
        )
    else:
        chosen, common = TAU_INFER.value, TAU_TRAIN.value
    infer = min(chosen, tau_train or math.inf) if tau_infer is None else tau_infer
    train = min(1.0, max(2 * infer, common)) if tau_train is None else tau_train
    return InferenceConfig(tau_infer=infer, tau_train=train, score="angle", scale=1.0)


def _middle(candidate: float, caught: float, bad: Tensor, good: Tensor, least: float) -> float:
    """Return the middle between the last singular and the first finite row around a candidate."""
    above = good[good >= candidate]
    end = float(above[0]) if len(above) else min(1.0, _BEYOND * caught)
    between = bad[bad < end]
    start = max(caught, float(between[-1]) if len(between) else 0.0, least)
    return max(least, math.sqrt(start * end))


def _ranked(score: Tensor, singular: Tensor) -> tuple[Tensor, Tensor]:
    """Return the scores of singular and of other entries, in order."""
    sound = torch.isfinite(score)
    bad, good = (score[kind & sound].double().sort().values for kind in (singular, ~singular))
    return bad, good


def _gains(bad: Tensor, good: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return a threshold above each singular score, and its J times the numbers of both kinds."""
    # σ = 1 / √(1 + |y|²): a relative change of y by m changes σ by m σ (1 - σ²)
    rounding = _ROUNDING * torch.finfo(dtype).eps
    candidates = bad + _APART * bad * (1 - bad.square()) + rounding
    caught = torch.arange(1, len(bad) + 1, device=bad.device)
    lost = torch.searchsorted(good, candidates)
    return candidates, caught * len(good) - lost * len(bad)  # whole numbers, so that ties are ties
