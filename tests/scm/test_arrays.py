import sys

import numpy as np
import pandas as pd
import pytest
import torch

from zeroproof._checks import from_array, is_array
from zeroproof.errors import RangeError


def _read_only(array):
    array.flags.writeable = False
    return array


def _unaligned(array):
    record = np.zeros(len(array), dtype=[("byte", "i1"), ("value", "f8")])
    record["value"] = array
    return record["value"]


LAYOUTS = {
    "plain": lambda x: x,
    "reversed": lambda x: x[::-1].copy()[::-1],
    "strided": lambda x: np.repeat(x, 2)[::2],
    "read-only": _read_only,
    "unaligned": _unaligned,
    "big-endian": lambda x: x.astype(">f8"),
    "little-endian": lambda x: x.astype("<f8"),
}


@pytest.mark.parametrize("make", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_every_layout_gives_the_same_numbers(make):
    got = from_array(make(np.array([1.5, -2.0, np.inf])), "y")
    assert got.dtype == torch.float64
    assert got.flatten().tolist() == [1.5, -2.0, np.inf]


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        ("?", torch.float64),
        ("i1", torch.float64),
        (">i8", torch.float64),
        ("u2", torch.float64),
        ("u8", torch.float64),
        (">f2", torch.float16),
        ("f4", torch.float32),
        ("g", torch.float64),
        (">c8", torch.complex64),
        ("G", torch.complex128),
    ],
)
def test_types(dtype, expected):
    got = from_array(np.array([1, 0], dtype=dtype), "y")
    assert got.dtype == expected
    assert got.tolist() == [1, 0]


@pytest.mark.parametrize("shape", [(), (0,), (0, 2), (2, 3)], ids=str)
def test_shapes_are_kept(shape):
    assert from_array(np.ones(shape), "y").shape == shape


@pytest.mark.parametrize("dtype", ["i4", ">f4", "f8", "c16"])
def test_a_masked_entry_is_nan_and_the_array_stays_as_it_was(dtype):
    array = np.ma.array([1, 2, 3], mask=[False, True, False], dtype=dtype)
    got = from_array(array, "y")
    assert torch.isnan(got).tolist() == [False, True, False]
    assert array.data.tolist() == [1, 2, 3]
    assert not torch.isnan(from_array(np.ma.array([1.0, 2.0]), "y")).any()


@pytest.mark.parametrize(
    ("x", "came"),
    [
        (None, "a tensor or a NumPy array, got NoneType"),
        ([1.0], "a tensor or a NumPy array, got list"),
        (pd.Series([1.0]), "a tensor or a NumPy array, got Series"),
        (np.float64(1), "a tensor or a NumPy array, got float64"),
        (np.array([1, None]), "an array of numbers, got the dtype object"),
        (np.array(["1"]), "an array of numbers, got the dtype <U1"),
        (np.array(["2020"], dtype="M8[Y]"), "an array of numbers, got the dtype datetime64"),
    ],
    ids=["None", "list", "Series", "scalar", "object", "text", "date"],
)
def test_anything_else_is_refused_in_one_sentence(x, came):
    with pytest.raises(RangeError, match=f"y must be {came}"):
        from_array(x, "y")


def test_is_array():
    assert is_array(np.ones(1))
    assert not is_array(torch.ones(1))


def test_numpy_is_not_imported(monkeypatch):
    monkeypatch.delitem(sys.modules, "numpy")
    assert not is_array([1.0])
    assert "numpy" not in sys.modules
