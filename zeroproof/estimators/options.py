"""The options and data of a fit, checked when it begins, as scikit-learn asks."""

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from zeroproof._checks import in_range, one_of, ordered, positive, whole
from zeroproof.defaults import TAU_INFER, TAU_TRAIN
from zeroproof.errors import DataError, RangeError, ShapeError
from zeroproof.solve.race import Budget

__all__ = [
    "FEATURES",
    "POLYNOMIAL",
    "Asked",
    "FitOptions",
    "Request",
    "Rows",
    "check_options",
    "checked_request",
    "checked_rows",
    "columns_to_keep",
    "read_groups",
    "read_targets",
    "read_weight",
    "rows_of",
    "seed_of",
]

FEATURES = ("auto", "chebyshev", "polynomial", "random", "fourier")
POLYNOMIAL = ("auto", "chebyshev", "polynomial")
SYMMETRIES = ("none", "conjugate", "auto")
_LARGEST = 1e100  # squares must stay finite
_SMALLEST = 1e-100  # range of a column
_LEAST = 1e-200  # of the largest target
_LISTED = 5
_NO_LABEL = ("", "None", "nan", "NaN", "NaT", "<NA>")  # what stands where a label is missing


class Request(NamedTuple):
    """What was asked for; checked."""

    features: str | nn.Module
    degrees: tuple[int, int] | None
    affine: bool
    shared: bool | str
    linear: tuple[int, ...] | None
    scale: float
    weight_power: float
    polish: str
    budget: float
    seed: int
    symmetry: str = "none"
    clock: Budget = Budget()  # of the whole fit


class Rows(NamedTuple):
    """Rows to solve on; y over its scale."""

    X: Tensor  # (n, d)
    y: Tensor  # (n, m)
    weight: Tensor  # (n,)
    group: Tensor | None = None  # (n,), int64: rows of one are held out together

    def at(self, index: Tensor) -> "Rows":
        """Return the rows `index`."""
        return Rows(*(None if part is None else part[index] for part in self))  # pyright: ignore

    @property
    def groups(self) -> NDArray[Any] | None:
        """Return the groups as an array."""
        return None if self.group is None else self.group.numpy()


class FitOptions(NamedTuple):
    """How a table is fitted; the defaults suit a few hundred to some ten thousand rows."""

    hidden: tuple[int, ...] = (64, 64)
    activation: str = "silu"
    shared_denominator: bool = True
    steps: int = 5000
    epochs: int | None = None  # passes over the data, instead of steps
    batch_size: int = 512
    learning_rate: float = 2e-2
    held_out: float = 0.2
    tau_infer: float | None = None
    tau_train: float | None = None
    seed: int = 0
    progress: bool = True


def check_options(options: FitOptions) -> None:
    """Check all options but the network's own.

    Raises:
        RangeError: One is outside what it may be.
    """
    whole(options.batch_size, "batch_size", low=1)
    whole(options.steps, "steps", low=1)
    if options.epochs is not None:
        whole(options.epochs, "epochs", low=1)
    if whole(options.seed, "seed") >= 2**63:
        raise RangeError(f"seed must be below 2**63, got {options.seed!r}")
    positive(options.learning_rate, "learning_rate")
    one_of(options.shared_denominator, (True, False), "shared_denominator")
    if not 0 < options.held_out < 1:
        raise RangeError(f"held_out must lie in (0, 1), got {options.held_out!r}")
    for value, parameter in ((options.tau_infer, TAU_INFER), (options.tau_train, TAU_TRAIN)):
        if value is not None:
            in_range(value, parameter._replace(high=1.0))  # as the angle score does
    if options.tau_infer is not None and options.tau_train is not None:
        ordered(options.tau_infer, options.tau_train, "tau_infer", "tau_train")


class Asked(NamedTuple):
    """The constructor's arguments."""

    features: Any
    degrees: Any
    topology: Any
    shared_denominator: Any
    linear_in: Any
    weight_power: Any
    polish: Any
    time_budget: Any
    random_state: Any
    symmetry: Any = "none"


