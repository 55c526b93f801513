import numpy as np
import pytest
import torch

from zeroproof.errors import RangeError
from zeroproof.estimators.closed_form import ClosedForm
from zeroproof.estimators.fitted import curves_of, poles_of, roots_of
from zeroproof.estimators.model import FormModel, ReadoutModel
from zeroproof.layers.features import Column, graded_features
from zeroproof.solve.forms import CoefficientForm

X0, X1 = (Column(i, "identity", 0.0, 1.0) for i in range(2))
UNIT = (-1.0, 1.0)


def vector(*values):
    return torch.tensor(values, dtype=torch.float64)


def fit(model, relative=1e-15):
    return ClosedForm(
        model=model, name="", recipe=None, error=0.0, shell=0.0, near=0.0, relative=relative,
        shared=True, power=0, polished=False, alternates=(), tried=(),
    )  # fmt: skip


def form(a, b, scale=3.0):
    return FormModel((CoefficientForm(vector(*a), vector(*b), "monomial", UNIT),), scale)


def readout(a, b, scale=3.0):
    H_N, H_D = (graded_features([X0], len(part) - 1) for part in (a, b))
    return ReadoutModel(H_N, H_D, vector(*a)[:, None], vector(*b)[:, None], "y", scale)


@pytest.mark.parametrize("kind", [form, readout])
def test_residues_carry_the_scale_of_y(kind):
    table = poles_of(fit(kind([2.0], [-0.5, 1.0])), UNIT, 0)  # 3 · 2 / (x - 1/2)
    assert table.position.tolist() == pytest.approx([0.5], abs=1e-12)
    assert table.residue.tolist() == pytest.approx([6], rel=1e-9)
    assert table.strength.tolist() == pytest.approx([6], rel=1e-9)


@pytest.mark.parametrize("kind", [form, readout])
def test_roots_are_those_of_the_numerator(kind):
    found = roots_of(fit(kind([-0.3, 1.0], [2.0, 1.0])), UNIT, 0)
    assert found.dtype == torch.complex128
    assert found.tolist() == pytest.approx([0.3], abs=1e-12)


@pytest.mark.parametrize("kind", [form, readout])
def test_a_weak_pole_is_spurious_when_the_fit_is_rough(kind):
    model = kind([-0.5 + 1e-5, 1.0], [-0.5, 1.0])  # 1 + 1e-5 / (x - 1/2)
    assert poles_of(fit(model), UNIT, 0).spurious.tolist() == [False]
    assert poles_of(fit(model, relative=1e-2), UNIT, 0).spurious.tolist() == [True]


def test_each_output_has_its_own():
    model = FormModel((*form([1.0], [-0.5, 1.0]).forms, *form([1.0], [0.25, 1.0]).forms), 1.0)
    assert poles_of(fit(model), UNIT, 0).position.tolist() == pytest.approx([0.5])
    assert poles_of(fit(model), UNIT, 1).position.tolist() == pytest.approx([-0.25])
    with pytest.raises(RangeError, match="output must be one of 0, 1, got 2"):
        poles_of(fit(model), UNIT, 2)


def test_curves_are_the_lines_where_the_denominator_vanishes():
    H = graded_features([X0, X1], 1)
    place = {tuple(p): i for i, p in enumerate(H.places.tolist())}
    b = torch.zeros(3, 1, dtype=torch.float64)
    b[place[0, 0]], b[place[1, 0]], b[place[0, 1]] = -0.25, 1.0, 0.5  # x + y/2 = 1/4
    model = ReadoutModel(H, H, torch.ones(3, 1).double(), b, "y", 1.0)
    box = torch.tensor([[-1.0, -1.0], [1.0, 1.0]], dtype=torch.float64)
    (line,) = curves_of(fit(model), box, 0, 51)
    on = line.numpy() @ np.array([1.0, 0.5])
    assert on == pytest.approx(np.full(len(on), 0.25), abs=1e-12)
    assert line[:, 1].min() == pytest.approx(-1)
    assert line[:, 1].max() == pytest.approx(1)


def test_forms_have_no_curve_and_complex_waves_no_poles():
    with pytest.raises(RangeError, match="a rational form has one column, got two"):
        curves_of(fit(form([1.0], [0.0, 1.0])), torch.zeros(2, 2), 0, 5)
    model = readout([1.0], [0.0, 1.0])
    model = model._replace(a=model.a + 0j, b=model.b + 0j)
    with pytest.raises(RangeError, match="poles of complex targets need rational features"):
        poles_of(fit(model), UNIT, 0)
