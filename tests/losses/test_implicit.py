from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zeroproof.autodiff import GradientPolicy, gradient_policy
from zeroproof.errors import RangeError
from zeroproof.losses import implicit_loss

KINDS = {
    "detached": {"normalizer": "detached"},
    "attached": {"normalizer": "attached"},
    "chordal": {"normalizer": "chordal"},
    "oriented": {"oriented": True},
}
every_kind = pytest.mark.parametrize("options", KINDS.values(), ids=KINDS.keys())
numbers = st.floats(-100, 100, width=32).filter(lambda x: x == 0 or abs(x) > 1e-3)


def modulus2(x):
    return (x * x.conj()).real if x.is_complex() else x * x


def plain(N, D, Y_n, Y_d, normalizer="detached", oriented=False, gamma=1e-9):
    """The formulas as they are written, with no care for the number range."""
    if oriented:
        inner = N * Y_n.conj() + D * Y_d.conj()
        inner = inner.real if inner.is_complex() else inner
        size = (modulus2(N) + modulus2(D)).sqrt() * (modulus2(Y_n) + modulus2(Y_d)).sqrt()
        return 2 * (1 - inner / size)
    E = modulus2(N * Y_d - D * Y_n)
    if normalizer == "chordal":
        return E / ((modulus2(N) + modulus2(D)) * (modulus2(Y_n) + modulus2(Y_d)))
    S = modulus2(D) * modulus2(Y_d) + modulus2(N) * modulus2(Y_n)
    return E / ((S.detach() if normalizer == "detached" else S) + gamma)


def losses_and_gradients(function, tuples, **options):
    N, D = (x.clone().requires_grad_() for x in tuples[:2])
    losses = function(N, D, *tuples[2:], **options)
    with gradient_policy(GradientPolicy.PROJECT):
        return losses.detach(), *torch.autograd.grad(losses.sum(), (N, D))


TABLE = [
    pytest.param((2, 1, 2, 1), id="hit"),
    pytest.param((3, 1, 2, 1), id="miss"),
    pytest.param((1, 0, 1, 0), id="infinite"),
    pytest.param((1, 0, -1, 0), id="other-infinity"),
    pytest.param((1, 0, 0, 1), id="infinite-for-zero"),
    pytest.param((5, -3, 7, 2), id="negative"),
    pytest.param((1, 1000, 3, 1), id="near-zero"),
]


@pytest.mark.parametrize("numbers", TABLE)
@pytest.mark.parametrize("gamma", [1e-9, 0.5], ids=["default", "large"])
def test_the_value_is_the_guides_formula_with_gamma(numbers, gamma):
    N, D, Y_n, Y_d = (Fraction(x) for x in numbers)
    E, S = (N * Y_d - D * Y_n) ** 2, D**2 * Y_d**2 + N**2 * Y_n**2
    tuples = [torch.tensor([float(x)], dtype=torch.float64) for x in numbers]
    expected = float(E / (S + Fraction(gamma)))
    for normalizer in ("detached", "attached"):
        loss = implicit_loss(*tuples, gamma, normalizer=normalizer)
        assert loss.item() == pytest.approx(expected, rel=1e-13, abs=1e-30)


@pytest.mark.parametrize("numbers", TABLE)
def test_the_chordal_value_is_the_squared_sine(numbers):
    N, D, Y_n, Y_d = (Fraction(x) for x in numbers)
    expected = (N * Y_d - D * Y_n) ** 2 / ((N**2 + D**2) * (Y_n**2 + Y_d**2))
    tuples = [torch.tensor([float(x)], dtype=torch.float64) for x in numbers]
    loss = implicit_loss(*tuples, normalizer="chordal")
    assert loss.item() == pytest.approx(float(expected), rel=1e-13, abs=1e-30)


@pytest.mark.parametrize(
    ("target", "expected"),
    [((1.0, 0.0), 0.0), ((-1.0, 0.0), 4.0), ((0.0, 1.0), 2.0), ((1.0, 1.0), 2 - 2**0.5)],
    ids=["same", "opposite", "right-angle", "half"],
)
def test_the_oriented_value_is_twice_one_minus_cosine(target, expected):
    one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    loss = implicit_loss(one, zero, one * target[0], one * target[1], oriented=True)
    assert loss.item() == pytest.approx(expected, abs=1e-15)


