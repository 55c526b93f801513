import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zeroproof.errors import DataError, RangeError, ShapeError
from zeroproof.layers.basis import chebyshev_basis, monomial_basis
from zeroproof.projective import chordal_distance
from zeroproof.solve import spectral_readout
from zeroproof.solve.spectral import Settings, checked_options
from zeroproof.training.targets import lift_targets

CLEAN = 1e-32
RATIONAL = {  # N and D of y = N / D on [-1, 1], in monomials
    "constant": ([3.0], [1.0]),
    "line": ([1.0, 2.0], [1.0]),
    "simple pole": ([1.0], [-0.3, 1.0]),
    "two poles": ([0.5, 1.0], [-0.14, 0.5, 1.0]),
    "double pole": ([1.0], [0.09, -0.6, 1.0]),
    "no pole": ([1.0, -1.0], [0.5, 0.0, 1.0]),
}
CASES = pytest.mark.parametrize(("N", "D"), RATIONAL.values(), ids=RATIONAL)


def points(n=200):
    return torch.rand(n, dtype=torch.float64) * 2 - 1


def evaluated(x, coefficients):
    c = torch.tensor(coefficients, dtype=torch.float64)
    return monomial_basis(x, len(coefficients) - 1) @ c


def tanh_features(x, width=60):
    generator = torch.Generator().manual_seed(1)
    W = torch.randn(1, width, generator=generator, dtype=torch.float64) * 3
    c = torch.rand(width, generator=generator, dtype=torch.float64) * 6 - 3
    return torch.cat([torch.ones(len(x), 1, dtype=x.dtype), torch.tanh(x[:, None] @ W + c)], 1)


def distance(fit, H, Y_n, Y_d, H_D=None):
    """Largest chordal distance of a fit from the truth."""
    H_D = H if H_D is None else H_D
    return chordal_distance(H @ fit.a, H_D @ fit.b, Y_n, Y_d).max().item()


@CASES
def test_a_rational_function_of_known_degrees_is_recovered(N, D):
    x = points()
    Y_n, Y_d = evaluated(x, N), evaluated(x, D)
    H_N, H_D = chebyshev_basis(x, len(N) - 1), chebyshev_basis(x, len(D) - 1)
    fit = spectral_readout(H_N, Y_n, Y_d, H_D=H_D, rho=CLEAN)
    new = points()
    H_N, H_D = chebyshev_basis(new, len(N) - 1), chebyshev_basis(new, len(D) - 1)
    assert distance(fit, H_N, evaluated(new, N), evaluated(new, D), H_D) < 1e-13
    assert fit.objective < 1e-28
    assert fit.clearance > 0.01
    assert 1 <= fit.condition < 100


@CASES
def test_random_features_approximate_it_to_rounding(N, D):
    x, new = points(1000), points()
    fit = spectral_readout(tanh_features(x), evaluated(x, N), evaluated(x, D), rho=1e-30)
    truth = evaluated(new, N), evaluated(new, D)
    assert distance(fit, tanh_features(new), *truth) < 1e-10  # 0.5 if the factor is inverted
    assert fit.condition > 1e12


def test_the_answer_is_in_a_fixed_gauge():
    x = points()
    H = chebyshev_basis(x, 3)
    fit = spectral_readout(H, x, x - 0.5, rho=1e-6)
    N, D = H @ fit.a, H @ fit.b
    torch.testing.assert_close((N**2 + D**2).mean().item(), 1.0)
    assert fit.b[fit.b.abs().argmax()] > 0
    assert fit.rho == 1e-6
    size = torch.hypot(N, D)
    assert fit.clearance == pytest.approx((size.min() / size.median()).item(), rel=0.03)
    assert fit.objective == pytest.approx(chordal_distance(N, D, x, x - 0.5).square().mean().item())


@given(st.floats(1e-30, 1e30), st.booleans())
def test_the_gauge_of_a_target_does_not_matter(gauge, negative):
    x = torch.linspace(-1, 1, 40, dtype=torch.float64)
    H = chebyshev_basis(x, 2)
    size = torch.where(x > 0.2, -gauge if negative else gauge, 1.0)
    plain = spectral_readout(H, x.sin(), x.cos() - 0.7, rho=1e-8)
    moved = spectral_readout(H, size * x.sin(), size * (x.cos() - 0.7), rho=1e-8)
    torch.testing.assert_close(plain.a, moved.a, rtol=1e-7, atol=1e-8)
    torch.testing.assert_close(plain.b, moved.b, rtol=1e-7, atol=1e-8)


