"""Features of several columns: graded polynomials, random waves, modules; times linear inputs."""

import math
from collections.abc import Callable, Sequence
from itertools import product
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from zeroproof._checks import one_of, whole
from zeroproof.errors import DataError, ShapeError
from zeroproof.layers.basis import chebyshev_basis

__all__ = [
    "TRANSFORMS",
    "WAVES",
    "Column",
    "Features",
    "GradedFeatures",
    "ModuleFeatures",
    "RandomFeatures",
    "feature_matrix",
    "fit_column",
    "graded_features",
    "random_features",
    "width_of",
]

TRANSFORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda x: x,
    "log": torch.log,
    "inverse": torch.reciprocal,
    "sqrt": torch.sqrt,
    "trig": lambda x: x,  # enters as cos kx and sin kx, x in radians
}
WAVES: dict[str, Callable[[Tensor], Tensor]] = {"tanh": torch.tanh, "cos": torch.cos}
_LEAST = 1e-16  # probability; a normal number of 0 would be infinite


class Column(NamedTuple):
    """How one input enters: u = (t(x) - middle) / half, in [-1, 1] on the rows it was fitted to."""

    place: int
    transform: str  # one of TRANSFORMS
    middle: float
    half: float


class GradedFeatures(NamedTuple):
    """Products of one-dimensional functions of each column, times 1 and the linear columns."""

    columns: tuple[Column, ...]
    places: Tensor  # (k, columns): which function of each column
    linear: tuple[Column, ...] = ()
    highest: tuple[int, ...] = ()  # the largest place of each column, known before any compiler


class RandomFeatures(NamedTuple):
    """1 and waves w(u W + c), w = tanh or cos, times 1 and the linear columns."""

    columns: tuple[Column, ...]
    W: Tensor  # (inputs, k); a trigonometric column is two inputs
    c: Tensor  # (k,)
    wave: str  # one of WAVES
    linear: tuple[Column, ...] = ()


class ModuleFeatures(NamedTuple):
    """1 and what a module returns for the columns in their own units, times the linear columns."""

    columns: tuple[Column, ...]
    module: nn.Module
    linear: tuple[Column, ...] = ()


Features: TypeAlias = GradedFeatures | RandomFeatures | ModuleFeatures


def fit_column(x: Tensor, place: int, transform: str = "identity") -> Column:
    """Return how a column enters, scaled to the rows given.

    Args:
        x: The column, `(n,)`, real and finite.
        place: Its place among the columns.
        transform: `"identity"`, `"log"`, `"inverse"`, `"sqrt"` or `"trig"`.

    Raises:
        RangeError: An unknown transform.
        DataError: The transform is not finite on the rows.

    Examples:
        >>> fit_column(torch.tensor([1.0, 4.0]), 0, "sqrt")
        Column(place=0, transform='sqrt', middle=1.5, half=0.5)
    """
    t = TRANSFORMS[one_of(transform, tuple(TRANSFORMS), "transform")](x)
    low, high = float(t.min()), float(t.max())
    if not math.isfinite(high - low):
        raise DataError(f"column {place} must allow the transform {transform}, got {low} … {high}")
    half = (high - low) / 2
    return Column(place, transform, low + half, half if half > 0 else 1.0)


