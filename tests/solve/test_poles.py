import math
import warnings
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.interpolate import AAA

from zeroproof.errors import RangeError
from zeroproof.solve.forms import BarycentricForm, CoefficientForm
from zeroproof.solve.line import race_line
from zeroproof.solve.poles import barycentric_zeros, on_interval, polynomial_zeros
from zeroproof.solve.rational import fit_factored

A = 0.137
TAN = [-math.pi / 8, math.pi / 8]
PROBLEMS = {
    "simple": (lambda x: 1 / (x - A), [A], [1], 1e-11),
    "three": (
        lambda x: 0.5 / (x + 0.61) - 1.2 / (x - A) + 0.8 / (x - 0.77),
        [-0.61, A, 0.77],
        [0.5, -1.2, 0.8],
        1e-11,
    ),
    "tan": (lambda x: torch.tan(4 * x), TAN, [-0.25, -0.25], 1e-11),
    "double": (lambda x: (x - A) ** -2, [A], [0], 1e-6),
    "tan and double": (
        lambda x: torch.tan(4 * x) + (x - A) ** -2,
        [TAN[0], A, TAN[1]],
        [-0.25, 0, -0.25],
        1e-6,
    ),
}
X = 2 * torch.rand(300, generator=torch.Generator().manual_seed(1), dtype=torch.float64) - 1


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def table_of(f, seed=0, rows=500):
    generator = torch.Generator().manual_seed(seed)
    x = 2 * torch.rand(rows, generator=generator, dtype=torch.float64) - 1
    return x, f(x)


def fitted(kind, x, y, degrees=None):
    """Return a form of one kind, of the degrees that the race finds if none are given."""
    entry = race_line(x.numpy(), y[:, None].numpy(), plain=True, degrees=degrees).entry
    c, (a, b) = entry.candidate, (torch.from_numpy(part[0]) for part in entry.fit)
    form = CoefficientForm(a[:, 0], b, "chebyshev", (float(x.min()), float(x.max())))
    if kind == "factored":
        return fit_factored(x, y, form.denominator_zeros(), c.p)
    if kind == "barycentric":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of too few terms, which are those asked for
            options = {"rtol": 0, "max_terms": c.q + 1} if degrees else {"rtol": 1e-13}
            return BarycentricForm.from_aaa(AAA(x.numpy(), y.numpy(), **options))
    return form


FORMS = ("coefficients", "factored", "barycentric")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", PROBLEMS)
def test_poles_on_the_interval_are_exact_in_number_place_and_residue(name, form):
    f, truth, strengths, bound = PROBLEMS[name]
    one = fitted(form, *table_of(f), (0, 2) if name == "double" else None)
    found, weights = one.poles(), one.residues()
    inside = (found.imag == 0) & (found.real.abs() <= 1)
    assert int(inside.sum()) == len(truth)
    torch.testing.assert_close(on_interval(found, -1, 1), tensor(*truth), rtol=0, atol=bound)
    torch.testing.assert_close(weights[inside].real, tensor(*strengths), rtol=0, atol=100 * bound)


@pytest.mark.parametrize("form", FORMS)
def test_a_double_pole_is_listed_once_with_its_multiplicity_and_strength(form):
    rows = table_of(lambda x: 3 / (x - A) ** 2 + 2 / (x - A))
    table = fitted(form, *rows, (1, 2)).pole_table()
    on = (table.position.real.abs() < 1) & ~table.spurious
    assert table.multiplicity[on].tolist() == [2]
    assert complex(table.strength[on][0]) == pytest.approx(3, abs=1e-6)
    assert complex(table.residue[on][0]) == pytest.approx(2, abs=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_spurious_pairs_are_flagged_and_left_out_with_their_roots(form):
    x, y = table_of(lambda x: (x + 0.4) / (x - A))
    one = fitted(form, x, y, (4, 4))
    table = one.pole_table()
    assert int(table.spurious.sum()) == len(table.position) - 1
    assert int(table.spurious.sum()) >= 2
    assert complex(one.poles()[0]) == pytest.approx(A)
    assert len(one.poles(spurious=True)) == len(table.position)
    assert len(one.residues()) == 1
    assert complex(one.residues()[0]) == pytest.approx(0.4 + A)
    near = one.roots()
    near = near[near.abs() < 1]
    assert [complex(z) for z in near] == [pytest.approx(-0.4)]
    assert len(one.roots(spurious=True)) > len(one.roots())


def test_complex_resonances_are_found_off_the_line():
    x = torch.linspace(0, 1, 400, dtype=torch.float64)
    at = torch.tensor([0.3 + 0.01j, 0.7 + 0.02j], dtype=torch.complex128)
    strength = torch.tensor([1 + 1j, 0.5 - 0.2j], dtype=torch.complex128)
    y = (strength / (x[:, None] - at)).sum(1) + (0.3 - 0.1j)
    chosen = fitted("coefficients", x, y)
    assert float((chosen(x) / y - 1).abs().max()) < 1e-13
    torch.testing.assert_close(chosen.poles(), at, rtol=0, atol=1e-12)
    torch.testing.assert_close(chosen.residues(), strength, rtol=0, atol=1e-11)


@given(
    places=st.lists(st.floats(-0.95, 0.95), min_size=1, max_size=4),
    low=st.floats(-100, 100),
    width=st.floats(0.1, 100),
)
def test_poles_of_coefficients_are_in_the_units_of_x(places, low, width):
    places = sorted(places)
    assume(all(b - a > 0.05 for a, b in pairwise(places)))
    values = torch.ones(len(places) + 1, dtype=torch.float64)
    nodes = torch.cos(torch.arange(len(values), dtype=torch.float64) * math.pi / len(places))
    for place in places:
        values = values * (nodes - place)
    basis = torch.cos(torch.acos(nodes.clamp(-1, 1))[:, None] * torch.arange(len(values)))
    b = torch.linalg.solve(basis, values)
    form = CoefficientForm(tensor(1), b, "chebyshev", (low, low + width))
    expected = low + width * (tensor(*places) + 1) / 2
    torch.testing.assert_close(form.poles().real, expected, rtol=1e-9, atol=1e-9 * width)


@pytest.mark.parametrize("gap", [1e-3, 1e-5])
def test_poles_farther_apart_than_the_resolution_stay_two(gap):
    form = CoefficientForm(tensor(1), tensor(-gap * gap, 0, 1), "monomial", (-1.0, 1.0))
    assert form.poles().real.tolist() == pytest.approx([-gap, gap])
    assert form.poles(resolution=10 * gap).tolist() == pytest.approx([0])


def test_a_constant_denominator_has_no_poles():
    form = CoefficientForm(tensor(1, 2), tensor(1), "chebyshev", (-1.0, 1.0))
    assert form.poles().shape == form.residues().shape == (0,)
    assert form.roots().real.tolist() == pytest.approx([-0.5])


@pytest.mark.parametrize("option", ["resolution", "tolerance"])
def test_options_out_of_range_are_refused(option):
    form = CoefficientForm(tensor(1), tensor(0, 1), "monomial", (-1.0, 1.0))
    with pytest.raises(RangeError, match=f"{option} must be a finite number above 0, got 0"):
        form.pole_table(**{option: 0.0})


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
