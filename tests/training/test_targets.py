import math

import numpy as np
import pytest
import torch

from zeroproof.errors import RangeError
from zeroproof.projective import decode
from zeroproof.training.targets import lift_targets

INF, NAN = math.inf, math.nan


@pytest.mark.parametrize(
    ("y", "expected"),
    [
        (2.5, (2.5, 1)),
        (-7.0, (-7, 1)),
        (0.0, (0, 1)),
        (INF, (1, 0)),
        (-INF, (-1, 0)),
        (NAN, (1, 0)),
    ],
)
@pytest.mark.parametrize("make", [torch.tensor, np.array], ids=["torch", "numpy"])
def test_every_kind_of_target(y, expected, make):
    Y_n, Y_d = lift_targets(make([y]))
    assert type(Y_n) is type(Y_d) is type(make([y]))
    assert (Y_n.item(), Y_d.item()) == expected


def test_the_scale_divides_finite_targets_alone():
    Y_n, Y_d = lift_targets(torch.tensor([10.0, INF, -INF]), scale=4.0)
    assert Y_n.tolist() == [2.5, 1, -1]
    assert Y_d.tolist() == [1, 0, 0]


def test_a_quotient_that_overflows_is_infinite():
    Y_n, Y_d = lift_targets(torch.tensor([-1e30]), scale=1e-20)
    assert (Y_n, Y_d) == (-1, 0)


@pytest.mark.parametrize(
    "y",
    [complex(INF, 0), complex(-INF, 0), complex(0, -INF), complex(NAN, 1)],
    ids=str,
)
@pytest.mark.parametrize("make", [torch.tensor, np.array], ids=["torch", "numpy"])
def test_complex_targets_have_one_infinity(y, make):
    Y_n, Y_d = lift_targets(make([y, 1 + 2j]))
    assert Y_n.tolist() == [1, 1 + 2j]
    assert Y_d.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (torch.int64, torch.float32),
        (torch.bool, torch.float32),
        (torch.float16, torch.float32),
        (torch.float64, torch.float64),
        (torch.complex64, torch.complex64),
    ],
    ids=str,
)
def test_dtypes_of_tensors(dtype, expected):
    Y_n, Y_d = lift_targets(torch.ones(3, dtype=dtype))
    assert Y_n.dtype == Y_d.dtype == expected


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [("int64", "float64"), ("float32", "float32"), ("float16", "float32"), ("bool", "float64")],
)
def test_dtypes_of_arrays(dtype, expected):
    Y_n, Y_d = lift_targets(np.ones(3, dtype=dtype))
    assert Y_n.dtype == Y_d.dtype == expected


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (2, 3)], ids=str)
@pytest.mark.parametrize("make", [torch.ones, np.ones], ids=["torch", "numpy"])
def test_shapes_are_kept(shape, make):
    Y_n, Y_d = lift_targets(make(shape))
    assert tuple(Y_n.shape) == tuple(Y_d.shape) == shape


def test_a_read_only_array_is_fine_and_stays_as_it_was():
    y = np.array([1.0, INF])
    y.flags.writeable = False
    Y_n, _ = lift_targets(y)
    Y_n[0] = 9
    assert y[0] == 1


def test_a_masked_entry_is_bottom_and_anything_but_an_array_is_refused():
    Y_n, Y_d = lift_targets(np.ma.array([2, 7, 4], mask=[False, True, False])[::-1])
    assert type(Y_n) is np.ndarray
    assert (Y_n.tolist(), Y_d.tolist()) == ([4, 1, 2], [1, 0, 1])
    with pytest.raises(RangeError, match="y must be a tensor or a NumPy array, got list"):
        lift_targets([1.0])
    with pytest.raises(RangeError, match="y must be an array of numbers, got the dtype object"):
        lift_targets(np.array([1.0, None]))


@pytest.mark.parametrize("dtype", [">f4", ">f8", ">c8", ">i2", "<u2", "g"])
def test_byte_orders_and_rare_types(dtype):
    Y_n, Y_d = lift_targets(np.array([3, 1, 2], dtype=dtype)[::-1])
    assert (Y_n.tolist(), Y_d.tolist()) == ([2, 1, 3], [1, 1, 1])


def test_lifted_targets_decode_to_the_targets():
    y = torch.tensor([0.25, -3.0, INF, -INF, NAN])
    value, bottom = decode(*lift_targets(y))
    assert bottom.tolist() == [False, False, True, True, True]
    assert torch.equal(value[:2], y[:2])


@pytest.mark.parametrize("scale", [0.0, -1.0, NAN, INF])
def test_the_scale_is_checked(scale):
    with pytest.raises(RangeError, match="scale must be a finite number above 0"):
        lift_targets(torch.ones(1), scale=scale)
