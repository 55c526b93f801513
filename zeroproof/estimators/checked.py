"""The options of ProjectiveRegressor, checked against the data at fit, as scikit-learn asks."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import nn

from zeroproof._checks import one_of, positive, whole
from zeroproof.errors import RangeError
from zeroproof.estimators.candidates import Request

__all__ = ["FEATURES", "POLYNOMIAL", "Asked", "checked_request", "seed_of"]

FEATURES = ("auto", "chebyshev", "polynomial", "random", "fourier")
POLYNOMIAL = ("auto", "chebyshev", "polynomial")


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
    )


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
    pair: Any = (degrees, degrees) if isinstance(degrees, int | np.integer) else degrees
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


def _listed(linear_in: Any) -> list[Any]:
    if isinstance(linear_in, str | int | np.integer):
        return [linear_in]
    try:
        return list(linear_in)
    except TypeError:
        raise RangeError(f"linear_in must list columns, got {linear_in!r}") from None


def _linear(linear_in: Any, names: Sequence[str], kept: list[int]) -> tuple[int, ...] | None:
    if linear_in is None:
        return None
    listed = _listed(linear_in)
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
