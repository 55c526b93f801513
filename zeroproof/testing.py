"""Tools to test layers and operations on meadow values: an exact oracle, strategies, assertions.

Hypothesis is no dependency of this package; it is imported when a strategy is asked for.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from zeroproof._extras import require
from zeroproof.errors import RangeError
from zeroproof.scm import SCM

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

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

# --- an exact meadow of rational numbers: the oracle for floats -----------------------------------

Rational = Fraction | int


@dataclass(frozen=True, repr=False)
class Exact:
    """A number re + im·i with exact rational parts, or ⊥ where both parts are `None`.

    `+ - * /`, unary `-`, whole powers and `inv()` follow the laws of the common meadow. Equality is
    exact, and ⊥ equals ⊥.

    Source: Bergstra & Ponse, arXiv:1406.6878.

    Examples:
        >>> 1 / Exact.of(0) == BOTTOM
        True
        >>> Exact.of(1, 3) + Exact.of(1, 6)
        Exact(1/2)
    """

    re: Fraction | None
    im: Fraction | None

    @classmethod
    def of(cls, numerator: Rational, denominator: Rational = 1) -> "Exact":
        """Return numerator / denominator, ⊥ if the denominator is 0."""
        if denominator == 0:
            return BOTTOM
        return cls(Fraction(numerator) / Fraction(denominator), Fraction(0))

    @property
    def is_bottom(self) -> bool:
        """Whether this is ⊥."""
        return self.re is None

    def inv(self) -> "Exact":
        """Return x⁻¹; 0⁻¹ = ⊥⁻¹ = ⊥."""
        if self.re is None or self.im is None:
            return BOTTOM
        square = self.re**2 + self.im**2
        return Exact(self.re / square, -self.im / square) if square else BOTTOM

    def __add__(self, other: "Exact | Rational") -> "Exact":
        other = _exact(other)
        if self.re is None or self.im is None or other.re is None or other.im is None:
            return BOTTOM
        return Exact(self.re + other.re, self.im + other.im)

    def __mul__(self, other: "Exact | Rational") -> "Exact":
        other = _exact(other)
        if self.re is None or self.im is None or other.re is None or other.im is None:
            return BOTTOM
        return Exact(
            self.re * other.re - self.im * other.im, self.re * other.im + self.im * other.re
        )

    __radd__ = __add__
    __rmul__ = __mul__

    def __neg__(self) -> "Exact":
        return self * -1

    def __sub__(self, other: "Exact | Rational") -> "Exact":
        return self + -_exact(other)

    def __rsub__(self, other: Rational) -> "Exact":
        return _exact(other) - self

    def __truediv__(self, other: "Exact | Rational") -> "Exact":
        return self * _exact(other).inv()

    def __rtruediv__(self, other: Rational) -> "Exact":
        return _exact(other) / self

    def __pow__(self, n: int) -> "Exact":
        """Return xⁿ; x⁰ = 1 + 0x."""
        if n < 0:
            return self.inv() ** -n
        power = 1 + 0 * self
        for _ in range(n):
            power = power * self
        return power

    def __abs__(self) -> "Exact":
        """Return the larger of |re| and |im|, the modulus of a real number."""
        if self.re is None or self.im is None:
            return BOTTOM
        return Exact.of(max(abs(self.re), abs(self.im)))

    def __complex__(self) -> complex:
        """Return the nearest complex float; nan at ⊥."""
        if self.re is None or self.im is None:
            return complex("nan")
        return complex(float(self.re), float(self.im))

    def __repr__(self) -> str:
        if self.re is None or self.im is None:
            return "BOTTOM"
        return f"Exact({self.re})" if self.im == 0 else f"Exact({self.re} + {self.im}i)"


BOTTOM = Exact(None, None)


def _exact(x: "Exact | Rational") -> Exact:
    return x if isinstance(x, Exact) else Exact.of(x)


def exact_sign(x: Exact) -> Exact:
    r"""Return the weak sign x / \|x\| of a real number, s(0) = 0 and s(⊥) = ⊥.

    Raises:
        RangeError: x is complex: its sign is not rational.

    Examples:
        >>> exact_sign(Exact.of(-2, 3))
        Exact(-1)
    """
    if x.re is None:
        return BOTTOM
    if x.im:
        raise RangeError(f"x must be real, got {x!r}")
    return Exact.of((x.re > 0) - (x.re < 0))


def exact_to_scm(values: Iterable[Exact], dtype: torch.dtype = torch.float64) -> SCM:
    """Round exact values to a one-dimensional SCM value of the given dtype.

    Examples:
        >>> exact_to_scm([Exact.of(1, 4), BOTTOM])
        SCM(payload=tensor([0.2500,    nan], dtype=torch.float64), bottom=tensor([False,  True]))
    """
    numbers = [complex(x) for x in values]
    if dtype.is_complex:
        return SCM(torch.tensor(numbers, dtype=dtype))
    return SCM(torch.tensor([z.real for z in numbers], dtype=dtype))


# --- Hypothesis strategies ------------------------------------------------------------------------


def _strategies() -> Any:
    return require("hypothesis.strategies", extra="testing")


def exact_values(*, complex_values: bool = False, bottom: bool = True) -> "SearchStrategy[Exact]":
    """Draw small rationals n / d with |n| <= 12, d <= 6, often 0, 1 or ⊥.

    They are so small that float64 keeps the zero pattern of every product and quotient of a few.

    Args:
        complex_values: Draw Gaussian rationals rather than real ones.
        bottom: Draw ⊥ as well.

    Raises:
        MissingExtraError: Hypothesis is not installed.
    """
    st = _strategies()
    part = st.builds(Fraction, st.integers(-12, 12), st.integers(1, 6))
    number = st.builds(Exact, part, part if complex_values else st.just(Fraction(0)))
    special = [Exact.of(0), Exact.of(1), Exact.of(-1), *([BOTTOM] if bottom else [])]
    return st.one_of(number, st.sampled_from(special))


def sizes(low: float = 1e-3, high: float = 1e3, *, width: int = 64) -> "SearchStrategy[float]":
    """Draw floats of either sign with modulus in [low, high]: a range in which products stay safe.

    Raises:
        MissingExtraError: Hypothesis is not installed.
    """
    st = _strategies()
    size = st.floats(low, high, width=width, exclude_min=width < 64, exclude_max=width < 64)
    return st.builds(lambda x, negative: -x if negative else x, size, st.booleans())


def scm_values(
    n: int = 8, *, dtype: torch.dtype = torch.float64, low: float = 1e-3, high: float = 1e3
) -> "SearchStrategy[SCM]":
    """Draw SCM values of shape `(n,)`: 0, ⊥ and numbers of either sign with modulus in [low, high].

    Args:
        n: How many.
        dtype: A real or complex floating-point type.
        low: Least modulus of a part that is not 0.
        high: Largest modulus of a part.

    Raises:
        MissingExtraError: Hypothesis is not installed.

    Examples:
        >>> from hypothesis import given
        >>> @given(scm_values(4))
        ... def zero_absorbs_only_numbers(x):
        ...     assert torch.equal((0 * x).bottom, x.bottom)
        >>> zero_absorbs_only_numbers()
    """
    st = _strategies()
    part = st.one_of(sizes(low, high), st.just(0.0))
    number = st.builds(complex, part, part) if dtype.is_complex else part
    entry = st.one_of(number, st.just(float("nan")))
    return st.lists(entry, min_size=n, max_size=n).map(
        lambda entries: SCM(torch.tensor(entries, dtype=dtype))
    )


# --- assertions -----------------------------------------------------------------------------------


def assert_valid_scm(x: SCM) -> None:
    """Assert that the payload is nan at ⊥ and finite elsewhere, and that the mask has its shape.

    Raises:
        AssertionError: It is not so; the message counts the entries.

    Examples:
        >>> assert_valid_scm(SCM(torch.tensor([1.0, float("inf")])))
    """
    if x.bottom.dtype != torch.bool or x.bottom.shape != x.payload.shape:
        raise AssertionError(
            f"bottom must be a boolean mask of shape {tuple(x.payload.shape)}, "
            f"got {x.bottom.dtype} of shape {tuple(x.bottom.shape)}"
        )
    stale = x.bottom & ~torch.isnan(x.payload)
    wild = ~x.bottom & ~torch.isfinite(x.payload)
    if bool((stale | wild).any()):
        raise AssertionError(
            f"the payload must be nan at ⊥ and finite elsewhere: {int(stale.sum())} entries at ⊥ "
            f"are not nan, {int(wild.sum())} others are not finite"
        )


def assert_same_bottom(actual: SCM, expected: SCM) -> None:
    """Assert that two values are ⊥ at exactly the same entries.

    Raises:
        AssertionError: They are not; the message names the first entries that differ.

    Examples:
        >>> x = SCM(torch.tensor([1.0, 0.0]))
        >>> assert_same_bottom(1 / x, x.inv())
    """
    if actual.shape != expected.shape:
        raise AssertionError(f"shapes differ: {tuple(actual.shape)} and {tuple(expected.shape)}")
    differs = (actual.bottom != expected.bottom).nonzero().tolist()
    if differs:
        raise AssertionError(f"⊥ differs at {len(differs)} entries, first {differs[:5]}")


def assert_close_scm(
    actual: SCM,
    expected: SCM,
    *,
    rtol: float | None = None,
    atol: float | Tensor | None = None,
) -> None:
    """Assert the same ⊥ entries exactly, and close numbers elsewhere.

    Args:
        actual: What came.
        expected: What must hold.
        rtol: Relative tolerance; if both are `None`, as in `torch.testing.assert_close`.
        atol: Absolute tolerance; may be a tensor, one bound per entry.

    Raises:
        AssertionError: They differ.

    Examples:
        >>> x = SCM(torch.tensor([3.0, 0.0]))
        >>> assert_close_scm(x / x, 1 + 0 / x)
    """
    assert_valid_scm(actual)
    assert_valid_scm(expected)
    assert_same_bottom(actual, expected)
    left = torch.where(actual.bottom, 0, actual.payload)
    right = torch.where(expected.bottom, 0, expected.payload)
    if not isinstance(atol, Tensor):
        torch.testing.assert_close(left, right, rtol=rtol, atol=atol)
        return
    bound = (rtol or 0.0) * right.abs() + atol
    worst = ((left - right).abs() - bound).max() if left.numel() else torch.tensor(0.0)
    if not bool(worst <= 0):
        raise AssertionError(f"values differ by up to {float(worst):.3g} more than allowed")
