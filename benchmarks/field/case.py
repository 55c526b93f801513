"""A case: rows to fit, places to judge on, what is measured there and the bounds to keep."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from benchmarks.field.measures import Ours

Array = NDArray[Any]
Predict = Callable[[Array], Array]
Function = Callable[..., Array]
Errors = dict[str, float]  # of the rivals, by name
FLOOR = 1e-15  # below it two errors are equal: rounding


class Draw(NamedTuple):
    """The rows of one seed."""

    X: Array
    y: Array
    T: Array  # where answers are judged: fresh rows
    truth: Array  # what they should be: without noise, or held-out measurements
    poles: Array | None = None  # the true ones; inside the data for real targets
    residues: Array | None = None
    plain: tuple[Array, Array] | None = None  # the same rows without their outliers


class Bound(NamedTuple):
    """A limit of one figure over the seeds: median, mean, p90 or worst."""

    figure: str
    limit: float
    least: bool = False


class Measure(NamedTuple):
    """One line of the table; either from the error alone, as for the rivals, or from our model."""

    name: str
    bounds: tuple[Bound, ...] = ()
    scaled: Callable[[float, Errors], float] | None = None
    of: "Callable[[Draw, Ours], float | None] | None" = None  # None: the model does not tell it


class Formula(NamedTuple):
    """The right formula, for curve_fit."""

    function: Function
    starts: tuple[tuple[float, ...], ...]
    relative: bool = False  # noise in proportion to y


class Case(NamedTuple):
    """One case of the table."""

    name: str
    group: str
    draw: Callable[[int], Draw]
    error: Callable[[Array, Draw], float]
    measures: tuple[Measure, ...]
    rivals: tuple[str, ...] = ()
    references: tuple[str, ...] = ()  # rivals that a measure needs: they always run
    formula: Formula | None = None
    seeds: int = 5
    conjugate: bool = False  # a complex signal of a real system, over frequency
    held_back: bool = False


def most(figure: str, limit: float) -> Bound:
    """Return an upper bound."""
    return Bound(figure, limit)


def least(figure: str, limit: float) -> Bound:
    """Return a lower bound."""
    return Bound(figure, limit, least=True)


def error_line(name: str, *bounds: Bound) -> Measure:
    """Return the line of the error itself."""
    return Measure(name, bounds, scaled=lambda error, _: error)


def over(references: tuple[str, ...], *bounds: Bound) -> Measure:
    """Return the line of the error over the smallest of the references' errors."""

    def scaled(error: float, errors: Errors) -> float:
        return max(error, FLOOR) / max(min(errors[name] for name in references), FLOOR)

    return Measure("error / " + ", ".join(references), bounds, scaled=scaled)


def told(name: str, of: Any, *bounds: Bound) -> Measure:
    """Return a line that our model alone answers."""
    return Measure(name, bounds, of=of)


def column(x: Array) -> Array:
    """Return one column of inputs."""
    return np.asarray(x, dtype=float)[:, None]


def noisy(y: Array, random: np.random.Generator, share: float, relative: bool = True) -> Array:
    """Add normal noise, a share of each value or of the spread of all."""
    if not share:
        return y
    size = np.abs(y) if relative else np.full(y.shape, np.std(y))
    noise = random.standard_normal(y.shape)
    if np.iscomplexobj(y):
        noise = (noise + 1j * random.standard_normal(y.shape)) / np.sqrt(2)
    return y + share * size * noise


def drawn(
    f: Function, low: Any, high: Any, rows: int, noise: float = 0.0, **known: Any
) -> Callable[[int], Draw]:
    """Return rows drawn evenly in a box, judged on 400 fresh ones.

    Args:
        f: The law, of the columns.
        low: The box's lower corner; a number for one column.
        high: Its upper corner.
        rows: Their number.
        noise: A share of each value, or of the spread of all with `relative=False`.
        **known: `poles` and `residues`.
    """
    relative = known.pop("relative", True)
    known = {name: np.array(value, float) for name, value in known.items()}
    box = np.atleast_1d(low), np.atleast_1d(high)

    def draw(seed: int) -> Draw:
        random = np.random.default_rng(seed)
        X, T = (random.uniform(*box, (count, len(box[0]))) for count in (rows, 400))
        return Draw(X, noisy(f(*X.T), random, noise, relative), T, f(*T.T), **known)

    return draw
