import copy
import operator
import pickle
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from zeroproof.errors import RangeError, ShapeError
from zeroproof.projective import decode, encode
from zeroproof.scm import SCM, from_ieee, to_ieee
from zeroproof.testing import assert_close_scm, assert_valid_scm

INF, NAN = float("inf"), float("nan")
OPERATORS = [operator.add, operator.sub, operator.mul, operator.truediv, operator.pow]


def test_construction_marks_what_is_not_finite_as_bottom() -> None:
    x = SCM(torch.tensor([1.0, NAN, INF, -INF, 2.0]), torch.tensor([0, 0, 0, 0, 1]).bool())
    assert x.bottom.tolist() == [False, True, True, True, True]
    assert_valid_scm(x)
    assert x.payload[0] == 1


def test_construction_without_mask_has_no_bottom_among_numbers() -> None:
    x = SCM(torch.zeros(2, 3))
    assert x.bottom.dtype == torch.bool
    assert not x.bottom.any()
    assert x.shape == (2, 3)


def test_only_fields_are_payload_and_bottom() -> None:
    x = SCM(torch.ones(2))
    assert SCM.__slots__ == ("bottom", "payload")
    with pytest.raises(AttributeError):
        x.tau = 1  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    ("payload", "dtype"),
    [
        (torch.tensor([1, 2]), torch.float32),
        (torch.tensor([True]), torch.float32),
        (torch.ones(1, dtype=torch.float16), torch.float16),
        (torch.ones(1, dtype=torch.bfloat16), torch.bfloat16),
        (torch.ones(1, dtype=torch.complex128), torch.complex128),
        (3, torch.float32),
        (2.5, torch.float32),
        (1j, torch.complex64),
    ],
    ids=["int64", "bool", "float16", "bfloat16", "complex128", "int", "float", "complex"],
)
def test_dtype(payload: Tensor | complex, dtype: torch.dtype) -> None:
    assert SCM(payload).payload.dtype == dtype


def test_wrong_mask_shape_is_refused() -> None:
    with pytest.raises(
        ShapeError, match=r"bottom must have the shape of payload, \(2,\), got \(1,"
    ):
        SCM(torch.ones(2), torch.zeros(1, dtype=torch.bool))


def test_mask_that_is_not_boolean_is_refused() -> None:
    with pytest.raises(RangeError, match=r"bottom must be a boolean tensor, got torch\.float32"):
        SCM(torch.ones(2), torch.zeros(2))


@pytest.mark.parametrize("bad", ["1", None, True, Fraction(1, 2), [1.0]], ids=repr)
def test_operand_that_is_no_number_is_refused(bad: object) -> None:
    sentence = "an operand must be an SCM value, a tensor or a number, got"
    with pytest.raises(RangeError, match=sentence):
        SCM(bad)  # pyright: ignore[reportArgumentType]
    with pytest.raises(RangeError, match=sentence):
        SCM(torch.ones(2)) + bad  # pyright: ignore[reportOperatorIssue]


def test_operands_that_do_not_broadcast_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"operands must broadcast, got \(2,\) and \(3,\)"):
        SCM(torch.ones(2)) * SCM(torch.ones(3))


@pytest.mark.parametrize("act", OPERATORS, ids=lambda act: act.__name__)
def test_operators_broadcast(act: Any) -> None:
    x, y = torch.rand(2, 1) + 1, torch.rand(3) + 1
    assert_close_scm(act(SCM(x), SCM(y)), SCM(act(x, y)))


@pytest.mark.parametrize("act", OPERATORS, ids=lambda act: act.__name__)
@pytest.mark.parametrize(
    "other",
    [
        2,
        2.5,
        -3,
        np.float64(1.5),
        torch.tensor([2.0, 3.0]),
        torch.tensor(2.0),
        torch.tensor([1, 2]),
    ],
    ids=["int", "float", "negative", "numpy", "tensor", "scalar tensor", "integer tensor"],
)
def test_numbers_and_tensors_stand_on_either_side(act: Any, other: complex | Tensor) -> None:
    x = torch.tensor([0.5, 4.0], dtype=torch.float64)
    plain = other if isinstance(other, Tensor) else torch.tensor(other, dtype=torch.float64)
    assert_close_scm(act(SCM(x), other), SCM(act(x, plain)))
    assert_close_scm(act(other, SCM(x)), SCM(act(plain, x)))