@pytest.fixture
def noisy():
    x = points(120)
    y = x.sin() / (x - 0.3) * (1 + 0.05 * torch.randn_like(x))
    return chebyshev_basis(x, 3), *lift_targets(y)


def test_the_order_of_rows_does_not_matter(noisy):
    order = torch.randperm(120)
    plain = spectral_readout(*noisy, rho=1e-4)
    shuffled = spectral_readout(*(z[order] for z in noisy), rho=1e-4)
    torch.testing.assert_close(plain, shuffled, rtol=1e-8, atol=1e-9)


def test_a_weight_is_a_repetition(noisy):
    weight = torch.randint(0, 4, (120,))
    weighed = spectral_readout(*noisy, rho=1e-4, weight=weight)
    repeated = spectral_readout(*(z.repeat_interleave(weight, 0) for z in noisy), rho=1e-4)
    torch.testing.assert_close(weighed, repeated, rtol=1e-8, atol=1e-9)


def test_the_size_of_weights_does_not_matter(noisy):
    weight = torch.rand(120).double()
    small = spectral_readout(*noisy, rho=1e-4, weight=weight)
    large = spectral_readout(*noisy, rho=1e-4, weight=weight * 1e6)
    torch.testing.assert_close(small, large, rtol=1e-8, atol=1e-9)


def test_exchanging_numerator_and_denominator_gives_the_reciprocal(noisy):
    H, Y_n, Y_d = noisy
    plain = spectral_readout(H, Y_n, Y_d, rho=1e-4)
    swapped = spectral_readout(H, Y_d, Y_n, rho=1e-4)
    assert chordal_distance(H @ plain.a, H @ plain.b, H @ swapped.b, H @ swapped.a).max() < 1e-9


def test_more_sweeps_never_end_worse(noisy):
    errors = [spectral_readout(*noisy, rho=1e-6, sweeps=s).objective for s in (1, 2, 4, 8)]
    assert errors == sorted(errors, reverse=True)


def test_outputs_may_share_a_denominator():
    x = points()
    D = (x - 0.3) * (x + 0.6)
    Y_n = torch.stack([1 + x, x * x, 2 - x], 1)
    fit = spectral_readout(chebyshev_basis(x, 2), Y_n, D[:, None], rho=CLEAN)
    assert fit.a.shape == (3, 3)
    assert fit.b.shape == (3, 1)
    new = points()
    D = (new - 0.3) * (new + 0.6)
    H = chebyshev_basis(new, 2)
    truth = torch.stack([1 + new, new * new, 2 - new], 1)
    assert distance(fit, H, truth, D[:, None]) < 1e-12


def test_how_often_an_output_is_given_does_not_matter(noisy):
    H, Y_n, Y_d = noisy
    once = spectral_readout(H, Y_n[:, None].expand(-1, 2), Y_d[:, None].expand(-1, 2), rho=1e-30)
    more = spectral_readout(H, Y_n[:, None].expand(-1, 5), Y_d[:, None].expand(-1, 5), rho=1e-30)
    for j in range(5):
        torch.testing.assert_close(more.a[:, j], once.a[:, 0], rtol=1e-7, atol=1e-8)
    torch.testing.assert_close(more.b, once.b, rtol=1e-7, atol=1e-8)
    assert more.objective == pytest.approx(once.objective)


def test_no_output_is_given_up_for_another():
    x = points()
    Y_n = torch.stack([x.exp(), 5 * x.cos(), torch.ones_like(x)], 1)
    Y_n = Y_n * (1 + 0.2 * torch.randn_like(Y_n))
    H_D = torch.rand(200, 3).double()  # nothing that these denominators could be made of
    fit = spectral_readout(chebyshev_basis(x, 2), Y_n, (x - 0.3)[:, None], H_D=H_D, rho=1e-6)
    size = (chebyshev_basis(x, 2) @ fit.a).square().mean(0) + (H_D @ fit.b).square().mean(0)
    assert size.min() > 0.05 * size.max()


