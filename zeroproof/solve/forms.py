"""Ways to write one rational function of one variable, and what each knows of itself.

Coefficients of D lose relative accuracy beside multiple poles; roots and support points do not.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from zeroproof._checks import positive
from zeroproof._extras import require
from zeroproof.errors import ShapeError
from zeroproof.layers.basis import chebyshev_basis, checked_domain, monomial_basis, polynomial
from zeroproof.projective.tuples import Pair
from zeroproof.solve.poles import (
    RESOLUTION,
    TOLERANCE,
    PoleTable,
    barycentric_zeros,
    clustered,
    colleague,
    laurent,
    newton,
    polynomial_zeros,
)
from zeroproof.solve.system import Poles, System

__all__ = [
    "BarycentricForm",
    "CoefficientForm",
    "ConjugateForm",
    "ExponentialForm",
    "FactoredForm",
    "Form",
    "FractionForm",
    "InverseForm",
    "SigmoidForm",
    "interpolated",
    "interval_poles",
    "quotient_slopes",
]

_ROUNDING = 1e-14  # of the largest coefficient of an interpolant
_DIGITS = 8  # that an interpolant may lose away from its interval


class Form(ABC):
    """A function N / D of one variable.

    Called with points it answers N / D, nan where D is 0.

    Attributes:
        domain: (low, high) where it was fitted, in the units of x.
        judged: Did the race that fitted it tell its poles from noise?

    Examples:
        >>> z, w = torch.tensor([0.0, 1.0]), torch.tensor([1.0, -1.0])
        >>> BarycentricForm(z, z, w)(torch.tensor([0.25]))
        tensor([0.2500])
    """

    domain: tuple[float, float]
    judged = False

    @property
    @abstractmethod
    def degrees(self) -> tuple[int, int]:
        """Return the degrees (p, q) of N and D."""

    @abstractmethod
    def tuples(self, x: Tensor) -> Pair:
        """Return ⟨N, D⟩ without dividing.

        Args:
            x: Points, `(*batch,)`, real or complex.

        Returns:
            `Pair(N, D)`, both `(*batch,)`. Where a form has a factor (x - z) of the nearest support
            point or pole in both, so that they stay finite there, the sign of D means nothing.

        Examples:
            >>> one = torch.ones(1, dtype=torch.float64)
            >>> reciprocal = FactoredForm(one, one[:0], one[:0], 0 * one, 0 * one, (-1.0, 1.0))
            >>> reciprocal.tuples(torch.tensor([0.0, 0.5], dtype=torch.float64)).D
            tensor([0.0000, 0.5000], dtype=torch.float64)
        """

    @abstractmethod
    def slopes(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return answers, `(n,)`, and their slopes by the coefficients, `(n, k)`.

        Which coefficients is the form's own affair: slopes of any of them span the same space.
        """

    def pole_errors(self, L: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
        """Return errors of poles and residues, and significance, from a root of the covariance.

        None where they follow from the slopes around each pole.
        """
        return None

    def moved(self, step: Tensor) -> "Form | None":
        """Return the form with its coefficients moved, as `slopes` orders them; none if it cannot.

        Only where coefficients are the fields themselves.
        """
        return None

    @abstractmethod
    def denominator_zeros(self) -> Tensor:
        """Return the zeros of D, repeated by multiplicity."""

    @abstractmethod
    def numerator_zeros(self) -> Tensor:
        """Return the zeros of N, repeated by multiplicity."""

    def __call__(self, x: Tensor) -> Tensor:
        N, D = self.tuples(x)
        zero = D == 0
        return torch.where(zero, torch.nan, N / torch.where(zero, 1, D))

    @property
    def free(self) -> int:
        """Return the number of free coefficients."""
        return sum(self.degrees) + 1

    @property
    def is_real(self) -> bool:
        """Tell whether f is real on the real line: its poles then come in conjugate pairs."""
        parts = (part for part in vars(self).values() if isinstance(part, Tensor))
        return not any(part.is_complex() for part in parts)

    def system(self) -> System | None:
        """Return H(s) where f(x) = H(ix) is the response of a real system, with poles in s."""
        return None

    def divergence(self, name: str) -> str:
        """Say where f diverges without a zero of D; nothing if nowhere."""
        return ""

    def described(self, name: str) -> str:
        """Say what the form is, as a function of `name`."""
        p, q = self.degrees
        if q:
            return f"N / D, polynomials of degrees ({p}, {q}) in {name}"
        if p > 1:
            return f"a polynomial of degree {p} in {name}"
        return f"a straight line in {name}" if p else "the same in every row"

    def pole_table(
        self, *, resolution: float = RESOLUTION, tolerance: float = TOLERANCE
    ) -> PoleTable:
        r"""Find all poles with what there is to know about each.

        Zeros of D closer than `resolution` are one pole of that multiplicity at their mean:
        rounding splits a double zero of D by the root of its own size, yet keeps the mean. Residue
        and strength are integrals over a circle around the pole alone. A pole is spurious (a
        Froissart pair: a zero of N cancels it) when its strength is below `tolerance` for a
        function of this size, or a zero of N lies as near.

        Args:
            resolution: In half widths of the domain; take about the root of the relative noise.
            tolerance: Relative to the median of \|f\| on the domain and its half width; raise it
                for noisy data.

        Raises:
            RangeError: `resolution` or `tolerance` is not above 0.

        Examples:
            >>> a, b = torch.tensor([3.0]), torch.tensor([-0.5, 1.0])
            >>> table = CoefficientForm(a, b, "monomial", (-1, 1)).pole_table()
            >>> table.position.real, table.residue.real, table.multiplicity
            (tensor([0.5000], dtype=torch.float64), tensor([3.], dtype=torch.float64), tensor([1]))
        """
        positive(resolution, "resolution")
        positive(tolerance, "tolerance")
        middle, half = _scaling(self.domain)
        position, multiplicity = clustered(
            self.denominator_zeros(), middle, half, resolution, self.is_real
        )
        order = (position.real + 1e-12 * position.imag).argsort()
        position, multiplicity = position[order], multiplicity[order]
        residue, strength = laurent(self, position, multiplicity, half)
        if self.is_real:  # so are the coefficients at a real pole, but for rounding
            on_line = position.imag == 0
            residue, strength = (torch.where(on_line, z.real + 0j, z) for z in (residue, strength))
        nodes = middle + half * torch.cos(torch.arange(1, 128, 2) * torch.pi / 128)
        sizes = self(nodes.to(torch.float64)).abs()
        typical = sizes[torch.isfinite(sizes)].median()
        far = torch.maximum((position - middle).abs() / half, torch.ones(()))
        weak = strength.abs() <= tolerance * typical * (half * far) ** multiplicity
        near = self.numerator_zeros()
        gap = (position[:, None] - near).abs()
        nearest = gap.amin(1) if len(near) else torch.full_like(half * far, torch.inf)
        return PoleTable(
            position, residue, strength, multiplicity, weak | (nearest <= tolerance * half * far)
        )

    def poles(self, *, spurious: bool = False, **options: float) -> Tensor:
        """Return the distinct poles, sorted by real part; a multiple pole is listed once.

        Those on the real line have imaginary part 0 where the form is real.

        Args:
            spurious: True: give the spurious ones too.
            options: Those of `pole_table`.

        Returns:
            complex128, in the units of x.

        Examples:
            >>> one, b = torch.ones(1), torch.tensor([-0.25, 0.0, 1.0])
            >>> CoefficientForm(one, b, "monomial", (-1, 1)).poles().real
            tensor([-0.5000,  0.5000], dtype=torch.float64)
        """
        table = self.pole_table(**options)
        return table.position[spurious | ~table.spurious]

    def residues(self, *, spurious: bool = False, **options: float) -> Tensor:
        """Return the coefficients of 1 / (x - p), in the order of `poles`, complex128.

        That of 1 / (x - p)² is in `pole_table().strength`. Arguments are those of `poles`.

        Examples:
            >>> one, b = torch.ones(1), torch.tensor([-0.25, 0.0, 1.0])
            >>> CoefficientForm(one, b, "monomial", (-1, 1)).residues().real
            tensor([-1.,  1.], dtype=torch.float64)
        """
        table = self.pole_table(**options)
        return table.residue[spurious | ~table.spurious]

    def roots(self, *, spurious: bool = False, tolerance: float = TOLERANCE) -> Tensor:
        """Return the zeros of N, repeated by multiplicity and sorted by real part, complex128.

        The partner of a spurious pole is left out with it.

        Args:
            spurious: True: give those partners too.
            tolerance: See `pole_table`.

        Raises:
            RangeError: `tolerance` is not above 0.

        Examples:
            >>> a, b = torch.tensor([-0.5, 1.0]), torch.tensor([2.0, 1.0])
            >>> CoefficientForm(a, b, "monomial", (-1, 1)).roots().real
            tensor([0.5000], dtype=torch.float64)
        """
        zeros = self.numerator_zeros()
        zeros = zeros[(zeros.real + 1e-12 * zeros.imag).argsort()]
        if spurious or not len(zeros):
            return zeros
        table = self.pole_table(tolerance=tolerance)
        kept = torch.ones(len(zeros), dtype=torch.bool)
        for pole in table.position[table.spurious]:
            left = torch.where(kept, (zeros - pole).abs(), torch.inf)
            kept[left.argmin()] = False
        return zeros[kept]


@dataclass(frozen=True, eq=False)
class CoefficientForm(Form):
    """N = Σ a_k B_k(x) and D = Σ b_k B_k(x)."""

    a: Tensor  # (p + 1,), real or complex, ascending
    b: Tensor  # (q + 1,)
    basis: str  # "chebyshev" or "monomial"
    domain: tuple[float, float]  # (low, high) of the Chebyshev polynomials, in the units of x

    @property
    def degrees(self) -> tuple[int, int]:
        return len(self.a) - 1, len(self.b) - 1

    def tuples(self, x: Tensor) -> Pair:
        N, D = (polynomial(x, part, self.basis, self.domain) for part in (self.a, self.b))
        return Pair(N, D)

    def slopes(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.basis == "monomial":
            H_N, H_D = (monomial_basis(x, degree) for degree in self.degrees)
        else:
            H_N, H_D = (chebyshev_basis(x, degree, domain=self.domain) for degree in self.degrees)
        return quotient_slopes(H_N, H_D, self.a, self.b)

    def moved(self, step: Tensor) -> "CoefficientForm":
        a, b = step.to(self.a.dtype).split([len(self.a), len(self.b)])
        return replace(self, a=self.a + a, b=self.b + b)

    def denominator_zeros(self) -> Tensor:
        zeros = polynomial_zeros(self.b, self.basis, self.domain)
        return newton(lambda z: self.tuples(z).D, zeros)

    def numerator_zeros(self) -> Tensor:
        return polynomial_zeros(self.a, self.basis, self.domain)

    def known(self, x: Tensor, degree: int) -> Tensor:
        """Mark points where an interpolant of that degree is known to 1e-8.

        Errors grow as the ellipse through x, with foci at the ends of the domain, to that power.
        """
        low, high = self.domain
        u = (2 * x - low - high) / (high - low)
        root = (u * u - 1).sqrt()
        ellipse = torch.maximum((u + root).abs(), (u - root).abs())
        return degree * ellipse.log() < _DIGITS * math.log(10)


@dataclass(frozen=True, eq=False)
class FactoredForm(Form):
    """N = Σ a_k T_k(x) and D = Π ((x - c_j)² - h_j) · Π (x - r_j), each factor scaled to size 1.

    A quadratic stands for two roots c ± √h that are close or conjugate. Unlike the roots, c and h
    stay smooth functions of the data while the two meet and leave the real line. A pole such as π/8
    is no float: clean data know it beyond the last bit, so c and r carry what rounding cut off.
    """

    a: Tensor  # (p + 1,), real or complex
    c: Tensor  # centres of the pairs, in the units of x
    h: Tensor  # squared half distances of the pairs; below 0: conjugate roots
    r: Tensor  # single roots
    rest: Tensor  # to be added to (c, r), below their last bit
    domain: tuple[float, float]

    @property
    def degrees(self) -> tuple[int, int]:
        return len(self.a) - 1, 2 * len(self.c) + len(self.r)

    def gaps(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return x - c and x - r, `(*batch, pairs)` and `(*batch, singles)`: exact at a root."""
        c_rest, r_rest = self.rest.split([len(self.c), len(self.r)])
        x = x.unsqueeze(-1)
        return (x - self.c) - c_rest, (x - self.r) - r_rest

    def denominator(self, x: Tensor) -> Tensor:
        """Return D; every factor is divided by its size on the domain."""
        by_c, by_r = self.gaps(x)
        middle, half = _scaling(self.domain)
        size = (half + (self.c - middle).abs()).square() + self.h.abs()
        pairs = (by_c.square() - self.h) / size
        return pairs.prod(-1) * (by_r / (half + (self.r - middle).abs())).prod(-1)

    def tuples(self, x: Tensor) -> Pair:
        return Pair(polynomial(x, self.a, "chebyshev", self.domain), self.denominator(x))

    def slopes(self, x: Tensor) -> tuple[Tensor, Tensor]:
        # by the coefficients that D would have: c and h move it within the same space
        H_N, H_D = (chebyshev_basis(x, degree, domain=self.domain) for degree in self.degrees)
        N, D = self.tuples(x)
        return N / D, torch.cat([H_N / D[:, None], -(N / D**2)[:, None] * H_D], 1)

    def denominator_zeros(self) -> Tensor:
        root = self.h.to(torch.complex128).sqrt()
        return torch.cat([self.c - root, self.c + root, self.r.to(torch.complex128)])

    def numerator_zeros(self) -> Tensor:
        return polynomial_zeros(self.a, "chebyshev", self.domain)


@dataclass(frozen=True, eq=False)
class BarycentricForm(Form):
    """f = Σ w_j f_j / (x - z_j) divided by Σ w_j / (x - z_j), which takes the value f_j at z_j."""

    points: Tensor  # z, (m,)
    values: Tensor  # f, (m,)
    weights: Tensor  # w, (m,)

    @classmethod
    def from_aaa(cls, aaa: Any) -> Self:
        """Take over an AAA approximation.

        Args:
            aaa: A `scipy.interpolate.AAA` or its like, with `support_points`, `support_values` and
                `weights`.

        Raises:
            ShapeError: They are not three vectors of one length.

        Examples:
            >>> from scipy.interpolate import AAA
            >>> x = np.linspace(-1, 1, 50)
            >>> len(BarycentricForm.from_aaa(AAA(x, 1 / (x - 2))).points)
            2
        """
        z, f, w = (
            torch.as_tensor(part).clone()
            for part in (aaa.support_points, aaa.support_values, aaa.weights)
        )
        if z.ndim != 1 or z.shape != f.shape or z.shape != w.shape:
            shapes = ", ".join(str(tuple(part.shape)) for part in (z, f, w))
            raise ShapeError(f"points, values and weights must be (m,) each, got {shapes}")
        kinds = (torch.complex128 if part.is_complex() else torch.float64 for part in (z, f, w))
        return cls(*(part.to(kind) for part, kind in zip((z, f, w), kinds, strict=True)))

    def to_aaa(self) -> Callable[[Any], Any]:
        """Return a `scipy.interpolate.AAA`, which evaluates and has `poles()` and the rest.

        scipy has no public way to build one, so this one is made on the support points alone and
        given the weights. Its `clean_up()` would need the data and cannot be used.

        Raises:
            MissingExtraError: scipy 1.15 or later is not installed.

        Examples:
            >>> z = torch.tensor([0.0, 2.0], dtype=torch.float64)
            >>> BarycentricForm(z, z + 1, torch.ones(2, dtype=torch.float64)).to_aaa().poles().real
            array([1.])
        """
        kind = require("scipy.interpolate", extra="sklearn").AAA
        z, f, w = (part.detach().cpu().numpy() for part in (self.points, self.values, self.weights))
        bridge = kind.__new__(kind)
        state = {"_support_points": z, "_support_values": f, "weights": w, "_shape": (), "_axis": 0}
        for name, value in (state | dict.fromkeys(("_poles", "_residues", "_roots"))).items():
            setattr(bridge, name, value)
        return bridge

    @property
    def domain(self) -> tuple[float, float]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Return (low, high) of the support points."""
        return float(self.points.real.min()), float(self.points.real.max())

    @property
    def degrees(self) -> tuple[int, int]:
        return len(self.points) - 1, len(self.points) - 1

    def _ratios(self, x: Tensor) -> Tensor:
        """Return (x - z) / (x - z_j) of the nearest support point z, `(*batch, m)`."""
        gap = x.unsqueeze(-1) - self.points
        nearest = gap.abs().argmin(-1, keepdim=True)
        here = torch.arange(len(self.points), device=x.device) == nearest
        others = torch.where(here | (gap == 0), 1, gap)
        return torch.where(here, 1, gap.gather(-1, nearest) / others)

    def tuples(self, x: Tensor) -> Pair:
        terms = self._ratios(x) * self.weights
        return Pair((terms * self.values).sum(-1), terms.sum(-1))

    def slopes(self, x: Tensor) -> tuple[Tensor, Tensor]:
        H = self._ratios(x)
        return quotient_slopes(H, H, self.weights * self.values, self.weights)

    def denominator_zeros(self) -> Tensor:
        return newton(lambda z: self.tuples(z).D, barycentric_zeros(self.points, self.weights))

    def numerator_zeros(self) -> Tensor:
        return barycentric_zeros(self.points, self.weights * self.values)

    def described(self, name: str) -> str:
        return f"a rational function of {name} in barycentric form, {len(self.points)} points"


@dataclass(frozen=True, eq=False)
class FractionForm(Form):
    """f = Σ r_k / (x - p_k) + Σ a_j T_j(x), all poles simple; D is the factor of the nearest one.

    The poles of a real form come in conjugate pairs, whose factors are taken together.
    """

    p: Tensor  # complex128, (K,)
    r: Tensor  # complex128, (K,)
    a: Tensor  # (d + 1,), real or complex
    domain: tuple[float, float]  # of the Chebyshev polynomials

    @property
    def degrees(self) -> tuple[int, int]:
        return len(self.p) + len(self.a) - 1, len(self.p)

    @property
    def is_real(self) -> bool:
        """Tell by the polynomial: poles are stored as complex numbers always."""
        return not self.a.is_complex()

    def tuples(self, x: Tensor) -> Pair:
        # the sum, multiplied by the factor of the nearest pole, so that nothing overflows there; of
        # a real form that is (x - p)(x - conj p) where p is not real, and the sum stays real
        gap = x.unsqueeze(-1) - self.p
        nearest = gap.abs().argmin(-1, keepdim=True)
        here = torch.arange(len(self.p), device=x.device) == nearest
        own, p = gap.gather(-1, nearest), self.p[nearest]
        paired = self.is_real & (p.imag != 0)
        other = torch.where(paired, x.unsqueeze(-1) - p.conj(), 1)
        ratio = torch.where(here, 1, own / torch.where(here | (gap == 0), 1, gap)) * other
        D = (own * other).squeeze(-1)
        N = (ratio * self.r).sum(-1) + D * polynomial(x, self.a, "chebyshev", self.domain)
        return Pair(N.real, D.real) if self.is_real and not x.is_complex() else Pair(N, D)

    def slopes(self, x: Tensor) -> tuple[Tensor, Tensor]:
        # by residues, poles and polynomial; of a conjugate pair by its two real parts
        N, D = self.tuples(x)
        H = chebyshev_basis(x, len(self.a) - 1, domain=self.domain)
        if not self.is_real:
            C = 1 / (x[:, None] - self.p)
            return N / D, torch.cat([C, self.r * C**2, H.to(C.dtype)], 1)
        line, up = self.p.imag == 0, self.p.imag > 0
        columns = [H]
        for power, r in ((1, torch.ones_like(self.r)), (2, self.r)):
            one, p, c = (x[:, None] - self.p[line].real), self.p[up], r[up]
            above = c / (x[:, None] - p) ** power
            below = c.conj() / (x[:, None] - p.conj()) ** power
            pair = above + below, 1j * (above - below)  # real for real x, analytic in x
            parts = r[line].real / one**power, *pair
            columns += parts if x.is_complex() else [part.real for part in parts]
        dtype = torch.complex128 if x.is_complex() else torch.float64
        return N / D, torch.cat([part.to(dtype) for part in columns], 1)

    def denominator_zeros(self) -> Tensor:
        return self.p

    def numerator_zeros(self) -> Tensor:
        # eigenvalues for the vector (T_0, …, T_{d-1}, 1 / (u - p)): u times each entry is a
        # combination of the others, by the recurrence of Chebyshev polynomials, by
        # u / (u - p) = 1 + p / (u - p), and for the last by f(u) = 0
        middle, half = _scaling(self.domain)
        p, r, a = (self.p - middle) / half, self.r / half, self.a.to(torch.complex128)
        d = len(a) - 1
        if not bool(a.any()):
            return middle + half * barycentric_zeros(p, r)
        if d < 1:
            matrix = torch.diag(p) - r.expand(len(p), -1) / a
        else:
            matrix = torch.block_diag(colleague(a), torch.diag(p))
            matrix[d - 1, d:] = -r / (a[-1] if d == 1 else 2 * a[-1])
            matrix[d:, 0] = 1
        return middle + half * torch.linalg.eigvals(matrix)


@dataclass(frozen=True, eq=False)
class InverseForm(Form):
    """f = Σ c_k (unit / x)^k: a polynomial of 1/x, whose only pole is at 0."""

    c: Tensor  # (p + 1,), real or complex, ascending
    unit: float  # in the units of x
    domain: tuple[float, float]
    judged = True

    @property
    def degrees(self) -> tuple[int, int]:
        return len(self.c) - 1, len(self.c) - 1

    @property
    def free(self) -> int:
        return len(self.c)

    def tuples(self, x: Tensor) -> Pair:
        v = x / self.unit
        return Pair(polynomial(v, self.c.flip(0), "monomial"), v ** (len(self.c) - 1))

    def slopes(self, x: Tensor) -> tuple[Tensor, Tensor]:
        G = monomial_basis(self.unit / x, len(self.c) - 1)
        dtype = torch.promote_types(G.dtype, self.c.dtype)
        return G.to(dtype) @ self.c.to(dtype), G

    def pole_errors(self, L: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        error = torch.linalg.vector_norm(L, dim=1).real.clamp(1e-300)  # of each c
        return 0 * error[:1], self.unit * error[1:2], (self.c.abs() / error)[-1:]

    def moved(self, step: Tensor) -> "InverseForm":
        return replace(self, c=self.c + step.to(self.c.dtype))

    def denominator_zeros(self) -> Tensor:
        return torch.zeros(len(self.c) - 1, dtype=torch.complex128)

    def numerator_zeros(self) -> Tensor:
        # of 1/x first: its highest power counts, while c_0 may be rounding
        zeros = polynomial_zeros(self.c, "monomial")
        return self.unit / zeros[zeros != 0]

    def described(self, name: str) -> str:
        return f"a polynomial of degree {len(self.c) - 1} in 1/{name}"


class PlainForm(Form):
    """A curve of t(x), t = x or log x, with a constant D: neither poles nor zeros told from them.

    Attributes:
        log: Is t = log x?
    """

    log: bool

    @property
    def degrees(self) -> tuple[int, int]:
        """Return (0, 0): it is no rational function."""
        return 0, 0

    def axis(self, x: Tensor) -> Tensor:
        """Return t(x)."""
        return torch.log(x) if self.log else x

    def denominator_zeros(self) -> Tensor:
        return torch.zeros(0, dtype=torch.complex128)

    def numerator_zeros(self) -> Tensor:
        """Return none: it has one on the line at most, which no pole is to be told from."""
        return torch.zeros(0, dtype=torch.complex128)


@dataclass(frozen=True, eq=False)
class ExponentialForm(PlainForm):
    """f = a + b exp(rate (t(x) - start)), t = x or log x, then a power law; D is constant."""

    a: Tensor  # each of them `()`
    b: Tensor
    rate: Tensor
    start: Tensor
    log: bool
    domain: tuple[float, float]

    @property
    def free(self) -> int:
        return 3

    def tuples(self, x: Tensor) -> Pair:
        t = self.axis(x) - self.start
        N = self.a + self.b * torch.exp(self.rate * t)
        return Pair(N, torch.ones_like(N))

    def slopes(self, x: Tensor) -> tuple[Tensor, Tensor]:
        t = self.axis(x) - self.start
        z = torch.exp(self.rate * t)
        return self.tuples(x).N, torch.stack([torch.ones_like(z), z, self.b * t * z], 1)

    def moved(self, step: Tensor) -> "ExponentialForm":
        return replace(self, a=self.a + step[0], b=self.b + step[1], rate=self.rate + step[2])

    def divergence(self, name: str) -> str:
        if not self.log or self.rate >= 0:
            return ""
        return f"Beyond the data, at {name} = 0, like {name}^{float(self.rate):.4g}."

    def described(self, name: str) -> str:
        rate = f"k = {float(self.rate):.4g}"
        if self.log:
            return f"a + b {name}^k, a power law, with {rate}"
        return f"a + b exp(k {name}), an exponential, with {rate}"


@dataclass(frozen=True, eq=False)
class SigmoidForm(PlainForm):
    """f = low + (high - low) / (1 + exp(-slope (t(x) - middle))), t = x or log x; D is constant."""

    low: Tensor  # each of them `()`
    high: Tensor
    slope: Tensor
    middle: Tensor
    log: bool
    domain: tuple[float, float]

    @property
    def free(self) -> int:
        return 4

    def tuples(self, x: Tensor) -> Pair:
        step = torch.sigmoid(self.slope * (self.axis(x) - self.middle))
        return Pair(self.low * (1 - step) + self.high * step, torch.ones_like(step))

    def slopes(self, x: Tensor) -> tuple[Tensor, Tensor]:
        t = self.axis(x) - self.middle
        z = torch.sigmoid(self.slope * t)
        k = (self.high - self.low) * z * (1 - z)
        return self.tuples(x).N, torch.stack([1 - z, z, k * t, -k * self.slope], 1)

    def moved(self, step: Tensor) -> "SigmoidForm":
        now = (self.low, self.high, self.slope, self.middle)
        low, high, slope, middle = (part + d for part, d in zip(now, step, strict=True))
        return replace(self, low=low, high=high, slope=slope, middle=middle)

    def described(self, name: str) -> str:
        t = f"log({name})" if self.log else name
        return (
            f"a + (b - a) / (1 + exp(-h ({t} - c))), a sigmoid, with c = {float(self.middle):.6g} "
            f"and h = {float(self.slope):.4g}"
        )


@dataclass(frozen=True, eq=False)
class ConjugateForm(Form):
    """f = Σ r / (s - p) + Σ (a (s - c) + g) / ((s - c)² + h) + d + e s at s = ix, all real.

    Poles in s are real or come in conjugate pairs; f at x is complex, and poles are given in s.
    With a part, f is a real function of x, H even in s for a real part and odd for an imaginary
    one, and so are its poles, which are given in x.
    """

    real: Tensor  # p
    centre: Tensor  # c
    square: Tensor  # h
    c: Tensor  # r, a, g, d, and e if there is a linear term
    domain: tuple[float, float]
    part: str = ""  # "real" or "imaginary": f is H(ix), or -i H(ix), which is real
    judged = True

    @property
    def degrees(self) -> tuple[int, int]:
        return len(self.c) - 1, len(self.real) + 2 * len(self.centre)

    @property
    def _function(self) -> System:
        parts = (part.numpy()[None] for part in (self.real, self.centre, self.square))
        return System(Poles(*parts), self.c.numpy()[:, None])

    def system(self) -> System | None:
        return None if self.part else self._function

    def _told(self, value: Any, x: Tensor) -> Tensor:
        """Return f, or how it moves, for values of H(ix)."""
        f = torch.from_numpy(-1j * value if self.part == "imaginary" else value)
        return f.real.contiguous() if self.part and not x.is_complex() else f

    def tuples(self, x: Tensor) -> Pair:
        value = self._told(self._function(x.detach().numpy())[:, 0], x)
        size = 1 + value.abs()  # keeps N and D finite at a pole on the line
        bottom = ~torch.isfinite(size)
        N = torch.where(bottom, 1, value / size)
        return Pair(N, torch.where(bottom & ~x.isnan(), 0, 1 / size).to(N.dtype))

    def slopes(self, x: Tensor) -> tuple[Tensor, Tensor]:
        function, at = self._function, x.numpy()
        moves, own = function.slopes(at)
        G = np.concatenate([moves[0], own], 1)
        return self._told(function(at)[:, 0], x), self._told(G, x)

    def denominator_zeros(self) -> Tensor:
        places = torch.from_numpy(self._function.poles.places()[0])
        return -1j * places if self.part else places

    def numerator_zeros(self) -> Tensor:
        zeros = torch.from_numpy(self._function.zeros())
        return -1j * zeros if self.part else zeros

    def pole_table(
        self, *, resolution: float = RESOLUTION, tolerance: float = TOLERANCE
    ) -> PoleTable:
        """Return all poles; the race has judged them, so neither option counts."""
        positive(resolution, "resolution")
        positive(tolerance, "tolerance")
        p, residue, strength, multiplicity = map(torch.from_numpy, self._function.table())
        if self.part:  # from s = ix to x
            p, turn = -1j * p, -1j if self.part == "imaginary" else 1
            residue, strength = -1j * turn * residue, (-1j) ** multiplicity * turn * strength
        p = torch.complex(p.real + 0.0, p.imag)
        none = torch.zeros(len(p), dtype=torch.bool)
        order = torch.from_numpy(np.lexsort((p.imag, p.real)))
        return PoleTable(p, residue, strength, multiplicity, none).at(order)

    def described(self, name: str) -> str:
        k = self.degrees[1] // (2 if self.part else 1)  # a part has their mirror images too
        tail = (
            ", a constant and a term linear in s"
            if len(self.c) > self.degrees[1] + 1
            else " and a constant"
        )
        poles = f"{k} pole{'s' * (k != 1)}{tail}"
        part = f"the {self.part} part of " if self.part else ""
        return f"{part}the response of a real system at s = i {name}: {poles}"


def quotient_slopes(H_N: Tensor, H_D: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return N / D with N = H_N a and D = H_D b, and its slopes [H_N / D, -N H_D / D²]."""
    dtype = torch.promote_types(torch.promote_types(H_N.dtype, H_D.dtype), a.dtype)
    H_N, H_D, a, b = (part.to(dtype) for part in (H_N, H_D, a, b))
    N, D = H_N @ a, H_D @ b
    return N / D, torch.cat([H_N / D[:, None], -(N / D**2)[:, None] * H_D], 1)


def _scaling(domain: tuple[float, float]) -> tuple[float, float]:
    """Return middle and half width."""
    low, high = domain
    return (low + high) / 2, (high - low) / 2


def interpolated(model: Callable[[Tensor], Pair], domain: Sequence[float]) -> CoefficientForm:
    """Return Chebyshev interpolants of N and D on [low, high], long enough for both.

    They are doubled until their last coefficients are rounding, and cut there; 513 at most.

    Args:
        model: Takes `(n,)` in float64 and returns N and D, both `(n,)`.
        domain: (low, high), in the units of x.

    Raises:
        RangeError: `domain` is no interval.
        ShapeError: The model does not return one value per point.
    """
    domain = checked_domain(domain)
    middle, half = _scaling(domain)
    a = b = torch.zeros(1, dtype=torch.float64)
    for size in (17, 33, 65, 129, 257, 513):
        angle = (torch.arange(size, dtype=torch.float64) + 0.5) * torch.pi / size
        x = middle + half * torch.cos(angle)
        with torch.no_grad():
            N, D = model(x)
        for part in (N, D):
            if part.shape != x.shape:
                raise ShapeError(
                    f"N and D must have one value per point, ({len(x)},), got {tuple(part.shape)}"
                )
        T = torch.cos(angle[:, None] * torch.arange(size)).to(N.dtype) * 2 / size
        T[:, 0] /= 2
        (a, fine), (b, also) = (_cut(T.mT @ part) for part in (N, D))
        if fine and also:
            break
    return CoefficientForm(a, b, "chebyshev", domain)


def _cut(c: Tensor) -> tuple[Tensor, bool]:
    """Return coefficients down to rounding, and tell whether there are enough of them."""
    kept = (c.abs() > _ROUNDING * c.abs().max()).nonzero()
    size = int(kept[-1]) + 1 if len(kept) else 1
    return c[:size], size < 0.8 * len(c)


def interval_poles(
    model: Callable[[Tensor], Pair],
    domain: Sequence[float],
    *,
    resolution: float = RESOLUTION,
    tolerance: float = TOLERANCE,
) -> PoleTable:
    """Find the poles of a model near [low, high]: random features, a network, anything with a D.

    They are those of the quotient of the Chebyshev interpolants of N and D: zeros of D are
    eigenvalues of its colleague matrix. Complex ones are listed where the interpolant is known to
    1e-8 still, inside an ellipse around the interval; a D with kinks has real ones alone.

    Args:
        model: Takes `(n,)` in float64 and returns N and D, both `(n,)`.
        domain: (low, high), in the units of x.
        resolution: In half widths; nearer zeros of D are one double pole.
        tolerance: A pole is spurious when its strength, over the median of |f| and the half width,
            does not exceed this.

    Raises:
        RangeError: `domain` is no interval, or a number is out of range.
        ShapeError: The model does not return one value per point.

    Examples:
        >>> table = interval_poles(lambda x: Pair(2 + x, torch.sin(x)), (-1, 1))
        >>> table.position.real.round(decimals=9) + 0.0, table.residue.real.round(decimals=9)
        (tensor([0.], dtype=torch.float64), tensor([2.], dtype=torch.float64))
    """
    form = interpolated(model, domain)
    table = form.pole_table(resolution=resolution, tolerance=tolerance)
    return table.at(form.known(table.position, form.degrees[1]))
