"""The search behind `features="auto"`: transforms, linear columns, target, family and size."""

import math
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from zeroproof.solve._moves import SPREADS, counts, possible
from zeroproof.solve.recipe import Recipe
from zeroproof.solve.score import CLEAN, ROUNDING, Table, slack

__all__ = ["Candidate", "SearchOptions", "Searched", "Split", "best_candidates", "search", "split"]

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


class SearchOptions(NamedTuple):
    """What a search may use."""

    families: tuple[str, ...] = ("polynomial", "random")
    degrees: tuple[int, int] | None = None  # fixed
    linear: tuple[int, ...] | None = None  # declared
    transforms: bool = True  # of columns and of the target
    affine: bool = False  # +inf and -inf differ: D keeps its sign
    budget: float = 10.0  # seconds
    seed: int = 0


class Split(NamedTuple):
    """Rows of the search: a core to fit, some held out at random, and the outer shell."""

    core: Tensor
    held: Tensor
    shell: Tensor


class Candidate(NamedTuple):
    """A recipe with what it reached.

    Attributes:
        recipe: What was fitted.
        score: √(E_random E_shell), E the mean squared chordal distance on held-out rows.
        weights: Number of coefficients.
        rho: The best ρ.
        random: E on rows held out at random.
    """

    recipe: Recipe
    score: float
    weights: int
    rho: float
    random: float


def split(X: Tensor, seed: int) -> Split:
    """Draw 1500 rows at most, or 4000: a tenth held out at random, the outer tenth as a shell.

    A row lies as far out as the most extreme of its ranks.
    """
    order = torch.randperm(len(X), generator=torch.Generator().manual_seed(seed))[
        : ROWS if X.shape[1] < 5 else ROWS_OF_MANY
    ]
    n = len(order)
    rank = X[order].argsort(0).argsort(0).double()
    # ranks of equal values are arbitrary: centred, they would call half of a two-valued column far
    out = ((rank + 0.5) / n * 2 - 1).abs().amax(1)
    part = n // 10
    by_distance = out.argsort()
    inner, shell = by_distance[: n - part].sort()[0], by_distance[n - part :]
    return Split(order[inner[part:]], order[inner[:part]], order[shell])


class Searched(NamedTuple):
    """Candidates by rising score, and the power of the row weights they were scored with."""

    candidates: list[Candidate]
    power: int


def search(
    X: Tensor,
    y: Tensor,
    options: SearchOptions | None = None,
    *,
    rows: Split | None = None,
    power: int | None = None,
) -> Searched:
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
        Candidates by rising score, none if nothing fits into the budget or the rows.

    Examples:
        >>> X = torch.rand(300, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        >>> y = X[:, :1] / (X[:, 1:] - 0.4)
        >>> best = search(X, y, SearchOptions(budget=2.0)).candidates[0]
        >>> best.recipe.linear, best.score < 1e-20
        ((0,), True)
    """
    options = options or SearchOptions()
    work = _Search(X, y, options, rows or split(X, options.seed))
    work.power = power or 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # few rows, common zeros: low scores
        work.run(find_power=power is None)
    found = sorted(work.tried.values(), key=lambda c: (c.score, c.weights))
    return Searched(found, work.power)


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
        self.table = Table(
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
        self.deadline = time.monotonic() + 2 * options.budget + 0.5

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
            if not known and (
                self.spent + self._cost(recipe) > allowed or time.monotonic() > self.deadline
            ):
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
        candidate = Candidate(recipe, math.inf, weights, 1.0, math.inf)
        if self._rows_suffice(recipe):
            score, rho, random = self.table.score(recipe, self.power, self._rows(weights), bar)
            candidate = Candidate(recipe, score, weights, rho, random)
        self.tried[recipe] = candidate
        return candidate
