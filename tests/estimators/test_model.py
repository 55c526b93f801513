import math

import pytest
import torch

from zeroproof.estimators import model as module
from zeroproof.estimators.model import FormModel, ReadoutModel
from zeroproof.layers.features import Column, graded_features
from zeroproof.solve.forms import CoefficientForm

F64 = {"dtype": torch.float64}
COLUMNS = [Column(0, "identity", 0.5, 2.0), Column(1, "identity", 0.0, 1.0)]
X = torch.rand(50, 2, generator=torch.Generator().manual_seed(0), **F64)


def normal(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), **F64)


def readout(target="y", outputs=2, denominators=1, centres=None):
    columns = COLUMNS if centres is None else [*COLUMNS, Column(2, "identity", 0.0, 1.0)]
    H_N, H_D = graded_features(columns, 2), graded_features(columns, 1)
    a, b = normal(len(H_N.places), outputs), normal(len(H_D.places), denominators)
    return ReadoutModel(H_N, H_D, a, b, target, 7.0, centres)


def forms():
    halves = [
        CoefficientForm(torch.tensor(a, **F64), torch.tensor(b, **F64), "chebyshev", (0.0, 1.0))
        for a, b in (([1.0, 2.0], [3.0, 1.0]), ([1.0], [0.5, 0.5, 0.5]))
    ]
    return FormModel(tuple(halves), 7.0)


@pytest.mark.parametrize("denominators", [1, 2])
def test_a_readout_is_features_times_weights_in_the_units_of_y(denominators):
    model = readout(denominators=denominators)
    u, v = (X[:, 0] - 0.5) / 2, X[:, 1]
    ones = torch.ones(50, **F64)
    products = {(0, 0): ones, (0, 1): v, (1, 0): u, (0, 2): 2 * v**2 - 1, (1, 1): u * v}
    products[2, 0] = 2 * u**2 - 1
    H_N, H_D = (
        torch.stack([products[tuple(place)] for place in each.places.tolist()], 1)
        for each in (model.H_N, model.H_D)
    )
    N, D = model.tuples(X)
    torch.testing.assert_close(N, 7 * H_N @ model.a)
    torch.testing.assert_close(D, H_D @ model.b)
    assert (len(model.a), len(model.b)) == (6, 3)
    assert (model.outputs, model.denominators) == (2, denominators)
    assert model.free == 12 + 2 * denominators  # one of each b is a matter of scale


@pytest.mark.parametrize(("target", "inverse"), [("square", torch.sqrt), ("log", torch.exp)])
def test_a_transformed_target_is_transformed_back(target, inverse):
    model = readout(target)
    N, D = model.tuples(X)
    quotient = readout()._replace(scale=1.0)
    inner = quotient.tuples(X)
    exact = 7 * inverse(inner.N / inner.D)
    finite = torch.isfinite(exact)
    assert finite.sum() > 20
    torch.testing.assert_close((N / D)[finite], exact[finite])


def test_forms_are_one_denominator_for_each_output():
    N, D = forms().tuples(X[:, :1])
    t = 2 * X[:, 0] - 1
    torch.testing.assert_close(N, 7 * torch.stack([1 + 2 * t, torch.ones_like(t)], 1))
    torch.testing.assert_close(D, torch.stack([3 + t, 0.5 * (t + 2 * t**2)], 1))


def test_distances_to_centres_are_further_columns():
    centres = torch.tensor([[0.2, 0.9]], **F64)
    model = readout(centres=centres)
    far = torch.linalg.vector_norm(X - centres, dim=1)
    torch.testing.assert_close(model.inputs(X), torch.cat([X, far[:, None]], 1))
    assert readout().inputs(X) is X
    plain = model._replace(centres=None)
    assert all(map(torch.equal, model.tuples(X), plain.tuples(model.inputs(X))))


@pytest.mark.parametrize("model", [readout(), readout("log"), forms()], ids=["y", "log", "forms"])
def test_rows_are_answered_in_slices(model, monkeypatch):
    whole = model.tuples(X)
    monkeypatch.setattr(module, "_ENTRIES", 60)
    for got, exact in zip(model.tuples(X), whole, strict=True):
        torch.testing.assert_close(got, exact, rtol=1e-14, atol=1e-14)
    assert [len(part) for part in model.tuples(X[:0])] == [0, 0]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_rows_that_are_not_finite_give_tuples_that_are_not(bad):
    rows = X.clone()
    rows[3, 0] = bad
    N, D = readout().tuples(rows)
    assert not (torch.isfinite(N[3]).any() and torch.isfinite(D[3]).any())
    assert torch.isfinite(N[4:]).all()


def test_tuples_can_be_differentiated_by_the_inputs():
    model = readout()
    rows = X[:5].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: tuple(model.head(x)), rows)
    assert not model.tuples(rows).N.requires_grad
