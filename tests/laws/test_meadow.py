"""The laws of the common meadow (mathematics: A, I, F, derived, weak sign), exactly and in floats.

Each law is two sides written once; they are evaluated on exact rationals with ⊥ and on SCM tensors.
"""

from collections.abc import Callable
from operator import neg
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import assume, given, note
from hypothesis import strategies as st

from zeroproof.scm import SCM, weak_sign
from zeroproof.testing import (
    BOTTOM,
    Exact,
    assert_close_scm,
    exact_sign,
    exact_to_scm,
    exact_values,
    scm_values,
)


class Carrier(NamedTuple):
    zero: Any
    one: Any
    bottom: Any
    s: Callable[[Any], Any]


EXACT = Carrier(Exact.of(0), Exact.of(1), BOTTOM, exact_sign)
FLOAT = Carrier(SCM(0.0), SCM(1.0), SCM(float("nan")), weak_sign)

Side = Callable[[Carrier, Any, Any, Any, Any], Any]  # of a carrier and x, y, z (or u), v


class Law(NamedTuple):
    left: Side
    right: Side


LAWS = {
    "A1": Law(lambda k, x, y, z, v: (x + y) + z, lambda k, x, y, z, v: x + (y + z)),
    "A2": Law(lambda k, x, y, z, v: x + y, lambda k, x, y, z, v: y + x),
    "A3": Law(lambda k, x, y, z, v: x + k.zero, lambda k, x, y, z, v: x),
    "A4": Law(lambda k, x, y, z, v: x + (-x), lambda k, x, y, z, v: 0 * x),
    "A5": Law(lambda k, x, y, z, v: x * (y * z), lambda k, x, y, z, v: (x * y) * z),
    "A6": Law(lambda k, x, y, z, v: x * y, lambda k, x, y, z, v: y * x),
    "A7": Law(lambda k, x, y, z, v: 1 * x, lambda k, x, y, z, v: x),
    "A8": Law(lambda k, x, y, z, v: x * (y + z), lambda k, x, y, z, v: x * y + x * z),
    "A9": Law(lambda k, x, y, z, v: neg(neg(x)), lambda k, x, y, z, v: x),
    "A10": Law(lambda k, x, y, z, v: 0 * (x * x), lambda k, x, y, z, v: 0 * x),
    "A11": Law(lambda k, x, y, z, v: x + k.bottom, lambda k, x, y, z, v: 0 * x + k.bottom),
    "A11 is bottom": Law(lambda k, x, y, z, v: k.bottom + x, lambda k, x, y, z, v: k.bottom),
    "I1": Law(lambda k, x, y, z, v: x * x.inv(), lambda k, x, y, z, v: 1 + 0 * x.inv()),
    "I2": Law(lambda k, x, y, z, v: (x * y).inv(), lambda k, x, y, z, v: x.inv() * y.inv()),
    "I3": Law(lambda k, x, y, z, v: (1 + 0 * x).inv(), lambda k, x, y, z, v: 1 + 0 * x),
    "I4": Law(lambda k, x, y, z, v: k.zero.inv(), lambda k, x, y, z, v: k.bottom),
    "F1": Law(lambda k, x, y, z, v: x, lambda k, x, y, z, v: x / 1),
    "F2": Law(lambda k, x, y, z, v: -(x / y), lambda k, x, y, z, v: (-x) / y),
    "F3": Law(lambda k, x, y, u, v: (x / y) * (u / v), lambda k, x, y, u, v: (x * u) / (y * v)),
    "F4": Law(lambda k, x, y, u, v: x / y + u / v, lambda k, x, y, u, v: (x * v + y * u) / (y * v)),
    "F5": Law(lambda k, x, y, z, v: x / (y + 0 * z), lambda k, x, y, z, v: (x + 0 * z) / y),
    "F6": Law(lambda k, x, y, z, v: k.bottom, lambda k, x, y, z, v: k.one / 0),
    "bottom absorbs products": Law(
        lambda k, x, y, z, v: x * k.bottom, lambda k, x, y, z, v: k.bottom
    ),
    "minus bottom": Law(lambda k, x, y, z, v: -k.bottom, lambda k, x, y, z, v: k.bottom),
    "inverse of bottom": Law(lambda k, x, y, z, v: k.bottom.inv(), lambda k, x, y, z, v: k.bottom),
    "0x + 0y": Law(lambda k, x, y, z, v: 0 * x + 0 * y, lambda k, x, y, z, v: 0 * (x * y)),
    "x + 0x": Law(lambda k, x, y, z, v: x + 0 * x, lambda k, x, y, z, v: x),
    "inverse of inverse": Law(
        lambda k, x, y, z, v: x.inv().inv(), lambda k, x, y, z, v: x + 0 * x.inv()
    ),
    "x / x": Law(lambda k, x, y, z, v: x / x, lambda k, x, y, z, v: 1 + 0 / x),
    "quotient of quotients": Law(
        lambda k, x, y, u, v: (x / y) / (u / v), lambda k, x, y, u, v: (x * v * v) / (y * u * v)
    ),
    "whole powers": Law(lambda k, x, y, z, v: x**3 * x**-2, lambda k, x, y, z, v: x + 0 / x),
    "power 0": Law(lambda k, x, y, z, v: x**0, lambda k, x, y, z, v: 1 + 0 * x),
}

