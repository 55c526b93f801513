"""Layers and bases in the matrix of transforms."""

import torch
from torch import nn

from tests.transforms.functions import REAL, WIDTH, Input, computed, layer
from zeroproof import layers
from zeroproof.layers import (
    ProjectiveHead,
    ProjectiveMLP,
    ProjectiveRational,
    Rational,
    basis,
    features,
)
from zeroproof.layers.head import gated
from zeroproof.scm import SCM
from zeroproof.solve import forms

__all__ = ["LAYERS"]

X = Input(signed=True, high=1.5, bottom=float("inf"))
COLUMN = Input(signed=True, high=1.5, bottom=float("inf"), width=1)
PLACES = Input(0.2, 0.9)
RATIONAL, PROJECTIVE, BASES = "Rational layers", "Projective layers", "Bases and features"
P, Q = [0.3, -1.0, 0.5, 0.2], [1.0, -0.4, 0.9]

LINE = tuple(features.Column(place, "identity", 0.0, 1.0) for place in range(2))
CURVED = features.graded_features(LINE, 2)
WAVES = features.random_features(LINE[:1], 3, spread=2.0, linear=LINE[1:])
COEFFICIENTS = torch.tensor(P), torch.tensor(Q)
LEARNED = features.ModuleFeatures(LINE, nn.Tanh())


def _rational(name, family=RATIONAL, covers=(), init=(P, Q), entry=X, reasons=None, **options):
    def make(dtype):
        return Rational((len(init[0]) - 1, len(init[1]) - 1), init=init, dtype=dtype, **options)

    return layer(name, family, (Rational, *covers), make, entry, reasons=reasons)


def _projective(name, **options):
    def make(dtype):
        made = ProjectiveRational((3, 2), out_features=2, dtype=dtype, **options)
        with torch.no_grad():
            made.denominator.add_(0.1)
        return made

    covers = (ProjectiveRational, basis.polynomial, basis.derivative, basis.polynomial_reach)
    return layer(name, PROJECTIVE, covers, make, COLUMN, reasons=WIDTH)


def _head(name, **options):
    return layer(
        name,
        PROJECTIVE,
        (ProjectiveHead, gated),
        lambda dtype: ProjectiveHead(2, 2, dtype=dtype, **options),
        Input(signed=True),
        scripts=True,
        reasons=WIDTH,
    )


class _OfMeadowValues(nn.Module):
    """A rational function of 1 / x, of which it takes the mask."""

    def __init__(self, dtype):
        super().__init__()
        self.inner = Rational((3, 2), init=(P, Q), dtype=dtype)

    def forward(self, x):
        return self.inner(1 / SCM(x))


def _features(name, kind, reasons=None):
    return computed(
        name,
        BASES,
        (features.feature_matrix,),
        lambda X: features.feature_matrix(kind, X),
        PLACES,
        reasons=reasons,
    )


LAYERS = (
    _rational("Rational"),
    _rational(
        "Rational, tensor, at a pole",
        init=([1, 0], [0, 1]),
        entry=Input(bottom=0.0),
        returns="tensor",
    ),
    _rational("Rational, chebyshev", basis="chebyshev", domain=(-2.0, 2.0)),
    _rational("Rational, channels", channels=2, reasons=WIDTH),
    layer(
        "Rational of an SCM value",
        RATIONAL,
        (Rational,),
        _OfMeadowValues,
        Input(signed=True, high=1.5, bottom=0.0),
    ),
    _projective("ProjectiveRational"),
    _projective(
        "ProjectiveRational, separate D, monomial", shared_denominator=False, basis="monomial"
    ),
    _head("ProjectiveHead"),
    _head("ProjectiveHead, separate D", shared_denominator=False),
    layer(
        "ProjectiveMLP",
        PROJECTIVE,
        (ProjectiveMLP,),
        lambda dtype: ProjectiveMLP(2, 2, hidden=(3,), x_mean=[0.5, -1.0]).to(dtype),
        Input(signed=True, high=1.5),
        scripts=True,
        reasons=WIDTH | REAL,
    ),
    computed(
        "monomial_basis",
        BASES,
        (layers.monomial_basis,),
        lambda x: layers.monomial_basis(x, 3),
        Input(signed=True),
    ),
    computed(
        "chebyshev_basis",
        BASES,
        (layers.chebyshev_basis, basis.unit),
        lambda x: layers.chebyshev_basis(x, 3, domain=(-2.0, 3.0)),
        Input(signed=True),
    ),
    _features("feature_matrix, graded", CURVED, reasons=WIDTH),
    _features("feature_matrix, waves", WAVES, reasons=WIDTH),
    _features("feature_matrix, module", LEARNED, reasons=WIDTH),
    computed(
        "CoefficientForm",
        BASES,
        (forms.CoefficientForm,),
        lambda x: forms.CoefficientForm(
            COEFFICIENTS[0].to(x), COEFFICIENTS[1].to(x), "monomial", (-1.0, 1.0)
        ).tuples(x),
        Input(signed=True),
    ),
)
