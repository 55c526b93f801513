import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zeroproof.errors import RangeError
from zeroproof.layers import chebyshev_basis, monomial_basis
from zeroproof.layers.basis import (
    BASES,
    checked_domain,
    derivative,
    identity_coefficients,
    in_basis,
    polynomial,
    polynomial_reach,
)

DOMAINS = {"unit": (-1.0, 1.0), "shifted": (2.0, 7.0), "small": (0.0, 1e-3)}


def _vandermonde(x, degree, basis, domain):
    if basis == "monomial":
        return monomial_basis(x, degree)
    return chebyshev_basis(x, degree, domain=domain)


@pytest.mark.parametrize("degree", [0, 1, 2, 7])
def test_monomials_are_exact_powers(degree):
    x = torch.tensor([[0.0, 1.5, -2.0]], dtype=torch.float64)
    basis = monomial_basis(x, degree)
    assert basis.shape == (1, 3, degree + 1)
    for i, value in enumerate(x[0].tolist()):
        assert basis[0, i].tolist() == [float(Fraction(value) ** k) for k in range(degree + 1)]


@pytest.mark.parametrize("domain", DOMAINS.values(), ids=DOMAINS.keys())
@pytest.mark.parametrize("degree", [0, 1, 2, 40])
def test_chebyshev_polynomials_are_cosines(degree, domain):
    x = torch.linspace(*domain, 101, dtype=torch.float64)
    t = np.clip((2 * x.numpy() - sum(domain)) / (domain[1] - domain[0]), -1, 1)
    expected = np.cos(np.arange(degree + 1) * np.arccos(t)[:, None])
    basis = chebyshev_basis(x, degree, domain=domain)
    assert basis.shape == (101, degree + 1)
    np.testing.assert_allclose(basis.numpy(), expected, atol=1e-11)


def test_half_precision_and_integers_are_computed_in_float32():
    x = torch.tensor([3.0], dtype=torch.float16)
    assert monomial_basis(x, 20).dtype == torch.float32
    assert monomial_basis(x, 20)[0, -1].item() == float(np.float32(3**20))
    assert chebyshev_basis(x.int(), 2).tolist() == [[1.0, 3.0, 17.0]]


def test_complex_points():
    x = torch.tensor([1j], dtype=torch.complex128)
    assert monomial_basis(x, 3)[0].tolist() == [1, 1j, -1, -1j]
    assert chebyshev_basis(x, 3)[0].tolist() == [1, 1j, -3, -7j]


coefficients = st.lists(st.floats(-10, 10), min_size=1, max_size=9)


@given(c=coefficients, x=st.floats(-1, 1), basis=st.sampled_from(BASES))
def test_the_rules_of_horner_and_clenshaw_agree_with_the_basis(c, x, basis):
    column = torch.tensor(c, dtype=torch.float64)
    point = torch.tensor(x, dtype=torch.float64)
    expected = (_vandermonde(point, len(c) - 1, basis, (-1.0, 1.0)) * column).sum()
    got = polynomial(point, column, basis)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize("basis", BASES)
def test_columns_of_coefficients_serve_outputs_or_channels(basis):
    c = torch.randn(4, 3, dtype=torch.float64)
    one, each = torch.randn(5, 1, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    for k in range(3):
        alone = polynomial(one, c[:, k], basis)
        torch.testing.assert_close(polynomial(one, c, basis)[:, k : k + 1], alone)
        torch.testing.assert_close(
            polynomial(each, c, basis)[:, k], polynomial(each[:, k], c[:, k], basis)
        )


exponents = st.floats(-30, 38)


@given(
    c=st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=7),
    exponent=exponents,
    sign=st.sampled_from([1, -1]),
    basis=st.sampled_from(BASES),
    domain=st.sampled_from(list(DOMAINS.values())),
)
def test_within_reach_nothing_overflows(c, exponent, sign, basis, domain):
    x = torch.tensor([sign * 10.0**exponent])
    column = torch.tensor(c)
    if polynomial_reach(x, column, basis, domain).item():
        assert polynomial(x, column, basis, domain).isfinite().all()


