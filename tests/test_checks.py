import math

import numpy as np
import pytest
import torch

from zeroproof import _checks
from zeroproof.defaults import GAMMA, TARGET_COVERAGE, TAU_INFER, TAU_TRAIN
from zeroproof.errors import RangeError, ShapeError


@pytest.mark.parametrize(
    ("value", "parameter"),
    [(1e-300, TAU_INFER), (1, TAU_INFER), (0.0, GAMMA), (1.0, GAMMA), (0.5, TARGET_COVERAGE)],
)
def test_a_legal_number_comes_back(value, parameter):
    assert _checks.in_range(value, parameter) == value


@pytest.mark.parametrize(
    ("value", "parameter", "sentence"),
    [
        (0.0, TAU_INFER, r"^tau_infer must lie in \(0, inf\), got 0.0$"),
        (-1e-9, TAU_INFER, r"tau_infer must lie in \(0, inf\), got -1e-09"),
        (math.inf, TAU_INFER, r"tau_infer must lie in \(0, inf\), got inf"),
        (math.nan, TAU_INFER, r"tau_infer must lie in \(0, inf\), got nan"),
        (1.5, GAMMA, r"gamma must lie in \[0, 1\], got 1.5"),
        ("1", GAMMA, r"gamma must be a number, got '1'"),
        (True, GAMMA, r"gamma must be a number, got True"),
        (None, GAMMA, r"gamma must be a number, got None"),
    ],
)
def test_an_illegal_number_is_refused(value, parameter, sentence):
    with pytest.raises(RangeError, match=sentence):
        _checks.in_range(value, parameter)


def test_a_number_may_go_by_another_name():
    with pytest.raises(RangeError, match="tau_train_min must lie"):
        _checks.in_range(0, TAU_INFER, name="tau_train_min")


@pytest.mark.parametrize("value", [0, -1.0, math.inf, math.nan, "2", False])
def test_what_is_not_positive_is_refused(value):
    with pytest.raises(RangeError, match="scale must be a finite number above 0, got"):
        _checks.positive(value, "scale")


def test_what_is_positive_comes_back():
    assert _checks.positive(5e-324, "scale") == 5e-324


@pytest.mark.parametrize("value", [0, 1.0, True, "1", None])
def test_what_is_not_a_whole_number_of_the_size_asked_for_is_refused(value):
    with pytest.raises(RangeError, match="steps must be a whole number of at least 1, got"):
        _checks.whole(value, "steps", low=1)


def test_a_whole_number_comes_back():
    assert _checks.whole(3, "steps", low=3) == 3


def test_order():
    _checks.ordered(1.0, 1.0, "a", "b")
    with pytest.raises(RangeError, match=r"^a must not exceed b, got a=2.0 and b=1.0$"):
        _checks.ordered(2.0, 1.0, "a", "b")
    with pytest.raises(RangeError, match="a must not exceed b"):
        _checks.ordered(math.nan, 1.0, "a", "b")


def test_choices():
    assert _checks.one_of("x", ("x", "y"), "mode") == "x"
    with pytest.raises(RangeError, match=r"^mode must be one of 'x', 'y', got 'z'$"):
        _checks.one_of("z", ("x", "y"), "mode")


@pytest.mark.parametrize(
    ("N", "D"), [((4,), (4,)), ((), ()), ((2, 3), (2, 1)), ((5, 2, 3), (5, 2, 1)), ((3,), (1,))]
)
def test_shapes_of_a_pair_belong_together(N, D):
    _checks.pair_shapes(torch.zeros(N), torch.zeros(D))


@pytest.mark.parametrize(
    ("N", "D"), [((4,), (4, 1)), ((4, 1), (4,)), ((2, 3), (1, 3)), ((2, 3), (1,)), ((2, 1), (2, 3))]
)
def test_shapes_of_a_pair_that_would_broadcast_are_refused(N, D):
    with pytest.raises(ShapeError, match="N and D must have equal shapes"):
        _checks.pair_shapes(torch.zeros(N), torch.zeros(D))


def test_same_shape():
    _checks.same_shape(torch.zeros(2), torch.zeros(2), "mask", "decoded")
    with pytest.raises(ShapeError, match=r"mask must have the shape of decoded, \(2,\), got \(\)"):
        _checks.same_shape(torch.zeros(()), torch.zeros(2), "mask", "decoded")


@pytest.mark.parametrize("make", [float, np.float32, np.float64], ids=lambda m: m.__name__)
def test_numbers_of_every_kind_are_numbers(make: type) -> None:
    assert _checks.in_range(make(0.5), TAU_TRAIN) == 0.5
    assert _checks.whole(np.int64(3), "n") == 3


def test_the_angle_score_has_no_threshold_above_one() -> None:
    assert _checks.threshold(1.0, TAU_TRAIN, "angle") == 1.0
    assert _checks.threshold(2.0, TAU_TRAIN, "denominator") == 2.0
    with pytest.raises(RangeError, match=r"tau_train must lie in \(0, 1\] for the angle .* got 2"):
        _checks.threshold(2.0, TAU_TRAIN, "angle")
