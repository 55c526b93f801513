import copy
import io
import operator
import pickle
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from zeroproof.errors import NotSupportedError, RangeError, ShapeError
from zeroproof.projective import Pair, decode, encode
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


@pytest.mark.parametrize("bad", ["1", None, True, np.True_, [1.0]], ids=repr)
def test_operand_that_is_no_number_is_refused(bad: object) -> None:
    sentence = "an operand must be an SCM value, a tensor, an array or a number, got"
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
        np.float32(2),
        np.int64(2),
        Fraction(1, 2),
        np.array(2.0),
        np.array([2, 3]),
        torch.tensor([2.0, 3.0]),
        torch.tensor(2.0),
        torch.tensor([1, 2]),
    ],
    ids=[
        "int",
        "float",
        "negative",
        "numpy",
        "float32",
        "int64",
        "fraction",
        "0-d array",
        "array",
        "tensor",
        "scalar tensor",
        "integer tensor",
    ],
)
def test_numbers_and_tensors_stand_on_either_side(act: Any, other: complex | Tensor) -> None:
    x = torch.tensor([0.5, 4.0], dtype=torch.float64)
    plain = torch.as_tensor(
        float(other) if isinstance(other, Fraction) else other, dtype=torch.float64
    )
    assert_close_scm(act(SCM(x), other), SCM(act(x, plain)))
    assert_close_scm(act(other, SCM(x)), SCM(act(plain, x)))


def test_arrays_come_in_with_what_they_hold() -> None:
    x = SCM(np.ma.array([1.0, 2.0, NAN], mask=[False, True, False])[::-1])
    assert x.bottom.tolist() == [True, True, False]
    assert (np.array([1, 2]) + SCM(torch.ones(2))).dtype == torch.float32  # whole numbers suit it
    assert (np.ones(2) + SCM(torch.ones(2))).dtype == torch.float64
    assert (SCM(torch.ones(2)) * np.float64(2)).dtype == torch.float32
    with pytest.raises(RangeError, match="an operand must be an array of numbers, got the dtype"):
        np.array(["1"]) + SCM(torch.ones(1))


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


REFUSED = {
    "torch.softmax": lambda y: torch.softmax(y, 0),
    "torch.nn.functional.linear": torch.nn.Linear(2, 2),
    "torch.add": lambda y: torch.add(y, y, alpha=2),
    "torch.sum": lambda y: torch.sum(y, dtype=torch.float64),
    "torch.Tensor.add_": lambda y: torch.ones(2).add_(y),
}


@pytest.mark.parametrize("name", REFUSED)
def test_torch_function_without_meaning_names_what_has_one(name: str) -> None:
    sentence = f"^{name} is not defined for SCM values, .*; use zeroproof.scm, .*Defined are abs, "
    with pytest.raises(NotSupportedError, match=sentence):
        REFUSED[name](SCM(torch.ones(2)))


UNDECIDED = [
    lambda y: y == 0.5,
    lambda y: y != +y,
    lambda y: y < 1,
    lambda y: torch.ones(2) >= y,
    lambda y: np.ones(2) == y,
    lambda y: torch.where(torch.as_tensor(y == 0.5), 1, 0),
    bool,
    hash,
    lambda y: 1 if y else 0,
    lambda y: {y: 1},
    lambda y: y in [SCM(torch.ones(2))],
    lambda y: 0.5 in y,
    lambda y: max(y, y + 1),
]


@pytest.mark.parametrize("ask", UNDECIDED)
def test_no_comparison_truth_value_or_hash(ask: Any) -> None:
    with pytest.raises(NotSupportedError, match=r"decide by x\.bottom, and compare x\.payload"):
        ask(1 / SCM(torch.tensor([0.0, 2.0])))


def test_a_condition_is_a_boolean_tensor() -> None:
    y = SCM(torch.ones(2))
    with pytest.raises(NotSupportedError, match="a condition must be a boolean tensor"):
        torch.where(y, 1, 0)