@pytest.mark.parametrize("basis", BASES)
def test_reach_is_wide_and_excludes_what_is_not_finite(basis):
    c = torch.tensor([1.0, 0.0, 0.0, 5.0])
    x = torch.tensor([1e11, -1e11, 1e14, math.inf, -math.inf, math.nan])
    reach = polynomial_reach(x, c, basis)
    assert reach.tolist() == [True, True, False, False, False, False]
    constant = polynomial_reach(x[:3], c[:1], basis)
    assert constant.all()
    assert not polynomial_reach(x[3:], c[:1], basis).any()


@pytest.mark.parametrize("domain", DOMAINS.values(), ids=DOMAINS.keys())
@pytest.mark.parametrize("basis", BASES)
def test_identity_coefficients(basis, domain):
    x = torch.linspace(*domain, 11, dtype=torch.float64)
    c = torch.tensor(identity_coefficients(3, basis, domain), dtype=torch.float64)
    torch.testing.assert_close(polynomial(x, c, basis, domain), x, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("evaluate", [monomial_basis, chebyshev_basis])
@pytest.mark.parametrize("degree", [-1, 1.0, True, "2"])
def test_degrees_are_checked(evaluate, degree):
    with pytest.raises(RangeError, match="degree must be a whole number of at least 0, got"):
        evaluate(torch.ones(1), degree)


@pytest.mark.parametrize(
    "domain",
    [(1, 1), (2, 1), (0,), (0, 1, 2), 3, (0, math.inf), (math.nan, 1), ("a", "b")],
    ids=str,
)
def test_domains_are_checked(domain):
    with pytest.raises(RangeError, match=r"domain must be \(low, high\)"):
        checked_domain(domain)
    with pytest.raises(RangeError, match=r"domain must be \(low, high\)"):
        chebyshev_basis(torch.ones(1), 2, domain=domain)


@pytest.mark.parametrize("basis", BASES)
def test_gradcheck(basis):
    x = torch.randn(3, 1, dtype=torch.float64, requires_grad=True)
    c = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, c: polynomial(x, c, basis), (x, c))
    assert torch.autograd.gradcheck(lambda x: _vandermonde(x, 3, basis, (-2, 2)), (x,))


@pytest.mark.parametrize("domain", DOMAINS.values(), ids=DOMAINS.keys())
@pytest.mark.parametrize("degree", [0, 1, 2, 5])
@pytest.mark.parametrize("basis", BASES)
def test_coefficients_of_the_derivative(basis, degree, domain):
    c = torch.randn(degree + 1, dtype=torch.float64)
    x = torch.linspace(*domain, 9, dtype=torch.float64, requires_grad=True)
    slope = polynomial(x.detach(), derivative(c, basis, domain), basis, domain)
    (expected,) = torch.autograd.grad(polynomial(x, c, basis, domain).sum() + 0 * x.sum(), x)
    torch.testing.assert_close(slope, expected)


@pytest.mark.parametrize("basis", BASES)
def test_the_derivative_of_a_coefficient_that_is_0(basis):
    assert derivative(torch.tensor([0.0]), basis).tolist() == [0.0]
    assert derivative(torch.tensor([0.0, 2.0, 0.0]), basis).tolist() == [2.0, 0.0]


@pytest.mark.parametrize("domain", DOMAINS.values(), ids=DOMAINS.keys())
@pytest.mark.parametrize("basis", BASES)
def test_a_change_of_basis_keeps_the_polynomial(basis, domain):
    c = [1.0, -2.0, 0.5, 3.0]
    x = torch.linspace(*domain, 9, dtype=torch.float64)
    changed = torch.tensor(in_basis(c, basis, domain), dtype=torch.float64)
    plain = polynomial(x, torch.tensor(c, dtype=torch.float64), "monomial")
    torch.testing.assert_close(polynomial(x, changed, basis, domain), plain)