def checked_request(
    asked: Asked, y: NDArray[Any], names: Sequence[str], kept: list[int], scale: float
) -> Request:
    """Return the request if all options are legal for these data.

    Args:
        asked: The options.
        y: Targets.
        names: Names of the columns of X, empty if they have none.
        kept: Columns of X that are used.
        scale: Scale of the targets.

    Raises:
        RangeError: One is not.
    """
    affine = one_of(asked.topology, ("auto", "projective", "affine"), "topology") == "affine"
    if affine and y.dtype.kind == "c":
        raise RangeError(
            "topology must be 'projective' for complex y, which has one infinity, got 'affine'"
        )
    if not isinstance(asked.features, nn.Module):
        one_of(asked.features, FEATURES, "features")
    if not 0 <= positive_or_zero(asked.weight_power, "weight_power") < math.inf:
        raise RangeError(f"weight_power must be at least 0, got {asked.weight_power!r}")
    degrees, features = _degrees(asked), asked.features
    if degrees is not None and features == "auto" and len(kept) == 1:
        features = "polynomial"  # degrees in the column as it is: the least-squares fit of these
    return Request(
        features=features,
        degrees=degrees,
        affine=affine,
        shared=_shared(asked.shared_denominator),
        linear=_linear(asked.linear_in, names, kept),
        scale=scale,
        weight_power=float(asked.weight_power),
        polish=one_of(asked.polish, ("auto", "none"), "polish"),
        budget=float(positive(asked.time_budget, "time_budget")),
        seed=seed_of(asked.random_state),
        symmetry=_symmetry(asked, y, len(kept)),
    )


def _symmetry(asked: Asked, y: NDArray[Any], columns: int) -> str:
    symmetry = one_of(asked.symmetry, SYMMETRIES, "symmetry")
    if symmetry == "none":
        return symmetry
    if y.dtype.kind != "c" or columns != 1:
        kind = "complex" if y.dtype.kind == "c" else "real"
        raise RangeError(
            f"symmetry must be 'none' unless y is complex over one column, a frequency, got "
            f"{symmetry!r} with {kind} y and {columns} columns"
        )
    if asked.features != "auto" or asked.degrees is not None or asked.linear_in:
        raise RangeError(
            f"features, degrees and linear_in must be left to the fit with symmetry={symmetry!r}"
        )
    return symmetry


def positive_or_zero(value: Any, name: str) -> float:
    """Return a number that is at least 0.

    Raises:
        RangeError: It is not.
    """
    return 0.0 if value == 0 and not isinstance(value, bool) else positive(value, name)


def seed_of(random_state: Any) -> int:
    """Return a seed: 0 for None, so that a fit can be repeated; drawn from a `RandomState`.

    Raises:
        RangeError: It is none of the three.
    """
    if random_state is None:
        return 0
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(2**31 - 1))
    if whole(random_state, "random_state") >= 2**63:
        raise RangeError(f"random_state must be below 2**63, got {random_state!r}")
    return int(random_state)


def _degrees(asked: Asked) -> tuple[int, int] | None:
    degrees: Any = asked.degrees
    if degrees is None:
        return None
    if asked.features not in POLYNOMIAL:
        raise RangeError(
            f"degrees must be None unless features are polynomials, got {degrees!r} and "
            f"features={asked.features!r}"
        )
    one = isinstance(degrees, int | np.integer | str)  # text is no pair of letters
    pair: Any = (degrees, degrees) if one else degrees
    try:
        p, q = (whole(degree, "degrees") for degree in pair)
    except (TypeError, ValueError) as error:
        if isinstance(error, RangeError):
            raise
        raise RangeError(
            f"degrees must be a whole number or two, (p, q), got {degrees!r}"
        ) from None
    return int(p), int(q)


def _shared(value: Any) -> bool | str:
    if isinstance(value, bool | np.bool_):
        return bool(value)
    return one_of(value, ("auto",), "shared_denominator") and "auto"


def _linear(linear_in: Any, names: Sequence[str], kept: list[int]) -> tuple[int, ...] | None:
    if linear_in is None:
        return None
    single = isinstance(linear_in, str | int | np.integer)
    try:
        listed: list[Any] = [linear_in] if single else list(linear_in)
    except TypeError:
        raise RangeError(f"linear_in must list columns, got {linear_in!r}") from None
    places = []
    for item in listed:
        if isinstance(item, str):
            if not names:
                raise RangeError(f"linear_in must give places, as X has no names, got {item!r}")
            one_of(item, tuple(names), "linear_in")
            index = list(names).index(item)
        else:
            index = whole(item, "linear_in")
        if index in kept:
            places.append(kept.index(index))
        elif index >= (len(names) or max(kept) + 1):
            raise RangeError(f"linear_in must name columns of X, got {item!r}")
    return tuple(sorted(set(places)))


