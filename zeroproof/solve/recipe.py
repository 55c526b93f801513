"""A recipe: which features, and which function of the target, a fit is linear in."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from zeroproof.layers.features import (
    Column,
    Features,
    RandomFeatures,
    fit_column,
    graded_features,
    random_features,
)
from zeroproof.projective.tuples import Pair

__all__ = ["FAMILIES", "TARGETS", "Recipe", "answers", "bases", "lift"]

FAMILIES = ("chebyshev", "polynomial", "random", "fourier")
_WAVES = {"random": "tanh", "fourier": "cos"}
TARGETS: dict[str, Callable[[Tensor], Tensor]] = {
    "y": lambda y: y,
    "square": torch.square,
    "log": torch.log,
}


class Recipe(NamedTuple):
    r"""What is fitted: T(y) = N / D, N = H_N(x) a, D = H_D(x) b.

    Attributes:
        family: `"polynomial"` (products of total degree p), `"chebyshev"` (of degree p in each
            column), `"random"` (tanh waves) or `"fourier"` (cosines).
        transforms: One of `TRANSFORMS` for each column.
        linear: Columns in which N is linear and of which D is free.
        target: T: `"y"`, `"square"` (the answer is √(N / D)) or `"log"` (exp(N / D)).
        size: (p, q), the degrees of N and D, or (waves, waves); q = 0: D is constant.
        spread: How fast random waves vary.
    """

    family: str
    transforms: tuple[str, ...]
    linear: tuple[int, ...] = ()
    target: str = "y"
    size: tuple[int, int] = (2, 2)
    spread: float = 3.0


def bases(recipe: Recipe, X: Tensor, seed: int = 0) -> tuple[Features, Features]:
    """Return the features of N and of D, scaled to the rows X, `(n, d)`.

    Examples:
        >>> X = torch.rand(5, 2, dtype=torch.float64)
        >>> N, D = bases(Recipe("polynomial", ("identity", "identity"), linear=(1,)), X)
        >>> len(N.places), len(N.linear), len(D.places), len(D.linear)
        (3, 1, 3, 0)
    """
    curved, linear = [], []
    for index, transform in enumerate(recipe.transforms):
        is_linear = index in recipe.linear
        column = fit_column(X[:, index], index, "identity" if is_linear else transform)
        (linear if is_linear else curved).append(column)
    p, q = recipe.size
    if recipe.family in _WAVES:
        drawn = random_features(
            curved,
            p,
            spread=recipe.spread,
            wave=_WAVES[recipe.family],
            linear=linear,
            seed=seed,
        )
        return drawn, _first(drawn, curved, q)
    total = recipe.family == "polynomial"
    return (
        graded_features(curved, p, linear=linear, total=total),
        graded_features(curved, q, total=total),
    )


def _first(features: RandomFeatures, columns: list[Column], width: int) -> Features:
    if not width:
        return graded_features(columns, 0)
    return features._replace(W=features.W[:, :width], c=features.c[:width], linear=())


def lift(target: str, y: Tensor) -> Pair:
    """Return tuples of T(y): finite → ⟨T(y), 1⟩, ±inf → ⟨±1, 0⟩, nan → ⟨1, 0⟩.

    Args:
        target: One of `TARGETS`; "square" and "log" are for y above 0.
        y: Targets over their scale, `(*batch,)`, real or complex.
    """
    finite = torch.isfinite(y)
    sign = torch.where(torch.isnan(y), 1, y.real.sign() if y.is_complex() else y.sign())
    inner = TARGETS[target](torch.where(finite, y, 1))
    return Pair(torch.where(finite, inner, sign.to(inner.dtype)), finite.to(inner.dtype))


def answers(target: str, N: Tensor, D: Tensor) -> Pair:
    """Return tuples of y from those of T(y); ⟨0, 0⟩ where T⁻¹ has no value.

    Args:
        target: One of `TARGETS`.
        N: Numerators of T(y).
        D: Denominators, broadcastable with N.

    Examples:
        >>> answers("square", torch.tensor([4.0, 1.0]), torch.tensor([1.0, -1.0]))
        Pair(N=tensor([2., 0.]), D=tensor([1., 0.]))
    """
    if target == "y":
        return Pair(N, D)
    D = D.expand_as(N)
    if target == "square":
        agree = N * D.sign() >= 0
        return Pair(*(torch.where(agree, part.abs(), 0).sqrt() for part in (N, D)))
    zero = D == 0
    q = N / torch.where(zero, 1, D)
    decay = torch.where(zero, -math.inf, -q.abs()).exp()
    one = torch.where(zero, 0.0, 1.0).to(decay)
    return Pair(torch.where(q > 0, one, decay), torch.where(q > 0, decay, one))