def test_array_leaves_the_operator_to_scm() -> None:
    with pytest.raises(RangeError, match="an operand must be an SCM value, a tensor or a number"):
        np.ones(2) + SCM(torch.ones(2))


def test_tensor_divided_by_scm_is_total() -> None:
    quotient = torch.tensor([1.0, 1.0]) / SCM(torch.tensor([2.0, 0.0]))
    assert isinstance(quotient, SCM)
    assert quotient.bottom.tolist() == [False, True]


def test_number_keeps_the_precision_of_the_tensor() -> None:
    x = SCM(torch.tensor([1.0], dtype=torch.float64))
    assert (x * 0.1).payload.item() == 0.1
    assert (SCM(torch.ones(1, dtype=torch.float16)) * 2.0).payload.dtype == torch.float16


@pytest.mark.parametrize("other", [NAN, INF, -INF])
def test_number_that_is_not_finite_is_bottom(other: float) -> None:
    assert (SCM(torch.ones(2)) * other).bottom.all()
    assert (other - SCM(torch.ones(2))).bottom.all()


def test_complex_number_makes_a_real_value_complex() -> None:
    z = SCM(torch.tensor([2.0], dtype=torch.float64)) * 1j
    assert z.payload.dtype == torch.complex128
    assert z.payload.item() == 2j


def test_unary_signs() -> None:
    x = SCM(torch.tensor([2.0, NAN]))
    assert_close_scm(-x, SCM(torch.tensor([-2.0, NAN])))
    assert +x is x


def test_torch_function_without_meaning_is_refused() -> None:
    with pytest.raises(TypeError, match=r"torch\.sin"):
        torch.sin(SCM(torch.ones(1)))  # pyright: ignore[reportArgumentType]


def test_indexing_takes_both_fields() -> None:
    x = SCM(torch.tensor([[1.0, NAN], [3.0, 4.0]]))
    assert_close_scm(x[0], SCM(torch.tensor([1.0, NAN])))
    assert_close_scm(x[:, 1], SCM(torch.tensor([NAN, 4.0])))
    assert_close_scm(x[~x.bottom], SCM(torch.tensor([1.0, 3.0, 4.0])))


def test_unpacks_to_payload_and_bottom() -> None:
    payload, bottom = SCM(torch.tensor([1.0, NAN]))
    assert bottom.tolist() == [False, True]
    assert payload[0] == 1


def test_round_trip_through_tuples() -> None:
    x = SCM(torch.tensor([2.0, NAN, 0.0]))
    assert_close_scm(SCM(*decode(*encode(*x))), x)


def test_round_trip_through_ieee() -> None:
    ieee = torch.tensor([1.0, NAN, INF, -INF])
    for x in (SCM.from_ieee(ieee), from_ieee(ieee)):
        expected = torch.tensor([1.0, NAN, NAN, NAN])
        torch.testing.assert_close(x.to_ieee(), expected, equal_nan=True)
        torch.testing.assert_close(to_ieee(x), expected, equal_nan=True)


def test_repr_shows_both_fields() -> None:
    x = SCM(torch.tensor([1.0, NAN]))
    assert repr(x) == "SCM(payload=tensor([1., nan]), bottom=tensor([False,  True]))"


@pytest.mark.parametrize(
    "clone", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))]
)
def test_copies(clone: Any) -> None:
    x = SCM(torch.tensor([1.0, NAN]))
    assert_close_scm(clone(x), x)


def test_empty_values() -> None:
    x = SCM(torch.empty(0, 3))
    assert (x / x + 1).shape == (0, 3)
