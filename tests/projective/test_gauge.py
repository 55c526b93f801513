import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zeroproof._checks import widen
from zeroproof.errors import RangeError, ShapeError
from zeroproof.projective import renormalize, target_scale
from zeroproof.projective.tuples import rescaled

sizes = st.sampled_from([1e-20, 1e-10, 1.0, 1e10, 1e20])


@given(sizes, sizes, st.booleans())
def test_renormalised_tuples_have_unit_size_and_the_same_value(n, d, negative):
    N, D = torch.tensor([-n if negative else n]), torch.tensor([d])
    got = renormalize(N, D, gamma=0.0)
    torch.testing.assert_close(torch.hypot(got.N, got.D), torch.ones(1))
    torch.testing.assert_close(got.N.double() * D, got.D.double() * N, rtol=1e-5, atol=0)


@pytest.mark.parametrize("gamma", [0.0, 1e-9, 0.5])
def test_the_formula(gamma):
    N, D = torch.randn(2, 7, 3, dtype=torch.float64)
    S = (N**2 + D**2).sqrt() + gamma
    got = renormalize(N, D, gamma)
    torch.testing.assert_close(got.N, N / S)
    torch.testing.assert_close(got.D, D / S)


def test_a_shared_denominator_stays_one():
    N, D = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 1, dtype=torch.float64)
    S = ((N**2).sum(-1, keepdim=True) + D**2).sqrt() + 1e-9
    got = renormalize(N, D)
    assert got.D.shape == (5, 1)
    torch.testing.assert_close(got.N, N / S)
    torch.testing.assert_close(got.D, D / S)


@pytest.mark.parametrize("shared", [False, True])
def test_the_size_is_a_constant_to_autograd(shared):
    N = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    D = torch.randn(4, 1 if shared else 2, dtype=torch.float64, requires_grad=True)
    got = renormalize(N, D)
    g_N, g_D = torch.autograd.grad(got.N.sum() + got.D.sum(), (N, D))
    torch.testing.assert_close(g_N, (got.N / N).detach())
    torch.testing.assert_close(g_D, (got.D / D).detach())


def test_gradients_stay_smooth_through_zero():
    D = torch.tensor([-1e-30, 0.0, 1e-30], requires_grad=True)
    renormalize(torch.ones(3), D).D.sum().backward()
    torch.testing.assert_close(D.grad, torch.ones(3))


@pytest.mark.parametrize("gamma", [0.0, 1e-9])
def test_the_origin_stays_the_origin(gamma):
    zero = torch.zeros(1, requires_grad=True)
    got = renormalize(zero, torch.zeros(1), gamma)
    assert (got.N, got.D) == (0, 0)
    got.N.sum().backward()
    assert torch.isfinite(zero.grad)


@pytest.mark.parametrize("bad", [math.nan, math.inf], ids=str)
@pytest.mark.parametrize("which", ["N", "D"])
@pytest.mark.parametrize("shared", [False, True])
def test_a_row_that_is_not_finite_stays_so_and_keeps_zero_gradients_zero(bad, which, shared):
    N, D = torch.ones(2, 3), torch.ones(2, 1 if shared else 3)
    (N if which == "N" else D)[0, 0] = bad
    N.requires_grad_(), D.requires_grad_()
    got = renormalize(N, D)
    assert not torch.isfinite(got.N[0, 0] + got.D[0, 0])
    assert torch.isfinite(got.N[1]).all()
    loss = got.N[1].sum() + got.D[1].sum() + 0 * got.N[0].detach().nan_to_num().sum()
    for gradient in torch.autograd.grad(loss, (N, D)):
        assert torch.isfinite(gradient).all()
        assert (gradient[0] == 0).all()


@pytest.mark.parametrize(
    ("dtype", "wide"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float64, torch.float64),
        (torch.complex64, torch.complex64),
        (torch.int32, torch.float32),
        (torch.bool, torch.float32),
    ],
    ids=str,
)
def test_half_precision_and_integers_are_widened(dtype, wide):
    assert widen(torch.ones(2, dtype=dtype)).dtype == wide