def test_small_oriented_losses_keep_their_digits():
    angle = torch.tensor([1e-5])
    loss = implicit_loss(angle.cos(), angle.sin(), torch.ones(1), torch.zeros(1), oriented=True)
    assert loss.item() == pytest.approx(1e-10, rel=1e-5)  # 1 - cos is 0 in float32


MAGNITUDES = torch.tensor([1e-20, 1e-9, 1.0, 1e9, 1e20])


@every_kind
@pytest.mark.parametrize("imaginary", [0, 0.75j], ids=["real", "complex"])
def test_extreme_magnitudes_are_right_in_float32(options, imaginary):
    grid = torch.cartesian_prod(*[MAGNITUDES] * 4).T
    tuples = [x * (sign + imaginary) for x, sign in zip(grid, (1.25, -0.75, 0.5, 1.5), strict=True)]
    wide = [x.to(torch.complex128 if imaginary else torch.float64) for x in tuples]
    losses, *gradients = losses_and_gradients(implicit_loss, tuples, reduction="none", **options)
    expected, *expected_gradients = losses_and_gradients(plain, wide, **options)
    assert losses.dtype == torch.float32
    assert torch.isfinite(losses).all()
    fits = expected < 1e37
    assert fits.sum() > 300
    error = (losses - expected).abs() / (expected + 1e-6)
    assert error[fits].max() < 2e-6
    for gradient, wanted, x in zip(gradients, expected_gradients, wide[:2], strict=True):
        inside = fits & (wanted.abs() < 1e37)
        assert inside.sum() > 300
        # rounding of a gradient is relative to loss / |x|, where its terms cancel
        error = (gradient - wanted).abs() / (wanted.abs() + (1 + expected) / x.abs())
        assert error[inside].max() < 2e-6


@pytest.mark.parametrize("gamma", [1e-9, 0.0, 1e-3], ids=["default", "none", "large"])
@pytest.mark.parametrize("kind", [torch.float32, torch.complex64], ids=["real", "complex"])
def test_attached_gradients_are_right_wherever_they_fit(kind, gamma):
    size = 10 ** (40 * torch.rand(4, 20_000, dtype=torch.float64) - 20)
    zeros = torch.rand(4, 20_000) < 0.05
    zeros[2:] &= ~zeros[:2]  # neither tuple is <0, 0>
    zeros[1] &= ~zeros[0]
    zeros[3] &= ~zeros[2]
    tuples = [
        x.to(kind) for x in (size * torch.randn(size.shape, dtype=kind)).masked_fill(zeros, 0)
    ]
    wide = [x.to(torch.complex128 if kind.is_complex else torch.float64) for x in tuples]
    options = {"normalizer": "attached", "gamma": gamma}
    losses, *gradients = losses_and_gradients(implicit_loss, tuples, reduction="none", **options)
    expected, *expected_gradients = losses_and_gradients(plain, wide, **options)
    assert torch.isfinite(losses).all()
    torch.testing.assert_close(losses.double(), expected.clamp(max=2.0**126), rtol=1e-6, atol=1e-44)
    N, D, Y_n, Y_d = wide
    S = modulus2(D * Y_d) + modulus2(N * Y_n) + gamma
    for gradient, wanted, x, y, partner in zip(
        gradients, expected_gradients, (N, D), (Y_n, Y_d), (Y_d, Y_n), strict=True
    ):
        assert torch.isfinite(gradient).all()
        inside = wanted.abs() < 1e37
        assert inside.sum() > 15_000
        # the two terms cancel in the oracle, which has the digits of float64
        cancelled = (expected / S).sqrt() * partner.abs() + expected * x.abs() * modulus2(y) / S
        error = (gradient - wanted).abs() - 1e-13 * cancelled
        assert (error <= 1e-6 * wanted.abs() + 1e-44)[inside].all()
        beyond = (wanted.abs() >= 1e37) & (wanted.abs() > 1e-12 * cancelled)
        beyond &= torch.isfinite(wanted)  # S = 0 has no derivative
        assert (gradient.abs() > 9.9e36)[beyond].all()


