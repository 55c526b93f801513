import math
from dataclasses import replace

import pytest
import torch

from zeroproof.errors import DataError, RangeError, ShapeError
from zeroproof.solve.choose import FORMS, choose_form, relative_error

X = 2 * torch.rand(400, generator=torch.Generator().manual_seed(1), dtype=torch.float64) - 1


def double(x):
    return torch.tan(4 * x) + (x - 0.137) ** -2


@pytest.fixture(scope="module")
def chosen():
    return choose_form(X, double(X))


def test_beside_and_within_the_poles_the_answer_is_right(chosen):
    for pole in (0.137, math.pi / 8):
        for distance in (1e-1, 1e-2, 1e-3, 1e-4):
            x = torch.tensor([pole - distance, pole + distance], dtype=torch.float64)
            torch.testing.assert_close(chosen.form(x), double(x), rtol=1e-9, atol=0)


def test_all_forms_and_weightings_compete(chosen):
    assert {c.name for c in chosen.candidates} == set(FORMS)
    assert {c.weight_power for c in chosen.candidates} == {0, 1}
    assert (chosen.name, chosen.weight_power) == ("factored", 1)
    best = min(c.error for c in chosen.candidates)
    assert best <= chosen.error <= 10 * best


def test_noise_does_not_hide_the_answer():
    generator = torch.Generator().manual_seed(0)
    noise = 1 + 0.01 * torch.randn(len(X), generator=generator, dtype=torch.float64)
    chosen = choose_form(X, noise / (X - 0.137), (0, 1))
    assert 0.005 < chosen.error < 0.02
    assert relative_error(chosen.form, X, 1 / (X - 0.137)) < 0.01


def test_complex_resonances_are_found():
    def resonances(x):
        return (1 + 0.5j) / (x - 0.3 - 0.05j) + (0.7 - 0.2j) / (x + 0.4 - 0.03j)

    x, fine = (torch.linspace(-1, 1, n, dtype=torch.float64) for n in (400, 4001))
    fit = choose_form(x, resonances(x))
    torch.testing.assert_close(fit.form(fine), resonances(fine), rtol=1e-13, atol=0)
    found = sorted(fit.form.poles().tolist(), key=lambda pole: pole.real)
    assert found == [pytest.approx(-0.4 + 0.03j, abs=1e-14), pytest.approx(0.3 + 0.05j, abs=1e-14)]


def test_too_few_rows_to_spare_any_are_all_fitted():
    x = torch.linspace(-1, 1, 5, dtype=torch.float64)
    chosen = choose_form(x, (1 + x) / (x - 3), (2, 2))
    assert relative_error(chosen.form, x, (1 + x) / (x - 3)) < 1e-9


def test_rows_of_bottom_are_left_out():
    y = 1 / (X - 0.137)
    marked = torch.where(torch.arange(400) % 7 == 0, math.inf, y)
    assert relative_error(choose_form(X, marked, (0, 1)).form, X, y) < 1e-12


def test_relative_error_is_infinite_where_d_is_zero():
    form = choose_form(X, 1 / (X - 0.5), (0, 1), forms=("coefficients",)).form
    form = replace(form, b=0 * form.b)
    assert relative_error(form, X, X) == math.inf


@pytest.mark.parametrize(
    ("x", "options", "error", "sentence"),
    [
        (X[:4], {}, ShapeError, r"x must be \(n,\)"),
        (0 * X, {}, DataError, "x must not be constant, got 0"),
        (X, {"degrees": (300, 200)}, RangeError, r"have 501 unknowns .* got 400"),
        (X, {"forms": ("spline",)}, RangeError, "forms must be one of .* got 'spline'"),
        (X, {"forms": ()}, RangeError, "forms must name at least one of .* got none"),
    ],
    ids=["lengths", "constant", "degrees", "form", "none"],
)
def test_bad_input_is_refused_in_one_sentence(x, options, error, sentence):
    with pytest.raises(error, match=sentence):
        choose_form(x, X, **options)
