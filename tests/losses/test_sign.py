import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zeroproof.autodiff import GradientPolicy, gradient_policy
from zeroproof.errors import RangeError
from zeroproof.losses import sign_consistency_loss

VARIANTS = pytest.mark.parametrize("variant", ["cosine", "angle"])


def at(angle, target=0.0, **options):
    """Loss and gradient at tuples of these angles, for targets of that angle, all singular."""
    angle = torch.as_tensor([angle], dtype=torch.float64)
    N, D = angle.cos().requires_grad_(), angle.sin().requires_grad_()
    Y = torch.tensor([target], dtype=torch.float64)
    loss = sign_consistency_loss(N, D, Y.cos(), Y.sin(), 2.0, **options)
    with gradient_policy(GradientPolicy.PROJECT):
        return loss.item(), torch.cat(torch.autograd.grad(loss, (N, D)))


@pytest.mark.parametrize("angle", [0.0, 0.3, -1.2, math.pi / 2, 3.0, -3.1])
@pytest.mark.parametrize("target", [0.0, math.pi, 0.4])
def test_values_follow_the_angle_between_the_tuples(angle, target):
    between = math.remainder(target - angle, 2 * math.pi)
    cosine, _ = at(angle, target)
    turned, _ = at(angle, target, variant="angle")
    assert cosine == pytest.approx(1 - math.cos(between), abs=1e-14)
    assert turned == pytest.approx(between**2 / 2, abs=1e-14)


def test_exact_opposition_has_a_gradient_only_in_the_angle_variant():
    N, D = torch.tensor([-1.0], requires_grad=True), torch.zeros(1, requires_grad=True)
    one, zero = torch.ones(1), torch.zeros(1)
    for variant, slope in (("cosine", 0.0), ("angle", math.pi)):
        loss = sign_consistency_loss(N, D, one, zero, variant=variant)
        with gradient_policy(GradientPolicy.PROJECT):
            g_N, g_D = torch.autograd.grad(loss, (N, D))
        assert g_N == 0
        assert g_D.abs().item() == pytest.approx(slope)


def test_only_singular_targets_count():
    N, D = torch.tensor([1.0, 1.0, 1.0]), torch.tensor([0.0, 0.0, 1.0])
    Y_n, Y_d = torch.tensor([-1.0, 1.0, -5.0]), torch.tensor([0.0, 1e-4, 1.0])
    losses = sign_consistency_loss(N, D, Y_n, Y_d, reduction="none")
    assert losses[0] == 2
    assert losses[1].item() == pytest.approx(5e-9, rel=1e-3)
    assert losses[2] == 0
    assert sign_consistency_loss(N, D, Y_n, Y_d).item() == pytest.approx(1.0)
    assert sign_consistency_loss(N, D, Y_n, Y_d, tau_sing=1e-5) == 2


def test_the_threshold_is_open_and_looks_at_the_modulus():
    N, D, Y_n = torch.ones(2), torch.zeros(2), -torch.ones(2)
    losses = sign_consistency_loss(
        N, D, Y_n, torch.tensor([0.5, -0.25]), tau_sing=0.5, reduction="none"
    )
    assert losses[0] == 0
    assert losses[1] > 1


@VARIANTS
def test_no_singular_target_gives_a_connected_zero(variant):
    N, D = torch.ones(3, requires_grad=True), torch.ones(3, requires_grad=True)
    loss = sign_consistency_loss(N, D, torch.ones(3), torch.ones(3), variant=variant)
    assert loss == 0
    loss.backward()
    assert (N.grad == 0).all()


@given(st.floats(-3, 3), st.sampled_from([1e-15, 0.1, 1e15]), st.sampled_from([1e-15, 7.0, 1e15]))
def test_positive_gauges_change_nothing(angle, gauge, target_gauge):
    theta = torch.tensor([angle])
    N, D, one, zero = theta.cos(), theta.sin(), torch.ones(1), torch.zeros(1)
    for variant in ("cosine", "angle"):
        loss = sign_consistency_loss(N, D, one, zero, variant=variant)
        scaled = sign_consistency_loss(
            gauge * N, gauge * D, target_gauge * one, zero, variant=variant
        )
        torch.testing.assert_close(scaled, loss, rtol=1e-5, atol=1e-6)


@VARIANTS
@pytest.mark.parametrize("size", [1e-20, 1.0, 1e20])
def test_extreme_magnitudes(variant, size):
    N, D = torch.tensor([-size]), torch.tensor([size])
    N.requires_grad_(), D.requires_grad_()
    loss = sign_consistency_loss(N, D, torch.tensor([1e20]), torch.zeros(1), variant=variant)
    expected = {"cosine": 1 + 0.5**0.5, "angle": (0.75 * math.pi) ** 2 / 2}[variant]
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    with gradient_policy(GradientPolicy.PROJECT):
        g_N, g_D = torch.autograd.grad(loss, (N, D))
    assert (g_N * size).item() == pytest.approx((g_D * size).item(), rel=1e-5)
    assert g_N != 0


@VARIANTS
@pytest.mark.parametrize("policy", list(GradientPolicy), ids=lambda policy: policy.name)
def test_the_origin_costs_a_right_angle_and_has_no_gradient(variant, policy):
    N, D = torch.zeros(1, requires_grad=True), torch.zeros(1, requires_grad=True)
    loss = sign_consistency_loss(N, D, torch.ones(1), torch.zeros(1), variant=variant)
    assert loss.item() == pytest.approx({"cosine": 1.0, "angle": math.pi**2 / 8}[variant])
    with gradient_policy(policy):
        loss.backward()
    for gradient in (N.grad, D.grad):  # it has no angle
        assert gradient.isnan() if policy is GradientPolicy.PASSTHROUGH else gradient == 0


def test_targets_of_unknown_sign_are_masked():
    N, D = torch.tensor([-1.0, -1.0]), torch.zeros(2)
    Y_n, Y_d = torch.ones(2), torch.zeros(2)  # +inf and a lifted nan
    known = torch.tensor([True, False])
    losses = sign_consistency_loss(N, D, Y_n, Y_d, mask=known, reduction="none")
    assert losses.tolist() == [2.0, 0.0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@VARIANTS
def test_half_precision_is_computed_in_float32(dtype, variant):
    N, D = torch.tensor([6e4], dtype=dtype), torch.tensor([6e4], dtype=dtype)
    loss = sign_consistency_loss(N, D, torch.ones(1), torch.zeros(1), variant=variant)
    assert loss.dtype == torch.float32
    expected = {"cosine": 1 - 0.5**0.5, "angle": (math.pi / 4) ** 2 / 2}[variant]
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_complex_tuples_take_the_real_part_of_the_product():
    N, D = torch.tensor([1j]), torch.zeros(1, dtype=torch.complex64)
    one = torch.ones(1, dtype=torch.complex64)
    for phase, expected in ((1j, 0.0), (1, 1.0), (-1j, 2.0)):
        assert sign_consistency_loss(N, D, phase * one, D).item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"variant": "sine"}, "variant must be one of 'cosine', 'angle', got 'sine'"),
        ({"tau_sing": 0.0}, r"tau_sing must lie in \(0, inf\), got 0.0"),
    ],
)
def test_options_are_checked(options, match):
    one = torch.ones(2)
    with pytest.raises(RangeError, match=match):
        sign_consistency_loss(one, one, one, one, **options)


def test_an_angle_needs_real_tuples():
    one = torch.ones(2, dtype=torch.complex64)
    with pytest.raises(RangeError, match="variant must be 'cosine' for complex tuples"):
        sign_consistency_loss(one, one, one, one, variant="angle")
