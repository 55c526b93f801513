from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import interpolate

from zeroproof.errors import ShapeError
from zeroproof.solve.aaa import fit_barycentric, from_aaa, to_aaa
from zeroproof.solve.forms import predict
from zeroproof.solve.poles import poles, residues, roots
from zeroproof.solve.table import checked_table

X = np.linspace(-1, 1, 400)
CASES = {
    "tan": np.tan(4 * X),
    "complex": (1 + 2j) / (X - 0.3 - 0.1j) + 1 / (X + 0.5),
    "one support point": np.full(400, 2.0),
}
GRID = torch.linspace(-1, 1, 201, dtype=torch.float64)


def ordered(values):
    return np.sort_complex(np.asarray(values, dtype=complex))


@pytest.mark.parametrize("name", CASES)
def test_there_and_back_is_the_same_function(name):
    theirs = interpolate.AAA(X, CASES[name])
    form = from_aaa(theirs)
    grid = np.concatenate([np.linspace(-1.2, 1.2, 501), theirs.support_points.real])
    np.testing.assert_allclose(
        predict(form, torch.from_numpy(grid)), theirs(grid), rtol=1e-8, atol=1e-12
    )
    back = to_aaa(form)
    assert isinstance(back, interpolate.AAA)
    for part in ("support_points", "support_values", "weights"):
        np.testing.assert_array_equal(getattr(back, part), getattr(theirs, part))
    np.testing.assert_array_equal(back(grid), theirs(grid))
    np.testing.assert_array_equal(back.poles(), theirs.poles())


def test_poles_residues_and_roots_agree_with_scipy():
    theirs = interpolate.AAA(X, np.tan(4 * X), rtol=1e-10)
    form = from_aaa(theirs)
    near = np.abs(theirs.poles()) < 2
    found, strengths = poles(form).numpy(), residues(form).numpy()
    mine = np.abs(found) < 2
    np.testing.assert_allclose(ordered(found[mine]), ordered(theirs.poles()[near]), atol=1e-10)
    np.testing.assert_allclose(
        ordered(strengths[mine]), ordered(theirs.residues()[near]), atol=1e-8
    )
    near_roots = [
        ordered(values[np.abs(values) < 1]) for values in (roots(form).numpy(), theirs.roots())
    ]
    np.testing.assert_allclose(*near_roots, atol=1e-12)


def test_vectors_of_unequal_length_are_refused():
    wrong = SimpleNamespace(support_points=X[:3], support_values=X[:3], weights=X[:2])
    with pytest.raises(ShapeError, match=r"must be \(m,\) each, got \(3,\), \(3,\), \(2,\)"):
        from_aaa(wrong)


def complex_tensor(*values):
    return torch.tensor(values, dtype=torch.complex128)


def test_support_holds_the_samples_beside_real_poles_and_no_other_pole():
    form = fit_barycentric(
        checked_table(GRID, torch.tan(4 * GRID)), complex_tensor(0.392, -0.393, 0.1 + 1j, 5), 8
    )
    assert len(form.points) == 8
    assert 0.39 in form.points.tolist()
    assert -0.39 in form.points.tolist()
    assert len(form.points.unique()) == 8


@pytest.mark.parametrize("power", [0.0, 1.0])
@pytest.mark.parametrize("shift", [0.0, 0.3j])
def test_a_rational_function_is_recovered(power, shift):
    pole = 0.137 + shift
    y = 2 + 1 / (GRID - pole)
    form = fit_barycentric(checked_table(GRID, y), complex_tensor(pole), 2, weight_power=power)
    between = GRID[:-1] + 0.003
    torch.testing.assert_close(predict(form, between), 2 + 1 / (between - pole))
    assert abs(complex(poles(form)[0]) - pole) < 1e-13


def test_repeated_rows_are_fine():
    x = torch.cat([GRID, GRID])
    form = fit_barycentric(checked_table(x, 1 / (x - 0.137)), complex_tensor(0.137), 3)
    assert abs(float(poles(form)[0].real) - 0.137) < 1e-13


def test_without_a_real_pole_the_support_spreads():
    form = fit_barycentric(checked_table(GRID, torch.exp(GRID)), complex_tensor(), 6)
    assert float((predict(form, GRID) - torch.exp(GRID)).abs().max()) < 1e-9