X = torch.tensor([[1.0, 2.0], [4.0, 0.5]], dtype=torch.float64)
UNARY = "exp log sqrt sin cos tan abs absolute neg negative sign sgn reciprocal square sum mean t"
BINARY = "add sub subtract mul multiply div divide true_divide pow float_power matmul rsub"
ALIKE = {
    **{name: getattr(torch, name) for name in f"{UNARY} ravel clone detach".split()},
    **{name: lambda x, name=name: getattr(torch, name)(x, X) for name in BINARY.split()},
    "methods": lambda x: (x.abs().sum(0) + x.mean(1, keepdim=True)).reshape(4).clone().to(X),
    "where": lambda x: torch.where(X < 3, x, 3.0),
    "stack": lambda x: torch.stack([x, X], 1),
    "cat": lambda x: torch.cat([X, x], dim=1),
    "unsqueeze": lambda x: torch.unsqueeze(x, 0),
    "sum over": lambda x: torch.sum(x, dim=(0,), keepdim=True),
    "tensor @ value": lambda x: X @ x,
    "value @ tensor": lambda x: x @ X,
    "vector": lambda x: x @ X[0],
}


@pytest.mark.parametrize("name", ALIKE)
def test_functions_of_torch_agree_with_tensors_and_have_no_gradient_at_bottom(name: str) -> None:
    assert_close_scm(ALIKE[name](SCM(X)), SCM(ALIKE[name](X)))
    x = X.clone().requires_grad_()
    y = x / SCM(torch.tensor([[0.0, 1.0], [1.0, 1.0]], dtype=torch.float64))
    found = ALIKE[name](y)
    assert_valid_scm(found)
    assert found.bottom.any()
    if name != "detach":
        found.payload.nan_to_num(0).sum().backward()
        assert x.grad is not None
        assert x.grad.isfinite().all()
        assert x.grad[0, 0] == 0


def test_bottom_absorbs_in_sums_means_and_products() -> None:
    y = SCM(torch.tensor([[1.0, NAN], [3.0, 4.0]]))
    assert y.sum(1).bottom.tolist() == y.mean(1).bottom.tolist() == [True, False]
    assert y.matmul(torch.zeros(2, 2)).bottom.tolist() == [[True, True], [False, False]]
    assert torch.matmul(torch.zeros(2, 2), y).bottom.tolist() == [[False, True], [False, True]]
    assert SCM(torch.tensor([3e38, 3e38])).mean().item() == pytest.approx(3e38)
    assert SCM(torch.empty(0)).mean().bottom
    assert SCM(torch.empty(0)).sum().item() == 0
    assert torch.isnan(y).tolist() == y.bottom.tolist() == (~torch.isfinite(y)).tolist()


def test_what_leaves_is_nan_at_bottom() -> None:
    y = 1 / SCM(torch.tensor([0.0, 2.0], requires_grad=True))
    for array in (y.numpy(), np.asarray(y), np.array(y.tolist())):
        np.testing.assert_array_equal(array, [NAN, 0.5])
    assert (y[1].item(), y.ndim, y.dtype, y.device.type) == (0.5, 1, torch.float32, "cpu")
    assert np.asarray(y, dtype=np.float64).dtype == np.float64
    np.array(y)[1] = 7  # a copy
    assert y[1].item() == 0.5


def test_conversion_marks_overflow_and_refuses_whole_numbers() -> None:
    y = SCM(torch.tensor([1e300, 1.0], dtype=torch.float64))
    assert y.to(torch.float32).bottom.tolist() == [True, False]
    with pytest.raises(NotSupportedError, match=r"⊥ has no place in torch\.int64"):
        y.to(torch.int64)


