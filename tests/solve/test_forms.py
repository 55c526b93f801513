import math

import pytest
import torch

from zeroproof.solve.forms import BarycentricForm, CoefficientForm, FactoredForm, FractionForm

EMPTY = torch.zeros(0, dtype=torch.float64)


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


# (1 + x) / ((x - 2)² - 1), three times; its denominator is x² - 4x + 3
FORMS = {
    "monomial": CoefficientForm(tensor(1, 1), tensor(3, -4, 1), "monomial", (-1.0, 1.0)),
    "chebyshev": CoefficientForm(tensor(1, 1), tensor(3.5, -4, 0.5), "chebyshev", (-1.0, 1.0)),
    "pair": FactoredForm(tensor(1, 1), tensor(2), tensor(1), EMPTY, tensor(0), (-1.0, 1.0)),
    "singles": FactoredForm(tensor(1, 1), EMPTY, EMPTY, tensor(1, 3), tensor(0, 0), (-1.0, 1.0)),
    "fractions": FractionForm(tensor(1, 3) + 0j, tensor(-1, 2) + 0j, tensor(0), (-1.0, 1.0)),
    "barycentric": BarycentricForm(
        tensor(-1, 0, 2), tensor(0, 1 / 3, -3), tensor(8 / 3, -3 / 2, -1 / 6)
    ),
}


def truth(x):
    return (1 + x) / ((x - 2) ** 2 - 1)


@pytest.mark.parametrize("name", FORMS)
def test_every_form_writes_the_same_function(name):
    form = FORMS[name]
    x = torch.linspace(-2, 4, 25, dtype=torch.float64)
    x = x[(x - 1).abs().minimum((x - 3).abs()) > 1e-9]
    ratio = form(x) / truth(x)
    ratio = ratio[torch.isfinite(ratio)]
    torch.testing.assert_close(ratio, torch.full_like(ratio, float(ratio[0])), rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", [name for name in FORMS if name != "barycentric"])
def test_bottom_is_nan_and_only_there(name):
    answer = FORMS[name](tensor(1, 3, 0))
    assert answer.isnan().tolist() == [True, True, False]


@pytest.mark.parametrize("name", FORMS)
def test_every_form_tells_poles_residues_roots_and_slopes(name):
    form = FORMS[name]
    size = float(form(tensor(0)) * 3)  # of f beside the function that all forms write
    assert form.poles().real.tolist() == pytest.approx([1, 3])
    assert (form.residues().real / size).tolist() == pytest.approx([-1, 2])
    assert form.roots().real.tolist() == pytest.approx([-1])
    assert form.is_real
    assert form.degrees[1] == 2
    x = tensor(-0.7, 0.1, 0.6, 2.2)
    answer, G = form.slopes(x)
    torch.testing.assert_close(answer, form(x))
    assert len(G) == 4
    # c f is such a function too: f lies in the space that the slopes span
    rest = G @ torch.linalg.lstsq(G, answer[:, None], driver="gelsd").solution - answer[:, None]
    assert float(rest.abs().max()) < 1e-9


def test_support_points_are_taken_exactly():
    form = FORMS["barycentric"]
    assert torch.equal(form(form.points), form.values)
    assert all(bool(torch.isfinite(part).all()) for part in form.tuples(form.points))


def test_what_rounding_cuts_off_a_root_is_kept():
    # 1 + 1e-20 is no float; at x = 1 the distance to that root is -1e-20, not 0
    form = FactoredForm(tensor(1), EMPTY, EMPTY, tensor(1), tensor(1e-20), (-1.0, 1.0))
    assert float(form(tensor(1))) == pytest.approx(-2e20)


def test_complex_points_and_gradients_pass():
    x = torch.tensor([0.2 + 0.5j], dtype=torch.complex128, requires_grad=True)
    for form in FORMS.values():
        slope = torch.autograd.grad(form(x).real.sum(), x)[0]
        assert math.isfinite(float(slope.abs()))
