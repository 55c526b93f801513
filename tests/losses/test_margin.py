import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zeroproof.autodiff import GradientPolicy, gradient_policy
from zeroproof.errors import RangeError, ShapeError
from zeroproof.losses import margin_loss


def gradient(D, tau=1e-4, **options):
    D = D.clone().requires_grad_()
    with gradient_policy(GradientPolicy.PROJECT):
        return torch.autograd.grad(margin_loss(D, tau, reduction="sum", **options), D)[0]


@pytest.mark.parametrize(
    ("D", "tau", "relative", "expected"),
    [
        (0.0, 1e-4, False, 1e-8),
        (-5e-5, 1e-4, False, 2.5e-9),
        (1e-4, 1e-4, False, 0.0),
        (-7.0, 1e-4, False, 0.0),
        (0.0, 1e-4, True, 1.0),
        (-5e-5, 1e-4, True, 0.25),
        (2e-4, 1e-4, True, 0.0),
        (0.25, 2.0, True, 0.765625),
    ],
)
def test_values(D, tau, relative, expected):
    D = torch.tensor([D], dtype=torch.float64)
    loss = margin_loss(D, tau_train=tau, relative=relative)
    assert loss.item() == pytest.approx(expected, rel=1e-12, abs=1e-30)


def test_the_guides_call():
    D = torch.tensor([1.0, 0.0])
    assert margin_loss(D, tau_train=1e-4).item() == pytest.approx(5e-9)
    assert margin_loss(D).item() == pytest.approx(5e-9)


def test_the_guides_margin_has_no_gradient_at_zero_and_the_relative_one_leaves_it():
    assert gradient(torch.zeros(1)) == 0
    assert gradient(torch.zeros(1), relative=True).item() == pytest.approx(-2e4)
    assert gradient(torch.zeros(1), N=torch.ones(1), score="angle").item() < 0
    assert gradient(torch.zeros(1, dtype=torch.complex64), relative=True).real.item() < 0


def test_descent_leads_a_layer_that_is_bottom_everywhere_out_of_it():
    D = torch.zeros(4, requires_grad=True)
    optimizer = torch.optim.SGD([D], lr=1e-9)
    for _ in range(20):
        optimizer.zero_grad()
        with gradient_policy(GradientPolicy.PROJECT):
            margin_loss(D, relative=True).backward()
        optimizer.step()
    assert (D > 5e-5).all()


@given(
    st.floats(-1e3, 1e3).filter(lambda x: abs(x) > 1e-3),
    st.floats(-1e3, 1e3).filter(lambda x: abs(x) > 1e-3),
    st.sampled_from([-5.0, 0.01, 1e6]),
    st.sampled_from([0.01, 30.0]),
)
def test_the_angle_is_free_of_gauge_and_units(N, D, gauge, unit):
    N, D = (torch.tensor([x], dtype=torch.float64) for x in (N, D))
    loss = margin_loss(D, 0.5, N=N, relative=True, score="angle")
    other = margin_loss(gauge * D, 0.5, N=gauge * N, relative=True, score="angle")
    units = margin_loss(D, 0.5, N=unit * N, relative=True, score="angle", scale=unit)
    torch.testing.assert_close(other, loss)
    torch.testing.assert_close(units, loss)


@pytest.mark.parametrize("D", [1e-20, 1e-9, 1.0, 1e20])
@pytest.mark.parametrize("N", [1e-20, 1.0, 1e20])
def test_extreme_magnitudes(N, D):
    expected = max(0.0, 1 - (D / (N * N + D * D) ** 0.5) / 0.7) ** 2
    N, D = torch.tensor([N]), torch.tensor([D], requires_grad=True)
    loss = margin_loss(D, 0.7, N=N, relative=True, score="angle")
    assert loss.item() == pytest.approx(expected, rel=1e-6, abs=1e-7)
    with gradient_policy(GradientPolicy.PROJECT):
        loss.backward()
    assert torch.isfinite(D.grad).all()
    assert torch.isfinite(gradient(D.detach(), relative=True)).all()


@pytest.mark.parametrize("tau", [5e-324, 1e-60, 1e-40, 1e-20, 1e20, 1e38, 1e60, 1e308])
@pytest.mark.parametrize("relative", [False, True])
def test_every_legal_threshold_gives_finite_numbers(tau, relative):
    D = torch.tensor([0.0, 1e-42, 1e-20, 1.0, 1e20, 3e38])
    losses = margin_loss(D, tau, relative=relative, reduction="none")
    limits = torch.finfo(torch.float32)
    end = min(max(tau, limits.tiny), limits.max)
    gap = (1 - D.double() / end if relative else end - D.double()).clamp(0, limits.max**0.5 / 2)
    torch.testing.assert_close(
        losses.double(), gap.square(), rtol=1e-5, atol=1e-12 if relative else 1e-44
    )
    assert torch.isfinite(margin_loss(D, tau, relative=relative))
    assert torch.isfinite(gradient(D, tau, relative=relative)).all()


def test_a_saturated_margin_still_pulls():
    assert gradient(torch.tensor([1e19]), 1e20) < -1e18
    assert margin_loss(torch.tensor([0.0]), 1e-60, relative=True) == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_computed_in_float32(dtype):
    D = torch.tensor([3e-5], dtype=dtype)
    loss = margin_loss(D)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx((1e-4 - D.item()) ** 2, rel=1e-5)


def test_numerators_give_the_loss_their_shape_and_leave_rows_out():
    D, N = torch.tensor([[0.5], [0.25]]), torch.tensor([[1.0, 2.0], [float("nan"), 1.0]])
    losses = margin_loss(D, 1.0, N=N, reduction="none")
    assert torch.equal(losses, torch.tensor([[0.25, 0.25], [0.0, 0.0]]))
    assert margin_loss(D, 1.0, N=N) == 0.25


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"tau_train": 0.0}, r"tau_train must lie in \(0, inf\), got 0.0"),
        ({"tau_train": float("nan")}, r"tau_train must lie in \(0, inf\), got nan"),
        ({"score": "size"}, "score must be one of 'denominator', 'angle', got 'size'"),
        ({"score": "angle"}, "N must be given for score='angle', got None"),
        ({"scale": 0.0}, "scale must be a finite number above 0, got 0.0"),
    ],
)
def test_options_are_checked(options, match):
    with pytest.raises(RangeError, match=match):
        margin_loss(torch.ones(2), **options)


def test_shapes_are_checked():
    with pytest.raises(ShapeError, match="N and D must have equal shapes"):
        margin_loss(torch.ones(3, 1), N=torch.ones(3))
