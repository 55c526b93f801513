import pytest
import torch

from zeroproof.solve.aaa import fit_barycentric
from zeroproof.solve.forms import predict
from zeroproof.solve.linearized import checked_table
from zeroproof.solve.poles import poles

X = torch.linspace(-1, 1, 201, dtype=torch.float64)


def complex_tensor(*values):
    return torch.tensor(values, dtype=torch.complex128)


def test_support_holds_the_samples_beside_real_poles_and_no_other_pole():
    form = fit_barycentric(
        checked_table(X, torch.tan(4 * X)), complex_tensor(0.392, -0.393, 0.1 + 1j, 5), 8
    )
    assert len(form.points) == 8
    assert 0.39 in form.points.tolist()
    assert -0.39 in form.points.tolist()
    assert len(form.points.unique()) == 8


@pytest.mark.parametrize("power", [0.0, 1.0])
@pytest.mark.parametrize("shift", [0.0, 0.3j])
def test_a_rational_function_is_recovered(power, shift):
    pole = 0.137 + shift
    y = 2 + 1 / (X - pole)
    form = fit_barycentric(checked_table(X, y), complex_tensor(pole), 2, weight_power=power)
    between = X[:-1] + 0.003
    torch.testing.assert_close(predict(form, between), 2 + 1 / (between - pole))
    assert abs(complex(poles(form)[0]) - pole) < 1e-13


def test_repeated_rows_are_fine():
    x = torch.cat([X, X])
    form = fit_barycentric(checked_table(x, 1 / (x - 0.137)), complex_tensor(0.137), 3)
    assert abs(float(poles(form)[0].real) - 0.137) < 1e-13


def test_without_a_real_pole_the_support_spreads():
    form = fit_barycentric(checked_table(X, torch.exp(X)), complex_tensor(), 6)
    assert float((predict(form, X) - torch.exp(X)).abs().max()) < 1e-9
