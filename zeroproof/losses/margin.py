"""The margin loss: what keeps denominators away from 0."""

import math
from typing import Unpack

import torch
from torch import Tensor

from zeroproof._checks import one_of, pair_shapes, positive, threshold
from zeroproof.autodiff.gate import gate
from zeroproof.defaults import TAU_TRAIN
from zeroproof.errors import RangeError
from zeroproof.losses._reduction import Counting, finite_rows, reduced
from zeroproof.losses._single import NOTHING, single
from zeroproof.projective.angle import SCORES, denominator_score
from zeroproof.projective.gauge import widen

__all__ = ["margin_loss", "margin_values"]


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
    _check(tau_train, N, relative=relative, score=score, scale=scale)
    options = {"relative": relative, "score": score, "scale": scale}
    recipe = NOTHING._replace(margin=True, tau=float(tau_train), **options)
    D = widen(D)
    numerators = D.detach() if N is None else widen(N)
    targets = numerators.detach()  # that nobody looks at

    def plain(n: Tensor, D: Tensor) -> Tensor:
        values = margin_values(D, tau_train, None if N is None else n, **options)
        return reduced(*values, **counting)

    tuples = (numerators, D, targets, targets)
    # D = 0 alone is no ⟨0, 0⟩
    return single("margin", tuples, recipe, plain, counting, masks=N is not None)


def _check(tau_train: float, N: Tensor | None, *, relative: bool, score: str, scale: float) -> None:
    threshold(tau_train, TAU_TRAIN, score if relative else "denominator")
    one_of(score, SCORES, "score")
    positive(scale, "scale")
    if N is None and score == "angle":
        raise RangeError("N must be given for score='angle', got None")


def margin_values(
    D: Tensor, tau_train: float, N: Tensor | None, *, relative: bool, score: str, scale: float
) -> tuple[Tensor, Tensor]:
    """Return (loss of every entry, rows that count); the arguments of `margin_loss`."""
    _check(tau_train, N, relative=relative, score=score, scale=scale)
    N, D, rows = _operands(N, D)
    if score == "denominator" and not relative:
        distance = D.abs().expand(N.shape)  # the guide's formula, derivative 0 at D = 0
    else:
        distance = denominator_score(N, D, score, scale)
    limits = torch.finfo(distance.dtype)
    tau = min(max(tau_train, limits.tiny), limits.max)  # 0 and ∞ in float32 are numbers in Python
    gap = (1 - distance / tau if relative else tau - distance).relu()
    size = gap.detach()
    # saturated, with the gradient of that size
    return (size.clamp_max(math.sqrt(limits.max) / 2) + (gap - size)).square(), rows


def _operands(N: Tensor | None, D: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    if N is None:
        D = widen(D)
        rows = finite_rows(D)
        N, D = gate(D, D, ~rows)  # D = 0 alone is no ⟨0, 0⟩
    else:
        pair_shapes(N, D)
        N, D = widen(N), widen(D)
        rows = finite_rows(N, D)
        N, D = gate(N, D, ((N == 0) & (D == 0)) | ~rows)
    return torch.where(rows, N, 1), torch.where(rows, D, 1), rows