def as_array(x: Any) -> Any:
    """Return a tensor as an array; frames and arrays pass."""
    return x.detach().cpu().resolve_conj().numpy() if isinstance(x, Tensor) else x


def as_numbers(values: Any, name: str) -> NDArray[Any]:
    """Return an array in float64 or complex128.

    Raises:
        DataError: It is ragged, holds anything but numbers, or whole numbers that float64 takes for
            one another.
    """
    if np.ma.is_masked(values):
        raise DataError(f"{name} must have no masked entries: leave these rows out")
    try:
        given = np.asarray(as_array(values))
        numbers = given.astype(np.complex128 if given.dtype.kind == "c" else np.float64)
    except (TypeError, ValueError):
        raise DataError(
            f"{name} must hold numbers, as many in each row, got {_first(values)!r:.40}"
        ) from None
    if given.dtype.kind in "mM":
        raise DataError(f"{name} must hold numbers, got times: take the difference to one of them")
    if given.dtype.kind in "iu" and len(np.unique(numbers)) < len(np.unique(given)):
        raise DataError(
            f"{name} must differ by more than rounding to float64, got whole numbers beyond 2**53: "
            "subtract what they have in common"
        )
    return numbers


def _first(values: Any) -> Any:
    """Return the first entry that is no number, or the first of all."""
    entries = list(values) if hasattr(values, "__iter__") else [values]
    strange = [each for each in entries if not isinstance(each, int | float | complex | np.number)]
    return (strange or entries or [values])[0]


def checked_rows(read: Callable[[], NDArray[np.float64]], X: Any) -> NDArray[np.float64]:
    """Return rows as scikit-learn reads them; its errors are this package's.

    Raises:
        DataError: X is complex, sparse, empty, no table of numbers, or not that of the fit.
        ShapeError: X has one dimension, or three.
    """
    shape = np.shape(X) if hasattr(X, "shape") else ()
    try:
        return read()
    except TypeError as error:
        raise _KindError(f"X must be a table of numbers: {_line(error)}") from error
    except ValueError as error:
        if len(shape) in {1, 3}:
            raise ShapeError(
                f"X must be (n, d), got {tuple(shape)}. Reshape your data: X[:, None] is one column"
            ) from error
        if "Complex data" in str(error):
            raise DataError(
                "X must be real, got complex numbers (Complex data not supported): give real and "
                "imaginary parts as columns of their own"
            ) from error
        if "convert string" in str(error) or "inhomogeneous" in str(error):
            raise DataError(
                f"X must be a table of numbers, as many in each row: {_line(error)}. Turn text "
                "into numbers, or leave its column out"
            ) from error
        raise DataError(str(error)) from error


class _KindError(DataError, TypeError):
    """Both families' error."""