SIGN_LAWS = {
    "s(1)": Law(lambda k, x, y, z, v: k.s(k.one), lambda k, x, y, z, v: k.one),
    "s(-1)": Law(lambda k, x, y, z, v: k.s(-k.one), lambda k, x, y, z, v: -k.one),
    "s(0)": Law(lambda k, x, y, z, v: k.s(k.zero), lambda k, x, y, z, v: k.zero),
    "s(bottom)": Law(lambda k, x, y, z, v: k.s(k.bottom), lambda k, x, y, z, v: k.bottom),
    "s(xy)": Law(lambda k, x, y, z, v: k.s(x * y), lambda k, x, y, z, v: k.s(x) * k.s(y)),
    "s(-x)": Law(lambda k, x, y, z, v: k.s(-x), lambda k, x, y, z, v: -k.s(x)),
    "s(s(x))": Law(lambda k, x, y, z, v: k.s(k.s(x)), lambda k, x, y, z, v: k.s(x)),
    "s(x / y)": Law(lambda k, x, y, z, v: k.s(x / y), lambda k, x, y, z, v: k.s(x) / k.s(y)),
    "0 s(x)": Law(lambda k, x, y, z, v: 0 * k.s(x), lambda k, x, y, z, v: 0 * x),
    "s(x / x)": Law(lambda k, x, y, z, v: k.s(x / x), lambda k, x, y, z, v: x / x),
    "s(1 + 0x)": Law(lambda k, x, y, z, v: k.s(1 + 0 * x), lambda k, x, y, z, v: 1 + 0 * x),
}
REAL_SIGN_LAWS = {
    "s(x)^3": Law(lambda k, x, y, z, v: k.s(x) ** 3, lambda k, x, y, z, v: k.s(x)),
}
REAL_LAWS = LAWS | SIGN_LAWS | REAL_SIGN_LAWS
COMPLEX_LAWS = LAWS | SIGN_LAWS

four_exact = st.tuples(*[exact_values()] * 4)
four_gaussian = st.tuples(*[exact_values(complex_values=True)] * 4)


def rounding(law: Law, values: tuple[SCM, ...]) -> torch.Tensor:
    """A few ulps of what the terms of both sides add up to when nothing cancels."""
    sizes = tuple(SCM(x.payload.abs(), x.bottom) for x in values)
    bound = sum(as_rows(side(FLOAT, *sizes), sizes[0]).payload.nan_to_num().abs() for side in law)
    return 32 * torch.finfo(values[0].payload.dtype).eps * bound


def as_rows(x: SCM, like: SCM) -> SCM:
    payload = x.payload.to(like.payload.dtype).expand(like.shape)
    return SCM(payload, x.bottom.expand(like.shape))


@pytest.mark.parametrize("name", REAL_LAWS)
@given(values=four_exact)
def test_law_holds_on_exact_numbers(name: str, values: tuple[Exact, ...]) -> None:
    left, right = REAL_LAWS[name]
    assert left(EXACT, *values) == right(EXACT, *values)


@pytest.mark.parametrize("name", LAWS)
@given(values=four_gaussian)
def test_law_holds_on_exact_complex_numbers(name: str, values: tuple[Exact, ...]) -> None:
    left, right = LAWS[name]
    assert left(EXACT, *values) == right(EXACT, *values)


# drawing takes longer than checking: the same values serve all laws
@given(rows=st.lists(four_exact, min_size=6, max_size=6))
def test_scm_agrees_with_the_oracle_on_both_sides(rows: list[tuple[Exact, ...]]) -> None:
    check_oracle(REAL_LAWS, rows, torch.float64)


