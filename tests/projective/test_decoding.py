import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zeroproof.autodiff import GradientPolicy, gradient_policy
from zeroproof.errors import RangeError, ShapeError
from zeroproof.projective import decode, encode

INF, NAN = math.inf, math.nan


@pytest.mark.parametrize(
    ("N", "D", "tau", "value"),
    [
        (1.0, 4.0, 1e-6, 0.25),
        (1.0, -4.0, 1e-6, -0.25),
        (1.0, 1e-6, 1e-7, 1e6),
        (3.0, 0.5, 0.5, 6.0),  # a score of exactly τ is finite
        (1.0, 0.0, 1e-6, None),
        (0.0, 0.0, 1e-6, None),
        (1.0, 0.0, 1e-300, None),  # τ is 0 in float32
        (1.0, 1e-7, 1e-6, None),
        (1e30, 1e-10, 1e-12, None),  # the quotient overflows
        (NAN, 1.0, 1e-6, None),
        (1.0, NAN, 1e-6, None),
        (INF, 1.0, 1e-6, None),
        (1.0, INF, 1e-6, None),
        (-INF, -INF, 1e-6, None),
        (0.0, 1.0, 1e-6, 0.0),
    ],
)
def test_table(N, D, tau, value):
    decoded, bottom = decode(torch.tensor([N]), torch.tensor([D]), tau)
    assert bottom.item() == (value is None)
    if value is None:
        assert decoded.isnan()
    else:
        assert decoded.item() == pytest.approx(value, rel=1e-6)


@given(st.floats(-(2.0**100), 2.0**100, width=32) | st.sampled_from([INF, -INF, NAN]))
def test_decoding_undoes_encoding(x):
    value, bottom = decode(*encode(torch.tensor([x])))
    assert bottom.item() == (not math.isfinite(x))
    assert value.isnan().item() if bottom.item() else value.item() == x


@given(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3), st.sampled_from([-0.25, 4.0, 2.0**40]))
def test_with_the_angle_the_gauge_changes_nothing(N, D, gauge):
    N, D = torch.tensor([N], dtype=torch.float64), torch.tensor([D], dtype=torch.float64)
    value, bottom = decode(N, D, 1e-3, score="angle")
    moved, moved_bottom = decode(gauge * N, gauge * D, 1e-3, score="angle")  # a power of 2: exact
    assert torch.equal(bottom, moved_bottom)
    torch.testing.assert_close(value, moved, equal_nan=True)


def test_the_gauge_decides_with_the_guides_score():
    N, D = torch.tensor([1.0, 1e-4]), torch.tensor([1e-3, 1e-7])
    assert decode(N, D)[1].tolist() == [False, True]
    assert decode(N, D, 1e-6, score="angle")[1].tolist() == [False, False]


def test_the_angle_takes_the_scale_of_the_targets():
    N, D = torch.tensor([1e3]), torch.ones(1)
    assert decode(N, D, 1e-2, score="angle")[1]
    assert not decode(N, D, 1e-2, score="angle", scale=1e3)[1]


@pytest.mark.parametrize("size", [1e-20, 1e20])
def test_extreme_magnitudes(size):
    value, bottom = decode(torch.tensor([3 * size]), torch.tensor([size]), 1e-3, score="angle")
    assert not bottom
    assert value.item() == pytest.approx(3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_decodes_in_float32(dtype):
    value, bottom = decode(torch.tensor([6e4], dtype=dtype), torch.tensor([0.25], dtype=dtype))
    assert value.dtype == torch.float32
    assert not bottom
    assert value.item() == pytest.approx(2.4e5, rel=1e-2)


def test_complex_tuples_compare_moduli():
    N, D = torch.tensor([1j, 1j, complex(NAN, 0)]), torch.tensor([2j, 1e-8j, 1j])
    value, bottom = decode(N, D)
    assert bottom.tolist() == [False, True, True]
    assert value[0] == 0.5
    assert value[1:].isnan().all()


def test_a_shared_denominator_decodes_every_output():
    value, bottom = decode(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[2.0], [0.0]]))
    assert value[0].tolist() == [0.5, 1.0]
    assert bottom.tolist() == [[False, False], [True, True]]


def test_empty_tuples():
    value, bottom = decode(torch.empty(0, 2), torch.empty(0, 2))
    assert value.shape == bottom.shape == (0, 2)


def gradients(N, D, policy, **options):
    N, D = (torch.tensor(x, requires_grad=True) for x in (N, D))
    value, bottom = decode(N, D, **options)
    total = torch.where(bottom, 0, value).sum() * 8
    with gradient_policy(policy):
        total.backward()
    return N.grad.tolist(), D.grad.tolist()


@pytest.mark.parametrize(
    ("policy", "g_N", "g_D"),
    [
        (GradientPolicy.CLAMP, [1.0, 0.0], [-1.0, 0.0]),
        (GradientPolicy.PROJECT, [4.0, 0.0], [-2.0, 0.0]),
        (GradientPolicy.REJECT, [0.0, 0.0], [0.0, 0.0]),
    ],
    ids=lambda x: getattr(x, "name", ""),
)
def test_policies(policy, g_N, g_D):
    assert gradients([1.0, 1.0], [2.0, 0.0], policy) == (g_N, g_D)


def test_clamp_bounds_small_denominators_and_keeps_small_gradients():
    g_N, g_D = gradients([1e-3, 1.0], [16.0, 1e-5], GradientPolicy.CLAMP)
    assert g_N == [0.5, 1.0]
    assert g_D[0] == pytest.approx(-8e-3 / 256)
    assert g_D[1] == -1.0


def test_passthrough_lets_the_raw_gradient_through():
    N, D = torch.ones(1, requires_grad=True), torch.zeros(1, requires_grad=True)
    value, _ = decode(N, D)
    with gradient_policy(GradientPolicy.PASSTHROUGH):
        value.sum().backward()
    assert not torch.isfinite(N.grad)


@pytest.mark.parametrize("tau", [0.0, -1.0, NAN, INF, "1e-6", True])
def test_tau_is_checked(tau):
    with pytest.raises(RangeError, match="tau_infer must"):
        decode(torch.ones(1), torch.ones(1), tau)


def test_options_and_shapes_are_checked():
    one = torch.ones(2)
    with pytest.raises(RangeError, match="score must be one of"):
        decode(one, one, score="size")
    with pytest.raises(RangeError, match="scale must be a finite number above 0"):
        decode(one, one, score="angle", scale=0.0)
    with pytest.raises(ShapeError, match=r"got \(2,\) and \(2, 1\)"):
        decode(one, torch.ones(2, 1))
