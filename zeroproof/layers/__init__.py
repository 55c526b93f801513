"""Layers: polynomial bases, rational functions, projective heads and a ready-made model."""

from zeroproof.layers.basis import chebyshev_basis, monomial_basis
from zeroproof.layers.head import ProjectiveHead
from zeroproof.layers.mlp import ProjectiveMLP
from zeroproof.layers.rational import ProjectiveRational, Rational

__all__ = [
    "ProjectiveHead",
    "ProjectiveMLP",
    "ProjectiveRational",
    "Rational",
    "chebyshev_basis",
    "monomial_basis",
]
