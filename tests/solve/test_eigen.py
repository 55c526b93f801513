import numpy as np
import pytest
import torch

from zeroproof.solve.poles import barycentric_zeros, polynomial_zeros


def sorted_complex(values):
    return np.sort_complex(np.asarray(values, dtype=complex))


@pytest.mark.parametrize("degree", [1, 2, 5, 12])
@pytest.mark.parametrize("kind", [torch.float64, torch.complex128])
@pytest.mark.parametrize("basis", ["chebyshev", "monomial"])
def test_zeros_agree_with_numpy(basis, degree, kind):
    c = torch.randn(degree + 1, generator=torch.Generator().manual_seed(degree), dtype=kind)
    ours = sorted_complex(polynomial_zeros(c, basis))
    make = np.polynomial.Chebyshev if basis == "chebyshev" else np.polynomial.Polynomial
    np.testing.assert_allclose(ours, sorted_complex(make(c.numpy()).roots()), rtol=1e-9, atol=1e-9)


def test_zeros_are_in_the_units_of_x():
    # T_2 on [10, 20] vanishes at 15 ± 5/√2
    zeros = polynomial_zeros(torch.tensor([0.0, 0.0, 1.0]), "chebyshev", (10, 20))
    assert sorted(zeros.real.tolist()) == pytest.approx([15 - 5 / 2**0.5, 15 + 5 / 2**0.5])


@pytest.mark.parametrize("c", [[2.0], [2.0, 0.0, 0.0], [0.0, 0.0]])
def test_a_constant_has_no_zeros(c):
    assert polynomial_zeros(torch.tensor(c)).shape == (0,)


@pytest.mark.parametrize("kind", [torch.float64, torch.complex128])
def test_zeros_of_partial_fractions_satisfy_their_equation(kind):
    generator = torch.Generator().manual_seed(0)
    z = torch.linspace(-1, 1, 9, dtype=torch.float64)
    w = torch.randn(9, generator=generator, dtype=kind)
    zeros = barycentric_zeros(z, w)
    terms = w / (zeros[:, None] - z)
    assert zeros.shape == (8,)
    assert float((terms.sum(1).abs() / terms.abs().sum(1)).max()) < 1e-12


def test_zeros_at_infinity_are_left_out():
    z = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)
    # 1/(x+1) - 2/x + 1/(x-1) = 2/(x(x²-1)) has none
    assert len(barycentric_zeros(z, torch.tensor([1.0, -2.0, 1.0], dtype=torch.float64))) == 0
    assert len(barycentric_zeros(z[:1], z[:1])) == 0
