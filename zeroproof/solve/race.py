"""The rules of a race between models: honest folds, one noise, one standard error.

Nothing here knows what a model is. A candidate hands in its squared held-out errors, row by row;
the smallest one that the best does not beat by more than a standard error wins, and a model with a
pole among the rows has to win by more than that.
"""

import math
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "NOISES",
    "POLE",
    "SIGNIFICANT",
    "TYPICAL",
    "Budget",
    "Entry",
    "Held",
    "RaceFit",
    "ahead",
    "deviation",
    "fewest_seen",
    "folds_of",
    "inner_rows",
    "likeliest",
    "noise_size",
    "ties",
    "typical_size",
    "whole_groups",
    "winner",
    "with_all_groups",
]

Floats = NDArray[Any]

LEAVE_ONE_OUT = 30  # distinct inputs, or groups; more are cut into ten folds
FOLDS = 10
# noise grows as √(c² + (y / s)²): in proportion to y, in between, not at all
NOISES = {"relative": 1e-3, "mixed": 0.3, "additive": 1e6}
SMALL_NOISE = 0.2  # of a target, beside its size
_ZEROS = 0.01  # share of targets
_FEWEST = 8  # rows that tell how noise grows
_GAIN, _GAIN_SPREAD = 0.1, 2.0  # of log likelihood for each row, and in standard errors
TYPICAL = 100.0  # ratio of typical squared errors that decides alone
SURELY = TYPICAL**2  # that decides for a fit with nearly as many coefficients as rows
# standard errors that a pole, and a curve where a plain model would do, must win by
POLE, BEND = 3.0, 2.0
SIGNIFICANT = 4.0  # standard errors of N at a zero of D: less, and noise could have made the pole
_SMALLEST = 1e-5  # of the largest targets: a scale below it is that of rows that vanish
_BODY = 0.95  # of the rows; the others may lie next to a pole, where an error is luck
_WINSORISED = 4.0  # times the root mean square of the body: a larger error counts as that large


def _numbered(values: NDArray[Any]) -> NDArray[np.intp]:
    return np.unique(values, axis=0, return_inverse=True)[1].ravel()


def folds_of(
    X: Floats, seed: int = 0, group: NDArray[Any] | None = None
) -> tuple[NDArray[np.intp], int]:
    """Return the fold of each row and the number of distinct inputs; equal inputs share a fold.

    Args:
        X: Inputs, `(n, d)`.
        seed: Of the folds.
        group: Of each row, `(n,)`: folds hold whole groups then, whatever inputs they share.
    """
    part = place = _numbered(X)
    if group is not None and np.ptp(group) > 0:
        part = _numbered(group)
    number = np.arange(int(part.max()) + 1)
    if len(number) > LEAVE_ONE_OUT:
        number = np.random.default_rng(seed).permutation(len(number)) % FOLDS
    return number[part], int(place.max()) + 1


def fewest_seen(X: Floats, fold: NDArray[np.intp]) -> int:
    """Return how many distinct inputs are left, at least, where a fold is held out."""
    place = _numbered(X)
    return min(len(np.unique(place[fold != f])) for f in np.unique(fold))


def whole_groups(
    group: NDArray[Any], share: float, seed: int = 0, far: Floats | None = None
) -> NDArray[np.bool_]:
    """Mark about a share of the rows, whole groups by chance; never the largest, but some other.

    Args:
        group: Of each row, `(n,)`; of a single group no row is marked.
        share: Of the rows.
        seed: Of the choice.
        far: Take the groups first where the mean of this is large, `(n,)`.
    """
    number = _numbered(group)
    count = np.bincount(number)
    rank = np.random.default_rng(seed).random(len(count))
    if far is not None:
        rank = -np.bincount(number, far) / count
    rank[count.argmax()] = np.inf
    order = rank.argsort()[:-1]
    before = count[order].cumsum() - count[order]
    return np.isin(number, order[before < share * len(group)])


def with_all_groups(order: NDArray[Any], group: NDArray[Any] | None) -> NDArray[Any]:
    """Return an order of rows in which one of each group comes first: a part has several then."""
    if group is None:
        return order
    first = np.sort(np.unique(group[order], return_index=True)[1])
    return np.r_[order[first], np.delete(order, first)]


