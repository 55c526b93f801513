import math

import pytest
import torch
from torch.utils import _pytree as pytree

from zeroproof.errors import ShapeError
from zeroproof.projective import Pair, decode, encode
from zeroproof.scm import SCM


@pytest.mark.parametrize(
    ("x", "expected"),
    [(2.5, (2.5, 1)), (0.0, (0, 1)), (math.inf, (1, 0)), (-math.inf, (1, 0)), (math.nan, (1, 0))],
)
def test_encode(x, expected):
    N, D = encode(torch.tensor(x))
    assert (N.item(), D.item()) == expected


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float64, torch.complex64, torch.int64], ids=str
)
def test_encode_keeps_the_dtype_and_takes_empty_values(dtype):
    for x in (torch.tensor([2, 3]).to(dtype), torch.empty(0, 3, dtype=dtype)):
        N, D = encode(x)
        assert N.dtype == D.dtype == dtype
        assert torch.equal(N, x)
        assert torch.equal(D, torch.ones_like(x))


def test_a_bottom_mask_makes_further_bottoms_and_takes_their_gradient():
    x = torch.tensor([2.0, 3.0, math.nan], requires_grad=True)
    N, D = encode(x, torch.tensor([False, True, False]))
    assert N.tolist() == [2, 1, 1]
    assert D.tolist() == [1, 0, 0]
    N.sum().backward()
    assert x.grad.tolist() == [1, 0, 0]


def test_a_meadow_value_passes_through_tuples_unchanged():
    x = SCM(torch.tensor([1.5, math.nan]), torch.tensor([False, True]))
    value, bottom = decode(*encode(*pytree.tree_leaves(x)))
    assert torch.equal(bottom, x.bottom)
    assert value[0] == 1.5
    assert value[1].isnan()


def test_a_mask_of_another_shape_is_refused():
    with pytest.raises(ShapeError, match=r"bottom must have the shape of payload, \(3,\), got"):
        encode(torch.ones(3), torch.zeros(3, 1, dtype=torch.bool))


def test_a_pair_is_a_pytree():
    pair = Pair(torch.ones(2), torch.zeros(2))
    leaves, spec = pytree.tree_flatten(pair)
    assert len(leaves) == 2
    assert isinstance(pytree.tree_unflatten(leaves, spec), Pair)
    assert pytree.treespec_loads(pytree.treespec_dumps(spec)) == spec