def test_half_precision_does_not_overflow():
    big = torch.tensor([6e4], dtype=torch.float16)
    got = renormalize(big, big)
    torch.testing.assert_close(got.N, torch.tensor([0.5**0.5]))


def test_complex_tuples_use_moduli():
    N, D = torch.tensor([3e25j]), torch.tensor([-4e25 + 0j])
    got = renormalize(N, D)
    torch.testing.assert_close(got.N, torch.tensor([0.6j]))
    torch.testing.assert_close(got.D, torch.tensor([-0.8 + 0j]))


EDGES = [0.0, 1e-45, 1e-38, 1e-25, 1e-20, 1e-18, 1e-9, 1.0, 1e18, 1e20, 2e38, 3e38]


@pytest.mark.parametrize("chunk", [7, 10**6, None])
@pytest.mark.parametrize("shape", [(-1,), (-1, 1), (4, -1)], ids=str)
@pytest.mark.parametrize("gamma", [0.0, 1e-15, 1e-9, 0.5])
@pytest.mark.parametrize("largest", [1e18, 1e20, 3e38, math.inf, math.nan])
def test_the_formula_at_the_edges_of_the_range(monkeypatch, chunk, shape, gamma, largest):
    if chunk is None:  # the plain operations of all other modes
        monkeypatch.setattr("zeroproof.projective.tuples.divisible", lambda *_: False)
    monkeypatch.setattr("zeroproof.projective.tuples.CHUNK", chunk)
    edges = [x for x in EDGES if not x > largest] + [largest]
    signed = [*edges, *(-x for x in edges), 3.0, 4.0]
    N, D = torch.tensor(list(itertools.product(signed, signed))).T.reshape(2, *shape)
    for d in (D, D[..., :1]) if N.ndim > 1 else (D,):
        wide = N.double(), d.double()
        squares = wide[0].square() if d is D else wide[0].square().sum(-1, keepdim=True)
        S = (squares + wide[1].square()).sqrt() + gamma
        S = torch.where(torch.isfinite(S) & (S > 0), S, 1)
        got = renormalize(N, d, gamma)
        for x, x64 in zip(got, wide, strict=True):
            expected = (x64 / S).float()
            torch.testing.assert_close(x, expected, rtol=5e-7, atol=1e-44, equal_nan=True)


@given(sizes, sizes)
def test_rescaled_tuples_have_a_largest_modulus_of_one(n, d):
    N, D, m = rescaled(torch.tensor(n), torch.tensor(-d))
    assert torch.maximum(N.abs(), D.abs()) == 1
    assert m == torch.tensor(max(n, d))


def test_rescaling_leaves_the_origin():
    N, D, m = rescaled(torch.zeros(1), torch.zeros(1))
    assert (N, D, m) == (0, 0, 1)


@pytest.mark.parametrize(
    ("y", "expected"),
    [
        ([1.0, -3.0, 2.0], 2.0),
        ([1.0, math.inf, -math.inf, math.nan, 5.0, 7.0], 5.0),
        ([], 1.0),
        ([math.inf, math.nan], 1.0),
        ([0.0, 0.0, 4.0], 1.0),
        ([1.0, -3.0], 2.0),
        ([8.0, 1.0, 2.0, 4.0, math.inf], 3.0),
        ([3e38, 3e38], torch.tensor(3e38).item()),
        ([0.0, 0.0, 0.0, 4.0], 1.0),
    ],
    ids=["finite", "mixed", "empty", "none-finite", "zero", "two", "four", "huge", "four-zero"],
)
def test_target_scale(y, expected):
    assert target_scale(torch.tensor(y)) == expected


def test_target_scale_of_complex_integer_and_half_targets():
    assert target_scale(torch.tensor([3 + 4j])) == 5
    assert target_scale(torch.tensor([7, 7])) == 7
    assert target_scale(torch.tensor([2.0], dtype=torch.bfloat16)) == 2


def test_arguments_are_checked():
    with pytest.raises(ShapeError, match=r"shared denominator, got \(3,\) and \(3, 1\)"):
        renormalize(torch.ones(3), torch.ones(3, 1))
    with pytest.raises(RangeError, match=r"gamma must lie in \[0, 1\], got 2.0"):
        renormalize(torch.ones(3), torch.ones(3), gamma=2.0)