def inner_rows(X: Floats, fold: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Mark rows that lie among those of the other folds in every column: no extrapolation."""
    inside = np.ones(len(X), bool)
    for f in np.unique(fold):
        own = fold == f
        low, high = X[~own].min(0), X[~own].max(0)
        inside[own] = ((X[own] >= low) & (X[own] <= high)).all(1)
    return inside if inside.sum() >= 4 else np.ones(len(X), bool)


def deviation(y: Floats, noise: str) -> Floats:
    """Return how large the noise of each target is, up to a factor, with geometric mean 1.

    Args:
        y: Targets, finite.
        noise: One of `NOISES`.
    """
    g = noise_size(y, noise, typical_size(y))
    return g / np.exp(np.mean(np.log(g)))


def typical_size(y: Floats) -> float:
    """Return the size of targets that noise is set beside."""
    size = np.abs(y)
    return max(float(np.median(size)), _SMALLEST * float(np.quantile(size, 0.95))) or 1.0


def noise_size(y: Floats, noise: str, typical: float) -> Floats:
    """Return how large the noise of each target is, up to one factor for all.

    Args:
        y: Targets, finite.
        noise: One of `NOISES`.
        typical: From `typical_size`.
    """
    c = NOISES[noise]
    return np.hypot(c * typical, np.abs(y)) if c < 1 else np.full(y.shape, typical)


def likeliest(errors: dict[str, Floats], y: Floats) -> str:
    """Return the noise under which held-out errors are likeliest.

    Deviations have geometric mean 1, so that the smallest mean size of error / deviation is the
    largest likelihood of Laplace's law, which single rows next to a pole hardly move. A deviation
    that follows y is read off targets with their noise, so it is allowed only where that is small:
    else low targets would weigh more than high ones of the same truth. It also has to be clearly
    likelier than one that does not: a model that is not quite right errs in y where it is weighed
    least.

    Args:
        errors: Sizes of held-out errors for each noise, `(n, m)`, where they count.
        y: The targets there.
    """
    if len(y) < _FEWEST or np.mean(np.abs(y) <= 1e-12 * np.abs(y).max()) > _ZEROS:
        return "additive"  # few rows do not tell; where y is 0 noise that follows it would be none
    over = {noise: (error / deviation(y, noise)).mean(1) for noise, error in errors.items()}
    plain = over["additive"]

    def clearly(noise: str) -> bool:
        gain = np.log(plain.mean() / over[noise].mean())
        apart = plain / plain.mean() - over[noise] / over[noise].mean()
        spread = apart.std(ddof=1) / np.sqrt(len(apart))
        small = np.median(errors[noise] / noise_size(y, noise, typical_size(y))) < SMALL_NOISE
        return bool(small and gain > max(_GAIN, _GAIN_SPREAD * spread))

    allowed = [noise for noise in errors if noise == "additive" or clearly(noise)]
    return min(allowed, key=lambda noise: over[noise].mean())


class Budget:
    """CPU seconds of this process that a fit may spend, and what was not tried within them.

    CPU seconds do not pass while a busy machine lets others run. Several threads that work at once
    each count.
    """

    def __init__(self, seconds: float = math.inf, bar: Any = None) -> None:
        self.start = time.process_time()
        self.end, self.bar = self.start + seconds, bar  # a progress bar in seconds
        self.cut: list[str] = []

    def left(self) -> float:
        """Return the seconds that are left, below 0 where they are overdrawn."""
        now = time.process_time()
        if self.bar is not None:
            self.bar.update(min(now - self.start, self.bar.total) - self.bar.n)
        return self.end - now

    def part(self, share: float) -> "Budget":
        """Return a share of what is left; what it does not suffice for is noted here too."""
        one = Budget(share * self.left(), self.bar)
        one.start, one.cut = self.start, self.cut
        return one

    def allows(self, what: str, seconds: float = 0.0) -> bool:
        """Tell whether so many seconds are left; note what is not tried otherwise."""
        if self.left() > seconds:
            return True
        if what not in self.cut:
            self.cut.append(what)
        return False


class Held:
    """Squared held-out errors of one contestant over the noise.

    Args:
        error: Squares, `(n,)`.
        fold: Fold of each row.
        noise: One of `NOISES`. Where it follows y, rows next to a pole have errors that are luck,
            and large errors are cut; where it does not, an error in y is what counts.
    """

    def __init__(self, error: Floats, fold: NDArray[np.intp], noise: str = "relative") -> None:
        self.error, self.fold, self.cut = error, fold, noise != "additive"
        self.typical = float(np.median(error))
        self.body = float(np.sort(error)[: int(np.ceil(_BODY * len(error)))].mean())

    def by_fold(self, error: Floats) -> Floats:
        """Return means over the folds that have rows."""
        count = np.bincount(self.fold)
        return np.bincount(self.fold, error)[count > 0] / count[count > 0]

    def capped(self, unit: float) -> Floats:
        """Return the errors, large ones cut; `unit` is the smallest mean square of a body."""
        return np.minimum(self.error, _WINSORISED**2 * unit) if self.cut else self.error

    def behind(self, best: "Held", unit: float) -> tuple[float, float, float]:
        """Compare with the best.

        Returns:
            Mean and standard error, over folds, of the paired difference; and how many times larger
            the squared error of a typical fold is.
        """
        d = self.by_fold(self.capped(unit) - best.capped(unit))
        spread = float(d.std(ddof=1) / np.sqrt(len(d))) if len(d) > 1 else np.inf
        ratio = self.by_fold(self.error) / best.by_fold(best.error)
        return float(d.mean()), spread, float(np.median(ratio))


class Entry:
    """A candidate that was fitted, to all rows and to those outside of each fold.

    Args:
        candidate: What it is: `free` coefficients, `name`, `q` above 0 if it has a denominator.
        fit: Parameters of all rows.
        answers: Of rows held out, `(n, m)`.
        floor: Errors below it are equal, `(n, m)`.
    """

    held: "Held"
    price = 0.0  # standard errors that it must win by
    level = 0.0  # how far from plain it is; each pole among the rows raises it
    exact = False  # right to rounding in rows held out?

    def __init__(
        self, candidate: Any, fit: tuple[Floats, ...], answers: Floats, floor: Floats
    ) -> None:
        self.candidate, self.fit, self.answers, self.floor = candidate, fit, answers, floor
        self.free, self.name = float(candidate.free), str(candidate.name)


class RaceFit(NamedTuple):
    """The winner of a race and what it was chosen from."""

    entry: Any  # an Entry
    entries: tuple[Any, ...]  # all that took part
    tied: tuple[Any, ...]  # those that the winner cannot be told from, the winner first
    noise: str  # one of NOISES
    deviation: Floats  # of the noise, `(n, m)`
    fold: NDArray[np.intp]
    inner: NDArray[np.bool_]
    distinct: int


def winner(entries: Sequence[Any], slack: float = 1.0) -> Any:
    """Return the smallest contestant within one standard error, or `slack` of them, of the best.

    One with a price must be ahead of the best of a lower level by that many standard errors, or
    tenfold in typical error; so must one with more poles, by `BEND`. Against a constant or a line
    half the squared error will do: few folds have errors too unequal for a standard error to mean
    much.
    """
    unit = min(e.held.body for e in entries)

    def error(e: Any) -> float:
        return float(e.held.capped(unit).mean())

    def outdone(e: Any) -> bool:
        """Is a smaller one as good? A wide standard error is no merit."""
        return any(o.free < e.free and o.level <= e.level and error(o) < error(e) for o in entries)

    entries = [e for e in entries if not outdone(e)]
    best = min(entries, key=error)

    def tied(e: Any) -> bool:
        mean, spread, ratio = e.held.behind(best.held, unit)
        return mean <= slack * spread and ratio <= TYPICAL

    taken = min(filter(tied, entries), key=lambda e: (e.free, error(e)))
    plainer = [e for e in entries if e.level < taken.level]
    if not plainer:
        return taken
    rival = min(plainer, key=error)
    price = BEND if rival.price == POLE else taken.price
    halved = rival.free <= 2 and float(rival.held.error.mean()) > 2 * float(taken.held.error.mean())
    # with so many coefficients a fit may be near most rows and mean nothing
    meant = taken.exact or 2 * taken.free <= len(taken.held.error)
    typical = TYPICAL if meant else SURELY
    clear = (halved and taken.price < POLE) or ahead(taken.held, rival.held, price, typical)
    return taken if clear else winner(plainer, slack)


def ahead(one: Held, other: Held, price: float, typical: float = TYPICAL) -> bool:
    """Tell whether one set of errors is clearly below another."""
    mean, spread, ratio = other.behind(one, min(one.body, other.body))
    return mean > price * spread or ratio > typical


def ties(chosen: Any, entries: Sequence[Any]) -> list[Any]:
    """Return the others that errors cannot tell from the winner, the best first."""
    unit = min(e.held.body for e in entries)

    def near(e: Any) -> bool:
        mean, spread, ratio = e.held.behind(chosen.held, unit)
        return e is not chosen and mean <= spread and ratio <= TYPICAL

    return sorted(filter(near, entries), key=lambda e: e.held.body)
