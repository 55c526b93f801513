from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import interpolate

from zeroproof.errors import ShapeError
from zeroproof.solve.forms import BarycentricForm

X = np.linspace(-1, 1, 400)
CASES = {
    "tan": np.tan(4 * X),
    "complex": (1 + 2j) / (X - 0.3 - 0.1j) + 1 / (X + 0.5),
    "one support point": np.full(400, 2.0),
}


def ordered(values):
    return np.sort_complex(np.asarray(values, dtype=complex))


@pytest.mark.parametrize("name", CASES)
def test_there_and_back_is_the_same_function(name):
    theirs = interpolate.AAA(X, CASES[name])
    form = BarycentricForm.from_aaa(theirs)
    grid = np.concatenate([np.linspace(-1.2, 1.2, 501), theirs.support_points.real])
    np.testing.assert_allclose(form(torch.from_numpy(grid)), theirs(grid), rtol=1e-8, atol=1e-12)
    back = form.to_aaa()
    assert isinstance(back, interpolate.AAA)
    for part in ("support_points", "support_values", "weights"):
        np.testing.assert_array_equal(getattr(back, part), getattr(theirs, part))
    np.testing.assert_array_equal(back(grid), theirs(grid))
    np.testing.assert_array_equal(back.poles(), theirs.poles())


def test_poles_residues_and_roots_agree_with_scipy():
    theirs = interpolate.AAA(X, np.tan(4 * X), rtol=1e-10)
    form = BarycentricForm.from_aaa(theirs)
    near = np.abs(theirs.poles()) < 2
    found, strengths = form.poles().numpy(), form.residues().numpy()
    mine = np.abs(found) < 2
    np.testing.assert_allclose(ordered(found[mine]), ordered(theirs.poles()[near]), atol=1e-10)
    np.testing.assert_allclose(
        ordered(strengths[mine]), ordered(theirs.residues()[near]), atol=1e-8
    )
    near_roots = [
        ordered(values[np.abs(values) < 1]) for values in (form.roots().numpy(), theirs.roots())
    ]
    np.testing.assert_allclose(*near_roots, atol=1e-12)


def test_vectors_of_unequal_length_are_refused():
    wrong = SimpleNamespace(support_points=X[:3], support_values=X[:3], weights=X[:2])
    with pytest.raises(ShapeError, match=r"must be \(m,\) each, got \(3,\), \(3,\), \(2,\)"):
        BarycentricForm.from_aaa(wrong)
