from fractions import Fraction

import pytest
import torch

from zeroproof.errors import RangeError
from zeroproof.testing import BOTTOM, Exact, exact_sign, exact_to_scm


@pytest.mark.parametrize(
    ("actual", "expected"),
    [
        (Exact.of(1, 3) + Exact.of(1, 6), Exact.of(1, 2)),
        (2 - Exact.of(1, 2), Exact.of(3, 2)),
        (1 / Exact.of(4), Exact.of(Fraction(1, 4))),
        (Exact.of(5, 0), BOTTOM),
        (Exact.of(0) ** -1, BOTTOM),
        (Exact.of(0) ** 0, Exact.of(1)),
        (BOTTOM**0, BOTTOM),
        (0 * BOTTOM, BOTTOM),
        (abs(BOTTOM), BOTTOM),
        (Exact(Fraction(1), Fraction(1)) ** 2, Exact(Fraction(0), Fraction(2))),
        (Exact(Fraction(0), Fraction(1)).inv(), Exact(Fraction(0), Fraction(-1))),
        (abs(Exact(Fraction(-3), Fraction(2))), Exact.of(3)),
        (exact_sign(Exact.of(-7, 2)), Exact.of(-1)),
        (exact_sign(BOTTOM), BOTTOM),
    ],
    ids=repr,
)
def test_values(actual: Exact, expected: Exact) -> None:
    assert actual == expected
    assert actual.is_bottom is (expected is BOTTOM)


def test_repr() -> None:
    shown = [repr(x) for x in (BOTTOM, Exact.of(1, 2), Exact(Fraction(1), Fraction(-2)))]
    assert shown == ["BOTTOM", "Exact(1/2)", "Exact(1 + -2i)"]


def test_sign_of_a_complex_number_is_refused() -> None:
    with pytest.raises(RangeError, match=r"x must be real, got Exact\(0 \+ 1i\)"):
        exact_sign(Exact(Fraction(0), Fraction(1)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex128], ids=str)
def test_rounding_to_scm(dtype: torch.dtype) -> None:
    x = exact_to_scm([Exact.of(1, 2), BOTTOM], dtype)
    assert x.payload.dtype == dtype
    assert x.bottom.tolist() == [False, True]
    assert x.payload[0] == 0.5