@given(rows=st.lists(four_gaussian, min_size=6, max_size=6))
def test_complex_scm_agrees_with_the_oracle_on_both_sides(rows: list[tuple[Exact, ...]]) -> None:
    check_oracle(LAWS, rows, torch.complex128)


def check_oracle(laws: dict[str, Law], rows: list[tuple[Exact, ...]], dtype: torch.dtype) -> None:
    values = tuple(exact_to_scm(column, dtype) for column in zip(*rows, strict=True))
    for name, law in laws.items():
        note(f"law {name}")
        atol = rounding(law, values)
        for side in law:
            actual = as_rows(side(FLOAT, *values), values[0])
            expected = exact_to_scm((side(EXACT, *row) for row in rows), dtype)
            assert_close_scm(actual, expected, atol=atol)


@pytest.mark.parametrize(
    ("laws", "dtype"),
    [
        (REAL_LAWS, torch.float64),
        (REAL_LAWS, torch.float32),
        (COMPLEX_LAWS, torch.complex128),
        (COMPLEX_LAWS, torch.complex64),
    ],
    ids=["float64", "float32", "complex128", "complex64"],
)
@given(data=st.data())
def test_laws_hold_in_floats(laws: dict[str, Law], dtype: torch.dtype, data: Any) -> None:
    values = data.draw(st.tuples(*[scm_values(dtype=dtype)] * 4))
    for name, law in laws.items():
        note(f"law {name}")
        left, right = (as_rows(side(FLOAT, *values), values[0]) for side in law)
        assert_close_scm(left, right, atol=rounding(law, values))


@given(x=exact_values(), y=exact_values())
def test_sum_of_equal_signs_keeps_the_sign(x: Exact, y: Exact) -> None:
    assume(exact_sign(x) == exact_sign(y))
    assert exact_sign(x + y) == exact_sign(x) + 0 * y
    a, b = exact_to_scm([x]), exact_to_scm([y])
    assert_close_scm(weak_sign(a + b), weak_sign(a) + 0 * b, rtol=0, atol=0)


@given(x=scm_values(dtype=torch.complex128), r=scm_values())
def test_sum_of_equal_complex_signs_keeps_the_sign(x: SCM, r: SCM) -> None:
    stretched = SCM(x.payload * r.payload.abs().nan_to_num(1).clamp(min=1e-3))
    assert_close_scm(weak_sign(x + stretched), weak_sign(x) + 0 * stretched, rtol=0, atol=1e-12)


def test_complex_sign_does_not_satisfy_the_cubic_law() -> None:
    z = SCM(torch.tensor([1j]))
    assert weak_sign(z).payload.item() == 1j
    assert (weak_sign(z) ** 3).payload.item() == -1j


# identity, its two sides, (x, y, z) where it breaks, and what the left side is there
FAILS = {
    "x - x = 0": (lambda x, y, z: x - x, lambda x, y, z: 0 * y, (BOTTOM, 1, 1), BOTTOM),
    "x / x = 1": (lambda x, y, z: x / x, lambda x, y, z: 1 + 0 * y, (0, 1, 1), BOTTOM),
    "0x = 0": (lambda x, y, z: 0 * x, lambda x, y, z: 0 * y, (BOTTOM, 1, 1), BOTTOM),
    "inverse of inverse = x": (
        lambda x, y, z: x.inv().inv(),
        lambda x, y, z: x,
        (0, 1, 1),
        BOTTOM,
    ),
    "xz / (yz) = x / y": (
        lambda x, y, z: (x * z) / (y * z),
        lambda x, y, z: x / y,
        (3, 2, 0),
        BOTTOM,
    ),
}


@pytest.mark.parametrize("name", FAILS)
def test_identity_of_fields_fails_as_it_must(name: str) -> None:
    left, right, at, value = FAILS[name]
    exact = [x if isinstance(x, Exact) else Exact.of(x) for x in at]
    assert left(*exact) == value
    assert right(*exact) != value
    floats = [exact_to_scm([x]) for x in exact]
    assert left(*floats).bottom.item() is value.is_bottom
    assert right(*floats).bottom.item() is right(*exact).is_bottom is False


@pytest.mark.parametrize("name", FAILS)
def test_identity_of_fields_holds_away_from_zero_and_bottom(name: str) -> None:
    left, right, _, _ = FAILS[name]
    x, y, z = (exact_to_scm([Exact.of(n)]) for n in (3, 2, 5))
    assert_close_scm(left(x, y, z), right(x, y, z))
