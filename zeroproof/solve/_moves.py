"""The recipes that a search may try next."""

import math
from collections.abc import Iterable, Iterator
from itertools import chain, combinations
from typing import NamedTuple

import torch
from torch import Tensor

from zeroproof.solve.recipe import Recipe

SPREADS = (0.12, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
WIDTHS = (50, 100, 200, 400)
MOST_SUBSETS = 6  # columns; with more, only single linear columns are tried


class Moves(NamedTuple):
    """What may be changed."""

    transforms: tuple[tuple[str, ...], ...]  # of each column, those it allows
    targets: tuple[str, ...]
    linear: tuple[int, ...] | None  # declared
    degrees: tuple[int, int] | None  # fixed
    search_transforms: bool

    def starts(self, family: str, size: tuple[int, int]) -> Iterator[Recipe]:
        """Yield linear columns × {identity, log, trigonometric} × targets at one size."""
        columns = range(len(self.transforms))
        for kind in ("identity", "log", "trig"):
            transforms = tuple(kind if kind in self.transforms[i] else "identity" for i in columns)
            if kind != "identity" and kind not in transforms:
                continue
            for linear in self._subsets():
                for target in self.targets:
                    shown = tuple("identity" if i in linear else transforms[i] for i in columns)
                    yield Recipe(family, shown, linear, target, size)

    def _subsets(self) -> Iterable[tuple[int, ...]]:
        if self.linear is not None:
            return [self.linear]
        if not self.search_transforms:
            return [()]
        count = len(self.transforms)
        largest = count if count <= MOST_SUBSETS else 2
        return chain.from_iterable(combinations(range(count), r) for r in range(largest))

    def structures(self, recipe: Recipe) -> Iterator[Recipe]:
        """Yield other targets, linear columns and transforms, one change at a time."""
        if not self.search_transforms:
            return
        for target in self.targets:
            yield recipe._replace(target=target)
        for i, allowed in enumerate(self.transforms):
            if self.linear is None:
                other = set(recipe.linear) ^ {i}
                shown = tuple(
                    "identity" if j in other else t for j, t in enumerate(recipe.transforms)
                )
                if len(other) < len(shown):
                    yield recipe._replace(linear=tuple(sorted(other)), transforms=shown)
            if i not in recipe.linear:
                for transform in allowed:
                    shown = (*recipe.transforms[:i], transform, *recipe.transforms[i + 1 :])
                    yield recipe._replace(transforms=shown)

    def sizes(self, recipe: Recipe) -> Iterator[Recipe]:
        """Yield other degrees."""
        if self.degrees is not None:
            return
        p, q = recipe.size
        for size in (
            (p + 1, q + 1), (p + 1, q), (p, q + 1), (p + 2, q + 2), (p, 0), (p + 1, 0),
            (p, q - 1), (p - 1, q), (p - 1, q - 1), (p + 4, q + 4),
        ):  # fmt: skip
            if min(size) >= 0:
                yield recipe._replace(size=size)

    def widths(self, recipe: Recipe) -> Iterator[Recipe]:
        """Yield more random waves, of nearby spreads."""
        near = [s for s in SPREADS if 0.4 <= s / recipe.spread <= 2.5]
        for width in WIDTHS:
            if width >= recipe.size[0]:
                yield from (recipe._replace(size=(width, width), spread=s) for s in near)
        yield recipe._replace(size=(recipe.size[0], 0))


def possible(
    X: Tensor,
    y: Tensor,
    *,
    linear: tuple[int, ...] | None,
    degrees: tuple[int, int] | None,
    search_transforms: bool,
) -> Moves:
    """Return the moves that inputs and targets allow."""
    positive = not y.is_complex() and bool((y[torch.isfinite(y)] > 0).all())
    targets = ("y", "square", "log") if positive and search_transforms else ("y",)
    transforms = tuple(_allowed(x) if search_transforms else ("identity",) for x in X.T)
    return Moves(transforms, targets, linear, degrees, search_transforms)


def counts(recipe: Recipe) -> tuple[int, int]:
    """Return the number of features of N and of D."""
    linear = 1 + len(recipe.linear)
    p, q = recipe.size
    if recipe.family in {"random", "fourier"}:
        return (p + 1) * linear, q + 1
    # a trigonometric column has two functions of each degree
    wide = [2 if t == "trig" else 1 for i, t in enumerate(recipe.transforms)
            if i not in recipe.linear]  # fmt: skip
    if recipe.family == "chebyshev":
        counts = [math.prod(w * d + 1 for w in wide) for d in (p, q)]
    else:
        counts = [_graded_count(wide, d) for d in (p, q)]
    return counts[0] * linear, counts[1]


def _allowed(x: Tensor) -> tuple[str, ...]:
    names = ["identity"]
    low, high = float(x.min()), float(x.max())
    if low > 0 and high > 3 * low:
        names += ["log", "inverse", "sqrt"]
    if high - low <= 4 * math.pi:
        names.append("trig")
    return tuple(names)


def _graded_count(wide: list[int], degree: int) -> int:
    counts = [1] + [0] * degree
    for w in wide:
        counts = [counts[g] + w * sum(counts[:g]) for g in range(degree + 1)]
    return sum(counts)