@pytest.mark.parametrize(
    "values",
    [
        pytest.param((-7.1, -8.6e13, -4.2e-6, 0.0), id="real"),
        pytest.param(
            (1.25e-9 + 0.75e-9j, -7.5e8 + 7.5e8j, 5e8 + 7.5e8j, 1.5e-20 + 0.75e-20j), id="complex"
        ),
    ],
)
def test_a_steep_attached_gradient_is_that_of_float64_or_at_the_end_of_the_range(values):
    tuples = [torch.tensor([x]) for x in values]
    kind = torch.complex128 if tuples[0].is_complex() else torch.float64
    _, *got = losses_and_gradients(implicit_loss, tuples, normalizer="attached")
    _, *wanted = losses_and_gradients(plain, [x.to(kind) for x in tuples], normalizer="attached")
    end = torch.finfo(torch.float32).max
    for mine, true in zip(got, wanted, strict=True):
        parts = torch.stack([true.real, true.imag] if kind.is_complex else [true])
        mine_parts = torch.stack([mine.real, mine.imag] if kind.is_complex else [mine])
        torch.testing.assert_close(mine_parts.double(), parts.clamp(-end, end), rtol=1e-6, atol=0)


def test_targets_and_second_derivatives_of_attached_follow_the_plain_formula():
    tuples = [torch.randn(4, dtype=torch.float64, requires_grad=True) for _ in "NDnd"]
    with gradient_policy(GradientPolicy.PROJECT):
        assert torch.autograd.gradcheck(
            lambda *x: implicit_loss(*x, normalizer="attached"), tuple(tuples)
        )
        assert torch.autograd.gradgradcheck(
            lambda *x: implicit_loss(*x, normalizer="attached"), tuple(tuples)
        )


@every_kind
def test_saturation_is_finite_and_never_nan(options):
    grid = torch.cartesian_prod(*[MAGNITUDES] * 4).T
    losses, *gradients = losses_and_gradients(
        implicit_loss, list(grid), gamma=0.0, reduction="none", **options
    )
    assert torch.isfinite(losses).all()
    assert not any(gradient.isnan().any() for gradient in gradients)
    assert torch.isfinite(implicit_loss(*grid, gamma=0.0, **options))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@every_kind
def test_half_precision_is_computed_in_float32(options, dtype):
    tuples = [torch.tensor(x, dtype=dtype) for x in ([6e4, 6e-8], [6e4, 1.0], [2.0, 3.0], [1, 1])]
    losses, *gradients = losses_and_gradients(implicit_loss, tuples, reduction="none", **options)
    expected, *wanted = losses_and_gradients(plain, [x.double() for x in tuples], **options)
    assert losses.dtype == torch.float32
    torch.testing.assert_close(losses.double(), expected, rtol=1e-6, atol=1e-7)
    assert all(gradient.dtype == dtype for gradient in gradients)
    for gradient, want, x in zip(gradients, wanted, tuples, strict=False):
        limits = torch.finfo(dtype)
        rounding = limits.eps * (want.abs() + limits.smallest_normal)
        assert ((gradient - want).abs() <= rounding + 2e-6 * (1 + expected) / x.abs()).all()


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128], ids=str)
@every_kind
def test_complex_values_and_gradients(options, dtype):
    tuples = [torch.randn(6, 2, dtype=torch.complex128) for _ in "NDnd"]
    got = losses_and_gradients(
        implicit_loss, [x.to(dtype) for x in tuples], reduction="none", **options
    )
    for mine, wanted in zip(got, losses_and_gradients(plain, tuples, **options), strict=True):
        torch.testing.assert_close(mine, wanted.to(mine.dtype), rtol=1e-4, atol=1e-5)


@every_kind
@pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])
def test_gradients_are_those_of_the_plain_formula(options, shared):
    tuples = [torch.randn(5, 3, dtype=torch.float64) for _ in "NDnd"]
    if shared:
        tuples[1], tuples[3] = tuples[1][:, :1], tuples[3][:, :1]
    got = losses_and_gradients(implicit_loss, tuples, reduction="none", **options)
    for mine, wanted in zip(got, losses_and_gradients(plain, tuples, **options), strict=True):
        torch.testing.assert_close(mine, wanted)


@given(st.tuples(numbers, numbers, numbers, numbers), st.sampled_from([-3.0, -0.01, 0.2, 1e4]))
def test_chordal_is_blind_to_both_gauges_and_bounded(values, gauge):
    N, D, Y_n, Y_d = (torch.tensor([x], dtype=torch.float64) for x in values)
    loss = implicit_loss(N, D, Y_n, Y_d, normalizer="chordal")
    assert 0 <= loss <= 1
    for other in (
        implicit_loss(gauge * N, gauge * D, Y_n, Y_d, normalizer="chordal"),
        implicit_loss(N, D, gauge * Y_n, gauge * Y_d, normalizer="chordal"),
        implicit_loss(Y_n, Y_d, N, D, normalizer="chordal"),
    ):
        torch.testing.assert_close(other, loss, rtol=1e-9, atol=1e-14)


