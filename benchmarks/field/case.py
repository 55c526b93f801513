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


def noisy(y: Array, random: np.random.Generator, share: float, of: str = "value") -> Array:
    """Add normal noise, a share of each value, of the spread or the range of all, or of one."""
    if not share:
        return y
    finite = np.isfinite(y)
    size = {
        "value": np.abs(y),
        "spread": np.std(y[finite]),
        "range": np.ptp(np.real(y[finite])),
        "one": 1.0,
    }[of]
    noise = random.standard_normal(y.shape)
    if np.iscomplexobj(y):
        noise = (noise + 1j * random.standard_normal(y.shape)) / np.sqrt(2)
    return y + share * np.where(finite, size, 0) * noise  # what is infinite keeps its sign


def drawn(  # noqa: PLR0913 - a design has as many sides
    f: Function,
    low: Any,
    high: Any,
    rows: int = 0,
    noise: float = 0.0,
    *,
    of: str = "value",
    at: Array | None = None,
    fresh: int = 400,
    step: float = 0.0,
    wide: bool = False,
    parts: bool = False,
    **known: Any,
) -> Callable[[int | np.random.Generator], Draw]:
    """Return rows drawn evenly in a box, judged on fresh ones.

    Args:
        f: The law, of the columns.
        low: The box's lower corner; a number for one column.
        high: Its upper corner.
        rows: Their number.
        noise: A share, see `noisy`.
        of: Of what.
        at: Inputs of one column that are the same for every seed, instead of `rows` drawn ones.
        fresh: Number of places to judge on; 0 for 400 that are spread evenly.
        step: Distance of the values that inputs take; 0 for all numbers.
        wide: Draw evenly in the logarithm.
        parts: Hand out complex values as two real columns.
        **known: `poles` and `residues`.
    """
    known = {name: np.asarray(value) for name, value in known.items()}
    box = np.atleast_1d(low), np.atleast_1d(high)

    def inputs(random: np.random.Generator, count: int) -> Array:
        shape = (count, len(box[0]))
        if step:
            first, last = (np.round(corner / step) for corner in box)
            return step * random.integers(first, last + 1, shape)
        return np.exp(random.uniform(*np.log(box), shape)) if wide else random.uniform(*box, shape)

    def draw(seed: int | np.random.Generator) -> Draw:
        random = np.random.default_rng(seed)
        X = inputs(random, rows) if at is None else column(at)
        even = np.geomspace if wide else np.linspace
        T = inputs(random, fresh) if fresh else even(*box, 400)
        y, truth = noisy(f(*X.T), random, noise, of), f(*T.T)
        if parts:
            y, truth = (np.c_[z.real, z.imag] for z in (y, truth))
        return Draw(X, y, T, truth, **known)

    return draw
