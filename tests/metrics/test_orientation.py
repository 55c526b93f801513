import math

import pytest
import torch

from zeroproof.errors import RangeError, ShapeError
from zeroproof.losses import sign_consistency_loss
from zeroproof.metrics import sign_share
from zeroproof.training import lift_targets

INF, NAN = math.inf, math.nan


def counted(N, D, y, **options):
    share = sign_share(torch.tensor(N), torch.tensor(D), torch.tensor(y), **options)
    return int(share.hits), int(share.entries)


@pytest.mark.parametrize("D", [1e-9, 0.0, -1e-9])
@pytest.mark.parametrize("y", [INF, -INF])
@pytest.mark.parametrize("N", [1.0, -1.0])
def test_the_affine_side_is_the_sign_of_the_numerator_alone(N, D, y):
    assert counted([N], [D], [y]) == (int(N * y > 0), 1)


@pytest.mark.parametrize("N", [2.0, -2.0])
@pytest.mark.parametrize("y", [INF, -INF])
def test_the_right_side_is_the_one_that_the_sign_loss_teaches(N, y):
    pair, target = (torch.tensor([N]), torch.tensor([1e-3])), torch.tensor([y])
    loss = sign_consistency_loss(*pair, *lift_targets(target))
    assert int(sign_share(*pair, target).hits) == int(loss < 1)


def test_only_targets_at_a_pole_count_and_never_nan():
    assert counted([1.0] * 4, [1.0] * 4, [INF, 5.0, NAN, -50.0]) == (1, 1)
    assert counted([1.0] * 4, [1.0] * 4, [INF, 5.0, NAN, -50.0], bound=5.0) == (2, 3)


@pytest.mark.parametrize(("N", "D"), [(0.0, 1.0), (NAN, 1.0), (INF, 1.0), (1.0, NAN)])
def test_a_tuple_without_a_side_is_on_the_wrong_one(N, D):
    assert counted([N], [D], [INF]) == (0, 1)


@pytest.mark.parametrize("turn", [1.0, -1.0])
def test_in_the_projective_topology_a_tuple_may_be_turned_round(turn):
    N, D, y = [turn, turn, turn, turn], [turn * 1e-3, -turn * 1e-3, 0.0, turn], [2e3, 2e3, 2e3, INF]
    assert counted(N, D, y, bound=1e3, topology="projective") == (1, 3)


def test_a_shared_denominator_serves_all_outputs():
    N, D, y = torch.tensor([[1.0, -1.0]]), torch.tensor([[-1e-3]]), torch.tensor([[-9e3, -9e3]])
    share = sign_share(N, D, y, bound=1e3, topology="projective")
    assert share == (1, 2)


def test_what_has_no_sides_is_refused():
    one = torch.ones(1)
    with pytest.raises(RangeError, match="bound must be finite in the projective topology"):
        sign_share(one, one, one, topology="projective")
    with pytest.raises(RangeError, match="N, D and y must be real"):
        sign_share(one + 0j, one, one)
    with pytest.raises(RangeError, match="topology must be one of 'affine', 'projective'"):
        sign_share(one, one, one, topology="plane")
    with pytest.raises(RangeError, match="bound must be a finite number above 0, got -1"):
        sign_share(one, one, one, bound=-1)
    with pytest.raises(ShapeError, match="y must have the shape of N"):
        sign_share(one, one, one[:, None])