def test_values_in_one_compiled_graph_and_in_vmap() -> None:
    def act(x: Tensor) -> Tensor:
        y = torch.exp(1 / SCM(x)).reshape(2, 2)
        y = torch.cat([y, y.matmul(y), torch.where(x.reshape(2, 2) > 0, y, 0)], 0)
        return (y.abs().sum(1) + torch.mean(y)).payload + torch.isnan(y.mean(0)).any()

    x = torch.tensor([1.0, 0.0, -2.0, 4.0])
    compiled = torch.compile(act, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), act(x), equal_nan=True)
    rows = torch.stack([x, x + 1])
    alone = torch.stack([act(row) for row in rows])
    torch.testing.assert_close(torch.func.vmap(act)(rows), alone, equal_nan=True)


def test_values_are_collated_stored_and_loaded_without_pickle() -> None:
    y, file = 1 / SCM(torch.tensor([0.0, 2.0])), io.BytesIO()
    batch = torch.utils.data.default_collate([{"y": y}, {"y": y}])["y"]
    assert_close_scm(batch, torch.stack([y, y]))
    torch.save([y, Pair(y.payload, y.payload)], file)
    file.seek(0)
    loaded, pair = torch.load(file, weights_only=True)
    assert_close_scm(loaded, y)
    assert isinstance(pair, Pair)


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


def test_repr_of_many_entries_is_a_line_with_the_count_of_bottom() -> None:
    x = 1 / SCM(torch.arange(5000.0, requires_grad=True).reshape(50, 100))
    assert repr(x) == (
        "SCM([⊥, 1, 0.5, ..., 0.0002001, 0.0002001, 0.0002], 1 of 5000 are ⊥, "
        "shape=(50, 100), dtype=torch.float32, device='cpu')"
    )
    assert "0+0.0002j], 1 of" in repr(x * 1j)
    shown = list[str]()  # no number can be asked for within `vmap`
    torch.func.vmap(lambda row: shown.append(repr(SCM(row))) or row)(torch.ones(2, 100))
    assert shown[0].startswith("SCM(payload=")
    assert repr(SCM(torch.ones(99, device="meta"))).startswith("SCM(payload=")


def test_length_is_that_of_a_tensor() -> None:
    x = 1 / SCM(torch.tensor([[1.0, 0.0, 2.0]]))
    assert (len(x), len(x[0])) == (1, 3)
    assert [x[0][k].tolist() for k in (0, 2)] == [1.0, 0.5]
    with pytest.raises(NotSupportedError, match=r"must have a dimension .*take x\.payload"):
        len(x[0, 0])
    with pytest.raises(NotSupportedError, match=r"take x\.payload"):
        torch.tensor(x)


@pytest.mark.parametrize(
    ("spec", "number", "bottom"),
    [(".2f", "0.50", "⊥"), ("8.2f", "    0.50", "       ⊥"), ("", "SCM(payload=", "SCM(payload=")],
)
def test_one_value_is_formatted_as_its_number(spec: str, number: str, bottom: str) -> None:
    x = 1 / SCM(torch.tensor([2.0, 0.0], requires_grad=True))
    assert format(x[0], spec).startswith(number)
    assert format(x[1], spec).startswith(bottom)
    assert len(format(x[1], spec)) == len(bottom) or not spec
    with pytest.raises(NotSupportedError, match=r"one value alone can be formatted, got .*\(2,\)"):
        format(x, ".2f")


def test_one_number_leaves_as_a_float_and_bottom_does_not() -> None:
    x = SCM(torch.tensor([2.5, 0.0])) / torch.tensor([1.0, 0.0])
    assert float(x[0]) == float(x[:1]) == 2.5
    with pytest.raises(RangeError, match=r"float must be a number, got ⊥; ask x\.bottom"):
        float(x[1])
    with pytest.raises(NotSupportedError, match=r"got the shape \(2,\)"):
        float(x)


@pytest.mark.parametrize(
    "clone", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))]
)
def test_copies(clone: Any) -> None:
    x = SCM(torch.tensor([1.0, NAN]))
    assert_close_scm(clone(x), x)


def test_empty_values() -> None:
    x = SCM(torch.empty(0, 3))
    assert (x / x + 1).shape == (0, 3)
