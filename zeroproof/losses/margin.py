"""The margin loss: what keeps denominators away from 0."""

from typing import Unpack

import torch
from torch import Tensor

from zeroproof._checks import one_of, pair_shapes, positive, threshold, widen
from zeroproof.defaults import TAU_TRAIN
from zeroproof.errors import RangeError
from zeroproof.losses.gradients import Counting, LossRecipe, single
from zeroproof.projective.angle import SCORES

__all__ = ["margin_loss"]


def margin_loss(
    D: Tensor,
    tau_train: float = TAU_TRAIN.value,
    *,
    N: Tensor | None = None,
    relative: bool = False,
    score: str = "denominator",
    scale: float = 1.0,
    **counting: Unpack[Counting],
) -> Tensor:
    r"""Penalise denominators closer to zero than `tau_train`.

    Formula: mean(max(0, τ - s)²) with s = \|D\|. `relative=True`: mean(max(0, 1 - s / τ)²), in [0,
    1] and of use at any τ: the default is at most τ² and has no gradient at D = 0.
    `score="angle"`: s is the gauge-free \|D\| / √(\|N / scale\|² + \|D\|²). At D = 0 both options
    have the derivative of D → 0+. A τ beyond the number range counts as its end; a square
    beyond it saturates just below.

    Args:
        D: Denominators, `(*batch, k)` or `(*batch, 1)`, real or complex.
        tau_train: τ, above 0, in the units of the score.
        N: Numerators, the shape of D or `(*batch, k)`; needed by `"angle"`. Where given, the loss
            has its shape.
        relative: Divide the distance by τ.
        score: `"denominator"` or `"angle"`.
        scale: Scale of the targets for `"angle"`, in the units of y.
        **counting: `weight` (an entry counts in proportion; one that is negative or not finite
            does not count), `mask` (boolean, True counts), both in the shape of the loss or
            `(*batch, 1)`; `reduction`: `"mean"` (Σ w·l / Σ w over what counts), `"sum"` or
            `"none"`.

    Returns:
        Scalar `()`, or the shape of the loss for `"none"`. A row with a number that is not finite
        does not count: 0 and no gradient there, a connected 0 where no row counts. The gradient
        policy acts on dL/dD and dL/dN.

    Raises:
        ShapeError: The shapes do not belong together.
        RangeError: An option outside what it may be, or `"angle"` without N.

    Examples:
        >>> D = torch.tensor([1.0, 5e-5])
        >>> margin_loss(D, relative=True)
        tensor(0.1250)
    """
    threshold(tau_train, TAU_TRAIN, score if relative else "denominator")
    one_of(score, SCORES, "score")
    positive(scale, "scale")
    if N is None and score == "angle":
        raise RangeError("N must be given for score='angle', got None")
    recipe = LossRecipe(
        factors=(0.0, 1.0, 0.0, 0.0),
        tau=tau_train,
        relative=relative,
        score=score,
        scale=scale,
        masks=N is not None,  # D = 0 alone is no ⟨0, 0⟩
    )
    D = widen(D)
    N = torch.ones_like(D).detach() if N is None else widen(N)
    pair_shapes(N, D)
    targets = torch.ones_like(N).detach()  # that nobody looks at
    return single("margin", (N, D, targets, targets), recipe, counting)
