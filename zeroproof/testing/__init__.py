"""Tools to test layers and operations on meadow values: an exact oracle, strategies, assertions."""

from zeroproof.testing.asserts import assert_close_scm, assert_same_bottom, assert_valid_scm
from zeroproof.testing.oracle import BOTTOM, Exact, exact_sign, exact_to_scm
from zeroproof.testing.strategies import exact_values, scm_values, sizes

__all__ = [
    "BOTTOM",
    "Exact",
    "assert_close_scm",
    "assert_same_bottom",
    "assert_valid_scm",
    "exact_sign",
    "exact_to_scm",
    "exact_values",
    "scm_values",
    "sizes",
]
