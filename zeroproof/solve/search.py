"""The search behind `features="auto"`: transforms, linear columns, target, family and size.

`Moves` says which recipes may be tried, `SearchRows` how well one does on rows held out.
"""

import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import chain, combinations
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from zeroproof.layers.features import ModuleFeatures, feature_matrix
from zeroproof.projective.angle import chordal_distance, misalignment
from zeroproof.projective.tuples import Pair
from zeroproof.solve.noise import noise_power, row_weight
from zeroproof.solve.path import readout_path
from zeroproof.solve.race import Budget, whole_groups, with_all_groups
from zeroproof.solve.recipe import Recipe, answers, bases, lift

__all__ = [
    "CLEAN",
    "FLOOR",
    "ROUNDING",
    "Candidate",
    "SearchOptions",
    "SearchRows",
    "Split",
    "best_candidates",
    "chordal_error",
    "oriented",
    "search",
    "slack",
    "split",
]

ROWS, ROWS_OF_MANY = 1500, 4000  # more do not change which recipe wins; of 5 columns and more
STRUCTURAL, LARGER = 1.2, 1.5  # factors a move must gain
SMALL = ((2, 2), (1, 1), (1, 0), (0, 0))  # sizes to start from, the largest that rows allow
NARROW = (50, 25, 12, 6, 3)  # the widest that rows allow is where waves start
_AGAIN = 8  # candidates that are scored again with other row weights
_FEW = 400  # rows that a start is fitted to
_START_SHARE = 0.7  # of the time for polynomials
_BEST_STARTS = 3
_MISFIT = 0.04  # mean squared relative error: the model is wrong rather than the data noisy
_PLAIN_DEGREES = 10
_FIRST_SHARE = 0.8  # of the budget, for polynomials when waves follow
_RATE = 6e9  # floating-point operations per second, for costs that do not depend on the machine
Next = Callable[[Recipe], Iterator[Recipe]]
SPREADS = (0.12, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
WIDTHS = (50, 100, 200, 400)
MOST_SUBSETS = 6  # columns; with more, only single linear columns are tried
CLEAN = 1e-27  # score at which nothing is left to find
ROUNDING = 1e-20  # scores below it are those of clean data
FLOOR = 1e-32
RHOS = (1e-2, 1e-4, 1e-6, 1e-9, 1e-12, 1e-19, 1e-30)
_HOPELESS = 100.0  # times the score to beat, after one sweep


class SearchOptions(NamedTuple):
    """What a search may use."""

    families: tuple[str, ...] = ("polynomial", "random")
    degrees: tuple[int, int] | None = None  # fixed
    linear: tuple[int, ...] | None = None  # declared
    transforms: bool = True  # of columns and of the target
    affine: bool = False  # +inf and -inf differ: D keeps its sign
    budget: float = 10.0  # seconds
    seed: int = 0
    clock: Budget | None = None  # of the whole fit


class Split(NamedTuple):
    """Rows of the search: a core to fit, some held out at random, and the outer shell."""

    core: Tensor
    held: Tensor
    shell: Tensor


class Candidate(NamedTuple):
    """A way to fit, with what it reached.

    Attributes:
        recipe: What was fitted; of given features its family is where they come from.
        score: √(E_random E_shell), E the mean squared chordal distance on held-out rows.
        weights: Number of coefficients.
        features: Those given.
        centres: Points to which distances are further columns, `(c, d)`.
        rho: The best ρ.
        random: E on rows held out at random.
    """

    recipe: Recipe
    score: float = math.inf
    weights: int = 0
    features: ModuleFeatures | None = None
    centres: Tensor | None = None
    rho: float = 1.0
    random: float = math.inf

    @property
    def name(self) -> str:
        """Return the family."""
        return self.recipe.family


def split(X: Tensor, seed: int, group: Tensor | None = None) -> Split:
    """Draw 1500 rows at most, or 4000: a tenth held out at random, the outer tenth as a shell.

    A row lies as far out as the most extreme of its ranks. Of several groups, whole ones are held
    out, and the shell is made of those that lie farthest out; of two it is what is held out.
    """
    order = torch.randperm(len(X), generator=torch.Generator().manual_seed(seed))
    if group is not None:
        order = torch.from_numpy(with_all_groups(order.numpy(), group.numpy()))
    order = order[: ROWS if X.shape[1] < 5 else ROWS_OF_MANY]
    n = len(order)
    rank = X[order].argsort(0).argsort(0).double()
    # ranks of equal values are arbitrary: centred, they would call half of a two-valued column far
    out = ((rank + 0.5) / n * 2 - 1).abs().amax(1)
    part = n // 10
    if group is not None and len(group[order].unique()) > 1:
        of = group[order].numpy()
        held = whole_groups(of, part / n, seed)
        shell = held.copy()
        if len(np.unique(of[~held])) > 1:
            shell[~held] = whole_groups(of[~held], part / n, far=out.numpy()[~held])
            shell &= ~held
        return Split(*(order[torch.from_numpy(at)] for at in (~held & ~shell, held, shell)))
    by_distance = out.argsort()
    inner, shell = by_distance[: n - part].sort()[0], by_distance[n - part :]
    return Split(order[inner[part:]], order[inner[:part]], order[shell])


def search(
    X: Tensor,
    y: Tensor,
    options: SearchOptions | None = None,
    *,
    rows: Split | None = None,
    power: int | None = None,
) -> tuple[list[Candidate], int]:
    r"""Try recipes, cheapest first, and return all that were scored, the best first.

    Starts are all sets of linear columns (for up to 6 columns) × {identity, log, trigonometric} ×
    targets at a small size, for half of the time; then one column, the target or the set of linear
    columns changes, accepted for a gain of 1.2 in the score; then the size, for 1.5. Random waves
    follow with the structure found. The search ends at a score of 1e-27, when no move is left, or
    at the budget, in estimated seconds: the same seed gives the same answer on a busy machine too,
    unless twice the budget passes on the clock.

    Args:
        X: Rows of inputs, `(n, d)`, finite, no column constant.
        y: Targets over their scale, `(n, m)`, real or complex, inf and nan allowed; they share D.
        options: See `SearchOptions`.
        rows: Which rows to use, from `split`.
        power: p of the row weights (1 + |y|²)^p, which the noise of y asks for (see
            `noise_power`). None: 0 at first, then read off the best candidate, and what was best is
            scored again.

    Returns:
        Candidates by rising score, none if nothing fits into the budget or the rows, and the power
        they were scored with.

    Examples:
        >>> X = torch.rand(300, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        >>> y = X[:, :1] / (X[:, 1:] - 0.4)
        >>> (best, *_), power = search(X, y, SearchOptions(budget=2.0))
        >>> best.recipe.linear, best.score < 1e-20
        ((0,), True)
    """
    options = options or SearchOptions()
    work = _Search(X, y, options, rows or split(X, options.seed))
    work.power = power or 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # few rows, common zeros: low scores
        work.run(find_power=power is None)
    missed = len(work.skipped - work.tried.keys())
    if missed and not any(c.score <= CLEAN for c in work.tried.values()):
        work.clock.cut.append(f"{missed} transforms and sizes of N / D")
    found = sorted(work.tried.values(), key=lambda c: (c.score, c.weights))
    return found, work.power


def best_candidates(found: list[Candidate], rows: int, most: int = 5) -> list[Candidate]:
    """Return one candidate of each structure that is at most twice as bad as the best.

    Of the sizes of one structure that are alike the smallest is taken: they say the same.

    Args:
        found: From `search`, by rising score.
        rows: How many were held out.
        most: How many to return, the best first.
    """
    structures: dict[tuple[object, ...], Candidate] = {}
    for c in found:
        if c.score > max(2 * found[0].score, CLEAN) or c.score == math.inf:
            break
        key = (c.recipe.family, *c.recipe[1:4])
        mine = structures.setdefault(key, c)
        if c.weights < mine.weights and c.score <= max(slack(mine.score, rows) * mine.score, CLEAN):
            structures[key] = c
    return sorted(structures.values(), key=lambda c: c.score)[:most]


class _Search:
    def __init__(self, X: Tensor, y: Tensor, options: SearchOptions, rows: Split) -> None:
        used = torch.cat(rows)
        self.table = SearchRows(
            X[used], y[used], len(rows.core), len(rows.held), options.affine, options.seed
        )
        self.moves = possible(
            X[used],
            y,
            linear=options.linear,
            degrees=options.degrees,
            search_transforms=options.transforms,
        )
        self.options = options
        self.tried: dict[Recipe, Candidate] = {}
        self.power, self.spent, self.quick = 0, 0.0, False
        self.own = Budget(2 * options.budget + 0.5)
        self.clock = options.clock or self.own
        self.skipped: set[Recipe] = set()

    def run(self, *, find_power: bool) -> None:
        """Search all families in turn; the second takes over the structure of the first."""
        structure: Candidate | None = None
        for place, family in enumerate(self.options.families):
            last = place + 1 == len(self.options.families)
            allowed = self.options.budget * (1 if last else _FIRST_SHARE)
            if family in {"polynomial", "chebyshev"}:
                structure = self._polynomials(family, allowed, find_power=find_power)
            else:
                self._waves(family, structure, allowed)
            if structure is not None and structure.score <= CLEAN:
                return

    def _polynomials(self, family: str, allowed: float, *, find_power: bool) -> Candidate | None:
        best = None
        self.quick = True
        for size in [self.options.degrees] if self.options.degrees else SMALL:
            starts = sorted(self.moves.starts(family, size), key=self._cost)
            best = self._best(starts, None, 1.0, self.spent + _START_SHARE * (allowed - self.spent))
            if best is not None:
                break  # otherwise the rows are too few for this size
        self.quick = False
        best = None if best is None else self._rescored(_BEST_STARTS)
        best = self._refined(best, allowed)
        if find_power and best is not None and best.score > ROUNDING:
            best = self._weighted(best, allowed)
        if best is not None and best.score > ROUNDING and self.options.degrees is None:
            best = self._best(self._plain(best.recipe), best, 1.0, allowed)
        return best

    def _plain(self, recipe: Recipe) -> Iterator[Recipe]:
        """Yield recipes without poles: on noisy data poles have to earn their place."""
        alike = recipe._replace(
            transforms=("identity",) * len(recipe.transforms), linear=self.options.linear or ()
        )
        for degree in range(1, _PLAIN_DEGREES + 1):
            for each in dict.fromkeys((recipe, alike._replace(target="y"))):
                yield each._replace(size=(degree, 0))

    def _refined(self, best: Candidate | None, allowed: float) -> Candidate | None:
        while best is not None and best.score > CLEAN:
            before = best
            best = self._climb(best, self.moves.structures, STRUCTURAL, allowed)
            best = self._climb(best, self.moves.sizes, LARGER, allowed)
            if best is before:
                break
        return best

    def _weighted(self, best: Candidate, allowed: float) -> Candidate | None:
        """Score the best again with the row weights that the noise asks for, and go on from it."""
        power = self.table.noise(best.recipe, best.rho)
        if not power:
            return best
        before, self.power = self.tried, power
        again = self._rescored(_AGAIN)
        if power == 1 and again.random > _MISFIT:
            self.tried, self.power = before, 0
            return best
        return self._refined(again, allowed)

    def _rescored(self, count: int) -> Candidate:
        """Score the best anew, forget the others, and return the best."""
        ranked = sorted(self.tried.values(), key=lambda c: c.score)[:count]
        self.tried = {}
        return min((self._scored(c.recipe, math.inf) for c in ranked), key=lambda c: c.score)

    def _waves(self, family: str, structure: Candidate | None, allowed: float) -> None:
        plain = Recipe(family, ("identity",) * self.table.X.shape[1], self.options.linear or ())
        fewest = next((w for w in NARROW if self._rows_suffice(plain._replace(size=(w, w)))), 1)
        plain = plain._replace(size=(fewest, fewest))
        found = [plain]
        if structure is not None:
            taken = structure.recipe._replace(family=family, size=plain.size)
            found = [taken, plain] if taken[1:4] != plain[1:4] else [taken]
        spread = [each._replace(spread=s) for s in SPREADS for each in found]
        best = self._best(spread, None, 1.0, allowed)
        if best is not None:
            self._climb(best, self.moves.widths, LARGER, allowed)

    def _climb(self, best: Candidate, moves: Next, gain: float, allowed: float) -> Candidate:
        while best.score > CLEAN:
            ahead = self._best(moves(best.recipe), best, gain, allowed)
            if ahead is None or ahead is best:
                return best
            best = ahead
        return best

    def _best(
        self, recipes: Iterable[Recipe], best: Candidate | None, gain: float, allowed: float
    ) -> Candidate | None:
        """Score recipes and return the best of them, or `best` if none is better by the gain."""
        bar = math.inf if best is None else best.score / gain
        for recipe in recipes:
            known = recipe in self.tried
            late = self.own.left() < 0 or self.clock.left() < 0
            if not known and (self.spent + self._cost(recipe) > allowed or late):
                self.skipped.add(recipe)
                continue
            candidate = self.tried.get(recipe) or self._scored(recipe, bar)
            if candidate.score < bar:
                best, bar = candidate, candidate.score
            if bar <= CLEAN:
                break
        return best

    def _cost(self, recipe: Recipe) -> float:
        k_N, k_D = counts(recipe)
        m, k = self.table.y.shape[1], k_N + k_D
        flops = 8 * m * self._rows(k) * k**2 + 30 * (m * k_N**3 + k**3)
        return 0.015 + flops / _RATE

    def _rows(self, weights: int) -> int:
        """Return how many rows to fit: a part of them while starts are compared."""
        return min(max(_FEW, 4 * weights), self.table.train) if self.quick else self.table.train

    def _rows_suffice(self, recipe: Recipe) -> bool:
        # a constant D: ρ alone makes it unique
        return sum(counts(recipe)) <= 0.8 * self.table.train or not recipe.size[1]

    def _scored(self, recipe: Recipe, bar: float) -> Candidate:
        self.spent += self._cost(recipe)
        weights = sum(counts(recipe))
        candidate = Candidate(recipe, weights=weights)
        if self._rows_suffice(recipe):
            with suppress(ArithmeticError, IndexError, RuntimeError, ValueError):  # it drops out
                score, rho, random = self.table.score(recipe, self.power, self._rows(weights), bar)
                candidate = candidate._replace(score=score, rho=rho, random=random)
        self.tried[recipe] = candidate
        return candidate


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
    if high - low <= 4 * math.pi and bool((x != x.round()).any()):  # codes are no angles
        names.append("trig")
    return tuple(names)


def _graded_count(wide: list[int], degree: int) -> int:
    counts = [1] + [0] * degree
    for w in wide:
        counts = [counts[g] + w * sum(counts[:g]) for g in range(degree + 1)]
    return sum(counts)


class SearchRows(NamedTuple):
    """Rows of a search: those to fit first, then rows held out at random, then the shell."""

    X: Tensor
    y: Tensor  # over its scale, (n, m)
    train: int  # rows to fit
    held: int  # rows held out at random
    affine: bool
    seed: int

    def parts(self) -> tuple[slice, slice]:
        """Return the held-out rows and the shell; the fitted rows where none can be spared."""
        if not self.held:
            return slice(0, self.train), slice(0, self.train)
        end = self.train + self.held
        return slice(self.train, end), slice(end, len(self.X))

    def linear(self, recipe: Recipe) -> tuple[Tensor, Tensor, Pair]:
        """Return features of N and D and the targets of a recipe."""
        maps = bases(recipe, self.X, self.seed)
        H_N, H_D = (feature_matrix(each, self.X) for each in maps)
        return H_N, H_D, lift(recipe.target, self.y)

    @torch.no_grad()
    def score(
        self, recipe: Recipe, power: int, rows: int, bar: float
    ) -> tuple[float, float, float]:
        """Fit the first `rows` along ρ, with row weights of a power.

        Return √(E_random E_shell) of the best ρ, that ρ, and E_random.

        The fit ends after one sweep if it is far above the score `bar`.
        """
        H_N, H_D, Y = self.linear(recipe)
        train = slice(0, rows)
        weight = row_weight(self.y, power)
        best, pilot = (math.inf, RHOS[0], math.inf), 1e-12
        for sweeps in (1, 3):
            path = readout_path(
                H_N[train], *(part[train] for part in Y), H_D=H_D[train], weight=weight[train],
                rhos=RHOS, sweeps=sweeps, rho=pilot,
            )  # fmt: skip
            for rho, a, b in zip(path.rhos, path.a, path.b, strict=True):
                N, D = H_N.to(a.dtype) @ a, H_D.to(b.dtype) @ b
                random, shell = self.errors(recipe.target, N, D, weight)
                best = min(best, (math.sqrt(random * shell), rho, random))
            if best[0] > _HOPELESS * bar:
                break
            pilot = best[1]
        return best

    def errors(self, target: str, N: Tensor, D: Tensor, weight: Tensor) -> tuple[float, float]:
        """Return the errors of tuples of T(y) on held-out rows and on the shell."""
        N, D = answers(target, N, D)
        if self.affine:
            N, D = oriented(N, D)
        held, shell = (
            chordal_error(N[part], D[part], self.y[part], weight[part], affine=self.affine)
            for part in self.parts()
        )
        return max(held, FLOOR), max(shell, FLOOR)

    @torch.no_grad()
    def noise(self, recipe: Recipe, rho: float) -> int:
        """Return how errors grow with y, from a fit to relative errors, which places poles well."""
        H_N, H_D, Y = self.linear(recipe)
        train, weight = slice(0, self.train), row_weight(self.y, 1)
        path = readout_path(
            H_N[train], *(part[train] for part in Y), H_D=H_D[train], weight=weight[train],
            rhos=(rho,),
        )  # fmt: skip
        a, b = path.a[0], path.b[0]
        N, D = answers(recipe.target, H_N.to(a.dtype) @ a, H_D.to(b.dtype) @ b)
        answer = N / torch.where(D == 0, torch.nan, D)
        inner = slice(0, self.train + self.held)  # not the shell, which no row of the fit reaches
        return noise_power((answer - self.y)[inner].flatten(), answer[inner].flatten())


def slack(score: float, rows: int) -> float:
    """Return the factor by which scores may differ and still be alike, with so many rows held out.

    On clean data, where rounding decides, 2; on noisy data about a standard error of a mean square.
    """
    return 2.0 if score < ROUNDING or not rows else min(2.0, 1 + 1 / math.sqrt(rows))


def oriented(N: Tensor, D: Tensor) -> tuple[Tensor, Tensor]:
    """Return tuples with D > 0 in most rows; their sign then tells +inf from -inf."""
    sign = torch.where(D.sign().sum(0) < 0, -1.0, 1.0).to(N)
    return N * sign, D * sign


def chordal_error(
    N: Tensor, D: Tensor, y: Tensor, weight: Tensor, *, affine: bool = False
) -> float:
    """Return the mean weighted squared chordal distance, or with `affine` 2(1 - cos), to targets.

    With the weights of power 1 it is a mean squared relative error, with power 2 an absolute one;
    no row counts for more than a relative error of 1.

    Args:
        N: Numerators, `(n, m)`.
        D: Denominators, `(n, m)` or `(n, 1)`.
        y: Targets over their scale, `(n, m)`, inf and nan allowed.
        weight: Row weights, `(n,)`.
        affine: Whether +inf and -inf differ.
    """
    tuples = (N, D.expand_as(N), *lift("y", y))
    square = 2 * misalignment(*tuples) if affine else chordal_distance(*tuples).square()
    mean = weight * square.nan_to_num(nan=1.0).mean(1)
    size = 1 + torch.where(torch.isfinite(y), y, 0).abs().square().mean(1)
    # an answer that is wrong altogether counts as such and no more: single rows next to a pole
    # would else decide between candidates that all miss them
    most = (weight / size).clamp(min=1) * (4 if affine else 1)
    return float(torch.minimum(mean, most).mean())