def graded_features(
    columns: Sequence[Column],
    degree: int,
    *,
    linear: Sequence[Column] = (),
    total: bool = True,
) -> GradedFeatures:
    """Return all products of one-dimensional functions up to a degree.

    A column gives the Chebyshev polynomials T_k(u), of degree k, or with the transform "trig" 1,
    cos kx and sin kx.

    Args:
        columns: Inputs of the products.
        degree: Largest sum of the degrees of a product, or largest of them if not `total`.
        linear: Inputs that enter at most linearly: every product appears times 1 and each u.
        total: Whether degrees add up.

    Raises:
        RangeError: `degree` is not a whole number of at least 0.

    Examples:
        >>> x = [Column(0, "identity", 0.0, 1.0), Column(1, "identity", 0.0, 1.0)]
        >>> H = graded_features(x, 2)
        >>> width_of(H)  # 1, x, y, xy and two of second degree
        6
    """
    whole(degree, "degree")
    places: list[tuple[int, tuple[int, ...]]] = [(0, ())]  # with their degrees
    for column in columns:
        half = column.transform == "trig"
        most = 2 * degree if half else degree
        places = [
            (reached, (*before, place))
            for (spent, before), place in product(places, range(most + 1))
            if (reached := spent + ((place + 1) // 2 if half else place)) <= degree or not total
        ]
    places.sort()
    table = torch.tensor([each for _, each in places], dtype=torch.int64)
    table = table.reshape(len(places), len(columns))
    return GradedFeatures(tuple(columns), table, tuple(linear), _highest(table))


def _highest(places: Tensor) -> tuple[int, ...]:
    return tuple(int(x.max()) if len(x) else 0 for x in places.T)


def random_features(
    columns: Sequence[Column],
    width: int,
    *,
    spread: float,
    wave: str = "tanh",
    linear: Sequence[Column] = (),
    seed: int = 0,
) -> RandomFeatures:
    r"""Draw random features: W of standard deviation `spread`, centres of the waves on the data.

    Formula: w(u W + c), W ~ N(0, spread²), c ~ U(-spread, spread)·√inputs for tanh and U(-π, π) for
    cos.

    Args:
        columns: Inputs of the waves.
        width: Number of waves, k.
        spread: How fast they vary over the data.
        wave: `"tanh"`, or `"cos"` (random Fourier features).
        linear: See `graded_features`.
        seed: The same seed draws the same features; a larger width continues a smaller one.

    Raises:
        RangeError: An unknown wave, or a width below 1.

    Examples:
        >>> H = random_features([Column(0, "identity", 0.0, 1.0)], 8, spread=3.0)
        >>> width_of(H)
        9
    """
    whole(width, "width", low=1)
    one_of(wave, tuple(WAVES), "wave")
    inputs = sum(2 if column.transform == "trig" else 1 for column in columns)
    generator = torch.Generator().manual_seed(seed)
    # uniform numbers come one by one; torch draws normal ones in blocks, which no width continues
    drawn = torch.rand(width, inputs + 1, generator=generator, dtype=torch.float64)
    W = spread * torch.special.ndtri(drawn[:, :-1].clamp(min=_LEAST)).T.contiguous()
    reach = spread * math.sqrt(inputs) if wave == "tanh" else math.pi
    return RandomFeatures(tuple(columns), W, reach * (2 * drawn[:, -1] - 1), wave, tuple(linear))


def width_of(features: GradedFeatures | RandomFeatures) -> int:
    """Return the number of features."""
    if isinstance(features, GradedFeatures):
        return len(features.places) * (1 + len(features.linear))
    return (1 + len(features.c)) * (1 + len(features.linear))


def feature_matrix(features: Features, X: Tensor) -> Tensor:
    """Evaluate features.

    Args:
        features: Any of the three kinds.
        X: Rows of inputs, `(n, d)`, float64; a row that a transform does not allow is not finite.

    Returns:
        H, `(n, k)`, differentiable by autograd.

    Raises:
        ShapeError: X is no matrix, or a module returns anything but `(n, k)`.

    Examples:
        >>> line = graded_features([Column(0, "identity", 0.0, 2.0)], 1)
        >>> feature_matrix(line, torch.tensor([[1.0], [4.0]]))
        tensor([[1.0000, 0.5000],
                [1.0000, 2.0000]])
    """
    if X.ndim != 2:
        raise ShapeError(f"X must have the shape (n, d), got {tuple(X.shape)}")
    if isinstance(features, GradedFeatures):
        H = _graded(features, X)
    elif isinstance(features, RandomFeatures):
        H = WAVES[features.wave](_inputs(features.columns, X) @ features.W.to(X) + features.c.to(X))
        H = torch.cat([torch.ones_like(X[:, :1]), H], 1)
    else:
        H = _module(features, X)
    return torch.cat([H, *(H * _enter(column, X)[:, None] for column in features.linear)], 1)


def _graded(features: GradedFeatures, X: Tensor) -> Tensor:
    H = X.new_ones(X.shape[0], len(features.places))
    highest = features.highest or _highest(features.places)
    for column, places, most in zip(features.columns, features.places.T, highest, strict=True):
        if most:
            H = H * _functions(column, X, most)[:, places]
    return H


def _functions(column: Column, X: Tensor, most: int) -> Tensor:
    """Return the functions of one column, `(n, most + 1)`, in rising degree."""
    if column.transform != "trig":
        return chebyshev_basis(_enter(column, X), most)
    x = X[:, column.place, None] * torch.arange(1, most // 2 + most % 2 + 1, device=X.device).to(X)
    waves = torch.stack([torch.cos(x), torch.sin(x)], 2).flatten(1)
    return torch.cat([torch.ones_like(waves[:, :1]), waves], 1)[:, : most + 1]


def _enter(column: Column, X: Tensor) -> Tensor:
    return (TRANSFORMS[column.transform](X[:, column.place]) - column.middle) / column.half


def _inputs(columns: Sequence[Column], X: Tensor) -> Tensor:
    parts: list[Tensor] = []
    for column in columns:
        if column.transform == "trig":
            parts += [torch.cos(X[:, column.place]), torch.sin(X[:, column.place])]
        else:
            parts.append(_enter(column, X))
    return torch.stack(parts, 1) if parts else X[:, :0]


def _module(features: ModuleFeatures, X: Tensor) -> Tensor:
    seen = X[:, [column.place for column in features.columns]]
    try:
        H = features.module(seen)
    except RuntimeError as error:  # of torch, about shapes or dtypes
        raise ShapeError(
            f"a module of features must take float64 of shape {tuple(seen.shape)}: {error}"
        ) from error
    if not isinstance(H, Tensor) or H.ndim != 2 or len(H) != len(X) or not H.shape[1]:
        came = tuple(H.shape) if isinstance(H, Tensor) else type(H).__name__
        raise ShapeError(f"a module of features must return ({len(X)}, features), got {came}")
    H = H if H.is_complex() else H.to(X.dtype)
    return torch.cat([torch.ones_like(H[:, :1]), H], 1)