def test_separate_denominators_are_separate_solutions():
    x = points()
    H = chebyshev_basis(x, 3)
    Y_n, Y_d = torch.stack([x, 1 + x * x], 1), torch.stack([x - 0.3, x + 0.6], 1)
    fit = spectral_readout(H, Y_n, Y_d, rho=1e-5, shared_denominator=False)
    assert fit.b.shape == (4, 2)
    alone = [spectral_readout(H, Y_n[:, j], Y_d[:, j], rho=1e-5) for j in range(2)]
    for j in range(2):
        torch.testing.assert_close(fit.a[:, j], alone[j].a, rtol=1e-9, atol=1e-10)
        torch.testing.assert_close(fit.b[:, j], alone[j].b, rtol=1e-9, atol=1e-10)
    assert fit.objective == pytest.approx((alone[0].objective + alone[1].objective) / 2)
    assert fit.clearance == min(each.clearance for each in alone)


def test_complex_targets_have_complex_weights():
    f = points()
    Y_n, Y_d = 1 + 2j * f, f - 0.3 + 0.05j
    H_N, H_D = chebyshev_basis(f, 1), chebyshev_basis(f, 2)
    fit = spectral_readout(H_N, Y_n, Y_d, H_D=H_D, rho=CLEAN)
    assert fit.a.is_complex()
    assert fit.b.is_complex()
    assert fit.b[fit.b.abs().argmax()].imag.abs() < 1e-14
    assert distance(fit, H_N.to(Y_n), Y_n, Y_d, H_D.to(Y_n)) < 1e-13


def test_a_global_phase_turns_numerators_alone():
    f = points()
    Y_n, Y_d, H = 1 + 2j * f, f * f - 0.3 + 0.05j, chebyshev_basis(f, 1)
    plain = spectral_readout(H, Y_n, Y_d, rho=1e-4)
    turned = spectral_readout(H, 1j * Y_n, Y_d, rho=1e-4)
    torch.testing.assert_close(turned.b, plain.b)
    torch.testing.assert_close(turned.a, 1j * plain.a)


def test_singular_labels_are_ordinary_points():
    x = torch.linspace(-1, 1, 41, dtype=torch.float64)
    y = (1 + x) / (x * (x - 0.5))
    y[x == 0] = math.nan
    y[20] = -math.inf
    y[30] = math.nan
    fit = spectral_readout(chebyshev_basis(x, 2), *lift_targets(y), rho=CLEAN)
    D = chebyshev_basis(torch.tensor([0.0, 0.5], dtype=torch.float64), 2) @ fit.b
    assert D.abs().max() < 1e-13
    alone = torch.isfinite(y)
    same = spectral_readout(chebyshev_basis(x[alone], 2), *lift_targets(y[alone]), rho=CLEAN)
    assert chordal_distance(same.a, same.b, fit.a, fit.b).max() < 1e-11


def test_labels_at_the_poles_alone_can_place_them():
    x = torch.linspace(-1, 1, 41, dtype=torch.float64)
    y = torch.where(x.abs() > 0.3, 1 / (x * x - 0.04), math.nan)
    y[(x.abs() - 0.2).abs() < 1e-9] = math.inf
    Y_n, Y_d = lift_targets(y)
    Y_n[(x.abs() <= 0.3) & y.isnan()] = 0  # ⟨0, 0⟩: nothing is known there
    fit = spectral_readout(chebyshev_basis(x, 2), Y_n, Y_d, rho=CLEAN)
    assert (chebyshev_basis(torch.tensor(0.2, dtype=torch.float64), 2) @ fit.b).abs() < 1e-13


def test_empty_tuples_are_left_out(noisy):
    H, Y_n, Y_d = noisy
    Y_n, Y_d = Y_n.clone(), Y_d.clone()
    Y_n[::3] = Y_d[::3] = 0
    kept = Y_n.abs() + Y_d.abs() > 0
    plain = spectral_readout(H[kept], Y_n[kept], Y_d[kept], rho=1e-4)
    torch.testing.assert_close(spectral_readout(H, Y_n, Y_d, rho=1e-4), plain)


@pytest.mark.parametrize("pole", [-0.61, 0.137, 0.77])
def test_float32_throughout_places_simple_poles(pole):
    x = points(2000)
    H = tanh_features(x, 100).float()
    fit = spectral_readout(H, torch.ones(2000), (x - pole).float(), dtype=torch.float32)
    assert fit.a.dtype == fit.b.dtype == torch.float32
    z = pole + torch.tensor([-1e-3, 1e-3]).double()
    D = tanh_features(z, 100) @ fit.b.double()
    crossing = z[0] - D[0] * (z[1] - z[0]) / (D[1] - D[0])
    assert (crossing - pole).abs() < 1e-6


def test_narrow_features_are_widened():
    x = points()
    fit = spectral_readout(chebyshev_basis(x, 1).float(), torch.ones(200), (x - 0.25).float())
    assert fit.b.dtype == torch.float64


