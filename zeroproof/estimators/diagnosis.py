"""What a fitted model says about each row, and of a network whether it has singularities."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from zeroproof.layers.mlp import ProjectiveMLP
from zeroproof.projective import Pair, denominator_score

__all__ = ["Diagnosis", "RowView", "diagnose", "errors_of", "scored", "view_rows"]

_NEAR = 0.05  # a score below this is a value some 20 target scales away from the centre


class RowView(NamedTuple):
    """What the model says about each row: the smallest over its outputs."""

    score: Tensor  # `(n,)`, in [0, 1]: 0 on a pole
    distance: Tensor  # `(n,)`, to the nearest pole, in standard deviations of the inputs
    negative: Tensor  # `(n, k)` or `(n, 1)`: the sign of D, which changes across a pole


class Diagnosis(NamedTuple):
    """Summary over rows, with a verdict in words."""

    singular_targets: int
    smallest_score: float
    nearest_pole: float | None  # in standard deviations of the inputs; None if there is no pole
    crosses_pole: bool
    verdict: str


def view_rows(model: ProjectiveMLP, x: Tensor) -> RowView:
    r"""Score every row and estimate its distance to the nearest pole.

    The distance is one Newton step on r = D / ‖(N, D)‖, which is free of the gauge: \|r\| / ‖∇r‖,
    the gradient taken in standardised inputs. It is a first-order estimate: right near a pole, a
    larger number elsewhere; infinite for a model whose denominators are constant, as it has no
    pole.
    """
    view = scored(model, x, model.x_std)
    with torch.no_grad():
        D = model(x)[1]
    if bool((D[:1] == D).all()):
        view.distance.fill_(torch.inf)
    return view


def scored(model: Callable[[Tensor], Pair], x: Tensor, spread: Tensor) -> RowView:
    """Score rows, and take the Newton step to the nearest pole in units of `spread`."""
    x = x.detach().clone().requires_grad_()
    with torch.enable_grad():
        N, D = model(x)
        r = D / torch.hypot(N, D)
        score = denominator_score(N, D, "angle").detach()
        distance = torch.full_like(score, torch.inf)
        for column in range(r.shape[-1]):
            (slope,) = torch.autograd.grad(r[:, column].sum(), x, retain_graph=True)
            steepness = (slope * spread).norm(dim=-1)
            distance[:, column] = r[:, column].detach().abs() / steepness
    negative = (D < 0).detach()
    distance = distance.nan_to_num(nan=0.0, posinf=torch.inf)
    return RowView(score.amin(-1), distance.amin(-1), negative)


def diagnose(view: RowView, singular_targets: int) -> Diagnosis:
    """Sum up a network in words, by what it does.

    Args:
        view: What `view_rows` said about the rows of the data.
        singular_targets: Number of rows with a target that is not finite.
    """
    signs = (view.negative.any(0) & ~view.negative.all(0)).any()
    crosses = bool(signs)
    smallest, nearest = float(view.score.min()), float(view.distance.min())
    near = smallest < _NEAR and nearest < math.inf
    if crosses:
        verdict = (
            "The network's denominator changes sign between rows: a pole lies inside the data."
        )
    elif near:
        verdict = "No pole between rows, but some come near one of the network: try a plain one."
    else:
        # the data may have one all the same: a network of few steps, or a plain one, never does
        verdict = (
            "The network has no pole near the rows and answers as a plain model would. Whether "
            "the data have one it cannot tell: train longer, or fit ProjectiveRegressor."
        )
    if singular_targets:
        rows = "1 row has" if singular_targets == 1 else f"{singular_targets} rows have"
        if not crosses and not near:
            verdict = "The network has no pole near the rows and does not explain it."
        verdict = f"{rows} a singular target. {verdict}"
    known = nearest if nearest < math.inf else None
    return Diagnosis(singular_targets, smallest, known, crosses, verdict)


def errors_of(predicted: Tensor, y: Tensor, floor: Tensor) -> tuple[float, float] | None:
    """Return RMS and median relative error of finite targets with an answer, in the units of y.

    Args:
        predicted: Plain quotients, `(n, k)`.
        y: Targets, `(n, k)`.
        floor: Least size that an error is taken relative to, one number or one per target.

    Returns:
        `None` if no target counts.
    """
    use = torch.isfinite(y) & torch.isfinite(predicted)
    if not use.any():
        return None
    difference = (predicted - y).abs()
    relative = difference / torch.maximum(y.abs(), floor)
    return float(difference[use].square().mean().sqrt()), float(relative[use].median())
