import pytest
import torch

from zeroproof.solve.choose import FORMS, choose_form, relative_error
from zeroproof.solve.poles import clean_up, poles

X = 2 * torch.rand(300, generator=torch.Generator().manual_seed(1), dtype=torch.float64) - 1


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("pole", [0.137, 0.137 + 0.2j], ids=["real", "complex"])
def test_spurious_pairs_go_and_the_answer_stays(form, pole):
    y = 2 + 1 / (X - pole)
    fitted = choose_form(X, y, (4, 4), forms=(form,)).form
    clean = clean_up(fitted, X, y)
    assert type(clean) is type(fitted)
    found = poles(clean, spurious=True)
    assert len(found) == 1
    assert complex(found[0]) == pytest.approx(pole, abs=1e-12)
    assert relative_error(clean, X, y) < 1e-11


def test_conjugate_poles_stay_conjugate():
    y = (1 + X) / ((X - 0.3) ** 2 + 0.04)
    fitted = choose_form(X, y, (4, 5), forms=("coefficients",)).form
    clean = clean_up(fitted, X, y)
    assert not clean.b.is_complex()
    assert sorted(poles(clean).imag.tolist()) == pytest.approx([-0.2, 0.2])


def test_a_form_without_spurious_poles_is_returned_as_it_is():
    y = 1 / (X - 0.137)
    fitted = choose_form(X, y, (0, 1)).form
    assert clean_up(fitted, X, y) is fitted