def test_gradients_are_not_followed():
    x = points().requires_grad_()
    fit = spectral_readout(chebyshev_basis(x, 1), torch.ones_like(x), x - 0.25)
    assert not fit.a.requires_grad


def test_a_common_zero_is_reported():
    x = torch.linspace(-1, 1, 101, dtype=torch.float64)
    H = chebyshev_basis(x, 1)
    x[50] = 1.0  # its features say 0
    with pytest.warns(UserWarning, match=r"N and D nearly vanish together.*choose_rho"):
        fit = spectral_readout(H[:, 1:], x, torch.ones_like(x) * x, rho=1e-12)
    assert fit.clearance < 1e-10


def test_few_rows_are_warned_about():
    x = points(6)
    with pytest.warns(UserWarning, match="6 rows do not determine 10 weights; use fewer features"):
        spectral_readout(chebyshev_basis(x, 4), x, 1 - x, rho=1e-6)


H, Y = torch.ones(4, 2), torch.ones(4)
BAD = {
    "no row": ((H[:0], Y[:0], Y[:0]), {}, DataError, "at least one row, got none"),
    "row counts": ((H, Y[:3], Y[:3]), {}, ShapeError, "same number of rows, got H_N 4, Y_n 3, Y"),
    "weight rows": ((H, Y, Y), {"weight": Y[:2]}, ShapeError, "H_N 4, Y_n 4, Y_d 4, weight 2"),
    "H_D rows": ((H, Y, Y), {"H_D": H[:1]}, ShapeError, "got H_N 4, H_D 1, Y_n 4"),
    "H flat": ((Y, Y, Y), {}, ShapeError, r"H_N must be \(rows, features\), got \(4,\)"),
    "Y shapes": ((H, H, Y[:, None].expand(4, 3)), {}, ShapeError, "Y_n and Y_d must have equal"),
    "Y 3-D": ((H, H[:, :, None], H), {}, ShapeError, r"Y_n must be \(rows,\) or"),
    "weight 2-D": ((H, Y, Y), {"weight": H}, ShapeError, r"weight must be \(rows,\)"),
    "H nan": (
        (H.where(torch.arange(4)[:, None] != 2, math.nan), Y, Y),
        {},
        DataError,
        "H_N must be finite, got otherwise in row 2$",
    ),
    "H_D inf": (
        (H, Y, Y),
        {"H_D": H.where(torch.arange(4)[:, None] < 1, math.inf)},
        DataError,
        "H_D must be finite, got otherwise in rows 1, 2, 3",
    ),
    "Y inf": ((H, Y * math.inf, Y), {}, DataError, "Y_n must be finite.*lift targets"),
    "negative": (
        (H, Y, Y),
        {"weight": torch.tensor([1.0, 1.0, 1.0, -1.0])},
        RangeError,
        "weight must be at least 0, got otherwise in row 3",
    ),
    "weights 0": ((H, Y, Y), {"weight": 0 * Y}, DataError, "a row with weight above 0"),
    "empty tuples": ((H, 0 * Y, 0 * Y), {}, DataError, "target other than ⟨0, 0⟩ is needed"),
    "all bottom": ((H, Y, 0 * Y), {}, DataError, "all Y_d of output 0 are 0"),
    "one output bottom": (
        (H, H, H * torch.tensor([1.0, 0.0])),
        {"shared_denominator": False},
        DataError,
        "all Y_d of output 1 are 0",
    ),
    "rho": ((H, Y, Y), {"rho": 0.0}, RangeError, "rho must be a finite number above 0"),
    "sweeps": ((H, Y, Y), {"sweeps": 0}, RangeError, "sweeps must be a whole number"),
    "dtype": ((H, Y, Y), {"dtype": torch.float16}, RangeError, "dtype must be one of"),
    "overflow": ((H.double() * 1e200, Y, Y), {}, DataError, "features must stay below"),
}


@pytest.mark.parametrize(("arguments", "options", "error", "match"), BAD.values(), ids=BAD)
def test_bad_input_is_refused_in_one_sentence(arguments, options, error, match):
    arguments = [x.double() for x in arguments]
    with pytest.raises(error, match=match):
        spectral_readout(*arguments, **options)


def test_options_have_their_defaults():
    assert checked_options({}) == Settings()
    with pytest.raises(TypeError, match="penalty"):
        spectral_readout(H, Y, Y, penalty=1.0)
