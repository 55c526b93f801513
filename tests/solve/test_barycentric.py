import pytest
import torch

from zeroproof.errors import DataError, RangeError
from zeroproof.solve.barycentric import fit_barycentric
from zeroproof.solve.forms import predict
from zeroproof.solve.poles import poles

X = torch.linspace(-1, 1, 201, dtype=torch.float64)


def complex_tensor(*values):
    return torch.tensor(values, dtype=torch.complex128)


def test_support_holds_the_samples_beside_real_poles_and_no_other_pole():
    form = fit_barycentric(X, torch.tan(4 * X), complex_tensor(0.392, -0.393, 0.1 + 1j, 5), 8)
    assert len(form.points) == 8
    assert 0.39 in form.points.tolist()
    assert -0.39 in form.points.tolist()
    assert len(form.points.unique()) == 8


@pytest.mark.parametrize("power", [0.0, 1.0])
@pytest.mark.parametrize("shift", [0.0, 0.3j])
def test_a_rational_function_is_recovered(power, shift):
    pole = 0.137 + shift
    y = 2 + 1 / (X - pole)
    form = fit_barycentric(X, y, complex_tensor(pole), 2, weight_power=power)
    between = X[:-1] + 0.003
    torch.testing.assert_close(predict(form, between), 2 + 1 / (between - pole))
    assert abs(complex(poles(form)[0]) - pole) < 1e-13


def test_repeated_rows_are_fine():
    x = torch.cat([X, X])
    form = fit_barycentric(x, 1 / (x - 0.137), complex_tensor(0.137), 3)
    assert abs(float(poles(form)[0].real) - 0.137) < 1e-13


def test_without_a_real_pole_the_support_spreads():
    form = fit_barycentric(X, torch.exp(X), complex_tensor(), 6)
    assert float((predict(form, X) - torch.exp(X)).abs().max()) < 1e-9


@pytest.mark.parametrize(
    ("size", "error", "sentence"),
    [
        (0, RangeError, "size must be a whole number of at least 1, got 0"),
        (102, RangeError, "size must not exceed half the distinct finite rows, 201, got 102"),
    ],
)
def test_a_size_the_rows_do_not_allow_is_refused(size, error, sentence):
    with pytest.raises(error, match=sentence):
        fit_barycentric(X, X, complex_tensor(), size)


def test_only_bottom_is_refused():
    with pytest.raises(DataError, match="at least one target must be finite"):
        fit_barycentric(X, X + torch.inf, complex_tensor(), 2)