def _line(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(".")


def read_targets(y: Any, rows: int, missing: str) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return targets, `(n,)` or `(n, m)`, float64 or complex128, and which rows to keep.

    Raises:
        DataError: y is not numbers, or an output is ⊥ in every row.
        ShapeError: y has no row for each row of X.
    """
    one_of(missing, ("bottom", "drop"), "missing")
    if y is None:
        raise DataError("ProjectiveRegressor requires y to be passed, but the target y is None")
    y = as_numbers(y, "y")
    if y.ndim not in {1, 2} or 0 in y.shape[1:]:
        raise ShapeError(f"y must be (n,) or (n, k), got {y.shape}")
    if len(y) != rows:
        raise ShapeError(f"X and y must have equally many rows, got {rows} and {len(y)}")
    finite = np.isfinite(y)
    largest = np.abs(y[finite]).max(initial=0.0)
    if largest > _LARGEST:
        raise DataError(f"y must stay below {_LARGEST:g} in size: change its unit")
    if 0 < largest < _LEAST:
        raise DataError(f"y must reach {_LEAST:g} in size, got {largest:.3g}: change its unit")
    kept = ~np.isnan(y).reshape(rows, -1).any(1) if missing == "drop" else np.ones(rows, bool)
    if not finite.reshape(rows, -1)[kept].any(0).all():
        raise DataError(f"every output must have a finite target, got ⊥ in all {rows} rows")
    return y, kept


def read_weight(sample_weight: Any, rows: int) -> NDArray[np.float64]:
    """Return weights, 1 by default.

    Raises:
        ShapeError: There is not one for each row.
        DataError: One is negative or not finite, or all are 0.
    """
    if sample_weight is None:
        return np.ones(rows)
    weight = as_numbers(sample_weight, "sample_weight")
    if weight.dtype.kind == "c":
        raise DataError("sample_weight must be real, got complex numbers")
    if weight.ndim == 0:
        weight = np.full(rows, float(weight))
    if weight.shape != (rows,):
        raise ShapeError(f"sample_weight must be ({rows},), got {weight.shape}")
    if not (np.isfinite(weight) & (weight >= 0)).all() or not weight.any():
        raise DataError("sample_weight must be finite, not negative and not zero throughout")
    return weight / weight.max()  # squares of their roots stay finite


def read_groups(groups: Any, use: Any, y: NDArray[Any]) -> NDArray[Any]:
    """Return the number of each row's group, `(n,)`.

    Args:
        groups: Labels of all rows, numbers or text.
        use: Which of them are used.
        y: Targets of those, `(n,)` or `(n, m)`.

    Raises:
        ShapeError: There is not one label for each row.
        DataError: A label is missing, or fewer than two groups have finite targets.
    """
    labels = np.asarray(as_array(groups))
    if labels.shape != (len(use),):
        raise ShapeError(f"groups must be ({len(use)},), got {labels.shape}")
    labels = np.array([str(label) for label in labels[use].tolist()])
    bad = np.flatnonzero(np.isin(labels, _NO_LABEL))
    if len(bad):
        raise DataError(
            f"groups must have a label in each row, got {str(labels[bad[0]])!r} in {len(bad)}, "
            f"first {np.flatnonzero(use)[bad[0]]}: name them, or leave these rows out"
        )
    group = np.unique(labels, return_inverse=True)[1].ravel()
    if np.ptp(group[np.isfinite(y).reshape(len(y), -1).any(1)]) == 0:
        raise DataError(
            "groups must be at least two with finite targets, got one: leave groups out"
        )
    return group


def columns_to_keep(X: NDArray[np.float64], names: Sequence[str] = ()) -> list[int]:
    """Return the columns that tell something; warn of those that are constant or twice there.

    Args:
        X: `(n, d)`.
        names: Of the columns, for messages; their places if there are none.

    Raises:
        DataError: A row is not finite, or no column varies.
    """
    bad = np.flatnonzero(~np.isfinite(X).all(1))
    if len(bad):
        listed = ", ".join(map(str, bad[:_LISTED])) + (" …" if len(bad) > _LISTED else "")
        raise DataError(f"X must be finite, got inf or NaN in row{'s' * (len(bad) > 1)} {listed}")
    if (np.abs(X) > _LARGEST).any():
        raise DataError(f"X must stay below {_LARGEST:g} in size: change its unit")
    spread = np.ptp(X, axis=0)
    if ((spread > 0) & (spread < _SMALLEST)).any():
        raise DataError(f"X must vary by more than {_SMALLEST:g}: change its unit")
    varies = np.flatnonzero(spread > 0).tolist()
    if not varies:
        few = "n_samples=1" if len(X) == 1 else f"{X.shape[1]} constant columns"
        raise DataError(f"X must have a column that varies, got {few}")
    first = {X[:, j].tobytes(): j for j in reversed(varies)}
    kept = sorted(first.values())
    if len(kept) < X.shape[1]:
        left = [names[j] if names else j for j in range(X.shape[1]) if j not in kept]
        warnings.warn(f"columns {left} are constant or duplicates and tell nothing", stacklevel=4)
    return kept


def rows_of(
    X: NDArray[Any],
    y: NDArray[Any],
    weight: NDArray[np.float64],
    scale: float,
    group: NDArray[Any] | None = None,
) -> Rows:
    """Return rows in float64, y over its scale, as columns."""
    targets = torch.from_numpy(np.array(y.reshape(len(y), -1)))
    infinite = torch.isinf(targets)
    scaled = torch.where(infinite, targets, targets / scale)
    of = None if group is None else torch.from_numpy(group.astype(np.int64))
    return Rows(torch.from_numpy(np.array(X)), scaled, torch.from_numpy(weight), of)