@given(st.tuples(numbers, numbers, numbers, numbers))
def test_all_but_oriented_are_blind_to_sign(values):
    N, D, Y_n, Y_d = (torch.tensor([x]) for x in values)
    for normalizer in ("detached", "attached", "chordal"):
        loss = implicit_loss(N, D, Y_n, Y_d, normalizer=normalizer)
        assert loss == implicit_loss(N, D, -Y_n, -Y_d, normalizer=normalizer)


@given(st.tuples(numbers, numbers, numbers, numbers), st.sampled_from([0.01, 0.5, 1e4]))
def test_oriented_is_free_of_positive_gauges_and_sees_the_sign(values, gauge):
    N, D, Y_n, Y_d = (torch.tensor([x], dtype=torch.float64) for x in values)
    loss = implicit_loss(N, D, Y_n, Y_d, oriented=True)
    scaled = implicit_loss(gauge * N, gauge * D, Y_n, Y_d, oriented=True)
    opposite = implicit_loss(N, D, -Y_n, -Y_d, oriented=True)
    torch.testing.assert_close(scaled, loss, rtol=1e-9, atol=1e-14)
    torch.testing.assert_close(loss + opposite, torch.full_like(loss, 4.0))


@pytest.mark.parametrize(
    ("kind", "cost"), [("detached", 0), ("attached", 1), ("chordal", 1), ("oriented", 2)]
)
@pytest.mark.parametrize("policy", list(GradientPolicy), ids=lambda policy: policy.name)
@pytest.mark.parametrize("gamma", [1e-9, 0.0], ids=["gamma", "no-gamma"])
def test_the_origin_has_a_price_and_no_gradient(kind, cost, policy, gamma):
    N, D = torch.zeros(1, requires_grad=True), torch.zeros(1, requires_grad=True)
    loss = implicit_loss(N, D, torch.tensor([2.0]), torch.ones(1), gamma, **KINDS[kind])
    assert loss == cost
    with gradient_policy(policy):
        loss.backward()
    raw = policy is GradientPolicy.PASSTHROUGH and kind in {"chordal", "oriented"}  # 0 / 0
    for gradient in (N.grad, D.grad):
        assert gradient.isnan() if raw else gradient == 0


def test_the_detached_gradient_shrinks_the_tuple_and_the_others_do_not():
    tuples = [torch.randn(50, dtype=torch.float64) for _ in "NDnd"]
    for kind, options in KINDS.items():
        losses, g_N, g_D = losses_and_gradients(
            implicit_loss, tuples, reduction="none", gamma=0.0, **options
        )
        radial = tuples[0] * g_N + tuples[1] * g_D
        expected = 2 * losses if kind == "detached" else torch.zeros_like(losses)
        torch.testing.assert_close(radial, expected, rtol=1e-9, atol=1e-9)


def test_the_detached_loss_is_unbounded_and_chordal_is_not():
    one, zero = torch.ones(1), torch.zeros(1)
    assert implicit_loss(one, zero, zero, one).item() == pytest.approx(1e9)
    assert implicit_loss(one, zero, zero, one, normalizer="chordal") == 1


@pytest.mark.parametrize(
    ("call", "match"),
    [
        ({"normalizer": "none"}, "normalizer must be one of 'detached', 'attached', 'chordal'"),
        ({"gamma": -1.0}, r"gamma must lie in \[0, 1\], got -1.0"),
        ({"gamma": float("nan")}, r"gamma must lie in \[0, 1\], got nan"),
        ({"reduction": "max"}, "reduction must be one of 'mean', 'sum', 'none', got 'max'"),
    ],
)
def test_options_are_checked(call, match):
    one = torch.ones(2)
    with pytest.raises(RangeError, match=match):
        implicit_loss(one, one, one, one, **call)


def test_an_unknown_keyword_is_refused():
    one = torch.ones(2)
    with pytest.raises(TypeError, match="wieght"):
        implicit_loss(one, one, one, one, wieght=one)
