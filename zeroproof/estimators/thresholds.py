"""Thresholds read off held-out rows; without guarantee, for these rows chose the epoch too."""

import math

import torch
from torch import Tensor

from zeroproof.defaults import TAU_INFER, TAU_TRAIN
from zeroproof.inference import InferenceConfig

__all__ = ["choose_thresholds"]


def choose_thresholds(
    score: Tensor, singular: Tensor, tau_infer: float | None = None, tau_train: float | None = None
) -> InferenceConfig:
    """Choose τ_infer and τ_train for the angle score in the target frame (scale 1).

    τ_infer maximises Youden's J = P(score < τ | ⊥) - P(score < τ | finite) over the scores of
    singular rows (W. J. Youden, Cancer 3:32, 1950); τ_train lies just above 95 % of those scores,
    and at least at 2 τ_infer, so that the gap holds answers that look as singular rows did. Neither
    falls below the guide's τ_infer. Without singular rows, or without others, the guide's defaults
    stay.

    Args:
        score: Scores of held-out tuples, `(n,)`.
        singular: True where the target was ⊥ or ±inf, `(n,)`.
        tau_infer: Fixed by the user, or `None`.
        tau_train: Fixed by the user, or `None`.
    """
    bad = score[singular & torch.isfinite(score)].sort().values
    good = score[~singular & torch.isfinite(score)]
    if len(bad) and len(good):
        # the next number in the scores' own precision: a closer one would be rounded down to them
        candidates = torch.nextafter(bad, torch.full_like(bad, math.inf))
        caught = torch.arange(1, len(bad) + 1, dtype=torch.float64) / len(bad)
        lost = torch.searchsorted(good.sort().values, candidates) / len(good)
        most = math.ceil(0.95 * len(bad)) - 1
        chosen, common = (
            max(float(tau), TAU_INFER.value)  # scores of 0 leave no margin
            for tau in (candidates[(caught - lost).argmax()], candidates[most])
        )
    else:
        chosen, common = TAU_INFER.value, TAU_TRAIN.value
    infer = min(chosen, tau_train or math.inf) if tau_infer is None else tau_infer
    train = min(1.0, max(2 * infer, common)) if tau_train is None else tau_train
    return InferenceConfig(tau_infer=infer, tau_train=train, score="angle", scale=1.0)
