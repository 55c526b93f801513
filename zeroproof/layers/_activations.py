"""Coefficients of rational functions of degrees (5, 4) close to common activations.

Each is a weighted least-squares fit on 2001 Chebyshev points of [-3, 3], reweighted until the
largest error stopped falling. Q is even with coefficients of at least 0, so that it has no zero on
the real line. Beyond [-3, 3] they leave the activation: relu and tanh grow like a line there,
gelu like a square.
"""

from typing import NamedTuple

__all__ = ["ACTIVATIONS", "DEGREES"]

DEGREES = (5, 4)


class _Fit(NamedTuple):
    numerator: tuple[float, ...]  # ascending
    denominator: tuple[float, ...]
    error: float  # the largest on [-3, 3]


ACTIVATIONS = {
    "relu": _Fit(
        (0.013207409, 0.5, 2.7073026, 4.2873925, 2.3937976, 0.42262267),
        (1.0, 0.0, 8.574785, 0.0, 0.84524534),
        1.33e-2,
    ),
    "gelu": _Fit(
        (-0.0012742525, 0.5, 0.40815546, 0.10676088, 0.0085785799, 0.0),
        (1.0, 0.0, 0.21352176, 0.0, 0.0),
        1.28e-3,
    ),
    "tanh": _Fit(
        (0.0, 0.9999924, 0.0, 0.1074911, 0.0, 0.00086149999),
        (1.0, 0.0, 0.44078957, 0.0, 0.014504201),
        1.5e-6,
    ),
}
