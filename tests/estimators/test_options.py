import numpy as np
import pytest

from zeroproof.errors import RangeError
from zeroproof.estimators.options import Asked, checked_request, positive_or_zero, seed_of

PLAIN = Asked("auto", None, "auto", "auto", None, 0.0, "auto", 10.0, None)
Y = np.zeros(3)


def request(names=(), kept=(0, 1), **changes):
    return checked_request(PLAIN._replace(**changes), Y, names, list(kept), 3.0)


@pytest.mark.parametrize(
    ("given", "linear"),
    [
        (None, None),
        ([], ()),
        ([1], (1,)),
        ([3, 1, 1], (1, 2)),
        ("d", (2,)),
        (["d", 0], (0, 2)),
        ([2], ()),
    ],
    ids=["not declared", "none", "place", "sorted, once", "name", "both", "a dropped column"],
)
def test_linear_columns_are_places_among_those_that_are_used(given, linear):
    assert request(names=("a", "b", "c", "d"), kept=(0, 1, 3), linear_in=given).linear == linear


def test_a_column_beyond_the_table_is_said():
    with pytest.raises(RangeError, match="linear_in must name columns of X, got 4"):
        request(names=("a", "b", "c", "d"), linear_in=[4])


@pytest.mark.parametrize(
    ("features", "degrees", "columns", "taken"),
    [
        ("auto", 2, 1, ("polynomial", (2, 2))),
        ("auto", (2, 1), 2, ("auto", (2, 1))),
        ("chebyshev", (0, 1), 1, ("chebyshev", (0, 1))),
        ("auto", None, 1, ("auto", None)),
    ],
)
def test_degrees_of_one_column_are_of_the_column_as_it_is(features, degrees, columns, taken):
    made = request(features=features, degrees=degrees, kept=range(columns))
    assert (made.features, made.degrees) == taken


def test_a_request_holds_plain_values():
    made = request(shared_denominator=np.bool_(True), weight_power=1, time_budget=np.int64(2))
    assert made.shared is True
    assert (made.weight_power, made.budget, made.scale, made.seed) == (1.0, 2.0, 3.0, 0)
    assert isinstance(made.weight_power, float)
    assert isinstance(made.budget, float)
    assert request().shared == "auto"


@pytest.mark.parametrize("value", [0, 0.0, 2, 0.5])
def test_zero_is_allowed_where_it_is_said(value):
    assert positive_or_zero(value, "power") == value


@pytest.mark.parametrize("value", [-1, False, True, "1", None, float("nan")])
def test_what_is_not_a_number_from_0_is_said(value):
    with pytest.raises(RangeError, match="power must be"):
        positive_or_zero(value, "power")


def test_seeds_can_be_repeated_or_drawn():
    assert seed_of(None) == 0
    assert seed_of(np.int64(7)) == 7
    draws = np.random.RandomState(0), np.random.RandomState(0)
    first = [seed_of(draws[0]) for _ in range(2)]
    assert first == [seed_of(draws[1]) for _ in range(2)]
    assert first[0] != first[1]
    for bad in (-1, 1.5, "0"):
        with pytest.raises(RangeError, match="random_state must be"):
            seed_of(bad)
