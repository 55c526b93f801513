import math

import pytest
import torch

from zeroproof.solve.forms import BarycentricForm, CoefficientForm, FactoredForm, evaluate, predict

EMPTY = torch.zeros(0, dtype=torch.float64)


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


# (1 + x) / ((x - 2)² - 1), three times; its denominator is x² - 4x + 3
FORMS = {
    "monomial": CoefficientForm(tensor(1, 1), tensor(3, -4, 1), "monomial", (-1.0, 1.0)),
    "chebyshev": CoefficientForm(tensor(1, 1), tensor(3.5, -4, 0.5), "chebyshev", (-1.0, 1.0)),
    "pair": FactoredForm(tensor(1, 1), tensor(2), tensor(1), EMPTY, tensor(0), (-1.0, 1.0)),
    "singles": FactoredForm(tensor(1, 1), EMPTY, EMPTY, tensor(1, 3), tensor(0, 0), (-1.0, 1.0)),
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
    ratio = predict(form, x) / truth(x)
    ratio = ratio[torch.isfinite(ratio)]
    torch.testing.assert_close(ratio, torch.full_like(ratio, float(ratio[0])), rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", [name for name in FORMS if name != "barycentric"])
def test_bottom_is_nan_and_only_there(name):
    answer = predict(FORMS[name], tensor(1, 3, 0))
    assert answer.isnan().tolist() == [True, True, False]


def test_support_points_are_taken_exactly():
    form = FORMS["barycentric"]
    assert torch.equal(predict(form, form.points), form.values)
    assert all(bool(torch.isfinite(part).all()) for part in evaluate(form, form.points))


def test_what_rounding_cuts_off_a_root_is_kept():
    # 1 + 1e-20 is no float; at x = 1 the distance to that root is -1e-20, not 0
    form = FactoredForm(tensor(1), EMPTY, EMPTY, tensor(1), tensor(1e-20), (-1.0, 1.0))
    assert float(predict(form, tensor(1))) == pytest.approx(-2e20)


def test_complex_points_and_gradients_pass():
    x = torch.tensor([0.2 + 0.5j], dtype=torch.complex128, requires_grad=True)
    for form in FORMS.values():
        slope = torch.autograd.grad(predict(form, x).real.sum(), x)[0]
        assert math.isfinite(float(slope.abs()))
