"""An exact meadow of rational numbers, real or complex, and ⊥: the oracle for floats."""

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

import torch

from zeroproof.errors import RangeError
from zeroproof.scm import SCM

__all__ = ["BOTTOM", "Exact", "exact_sign", "exact_to_scm"]

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
