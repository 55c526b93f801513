"""Poles as numbers: zeros of denominators, what is known of a pole, curves of poles.

The forms of `zeroproof.solve.forms` list theirs by what is here: eigenvalues for zeros, nearby ones
taken together, Laurent coefficients by integrals around them.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zeroproof._checks import one_of, whole
from zeroproof._extras import require
from zeroproof.errors import ShapeError
from zeroproof.layers.basis import BASES, checked_domain

__all__ = [
    "RESOLUTION",
    "TOLERANCE",
    "PoleTable",
    "barycentric_zeros",
    "clustered",
    "colleague",
    "laurent",
    "newton",
    "on_interval",
    "pole_curve",
    "polynomial_zeros",
    "rounded",
    "with_error",
]

RESOLUTION = 1e-6  # of the half width: roots of D nearer than this are one multiple pole
TOLERANCE = 1e-9  # strength below which a pole is spurious, over typical value and half width
_NODES = 64  # of the circle around a pole; two poles apart, the rule errs by 2⁻⁶⁴


class PoleTable(NamedTuple):
    """The distinct poles, sorted by real part."""

    position: Tensor  # complex128, in the units of x
    residue: Tensor  # complex128, the coefficient of 1 / (x - p), in the units of y times x
    strength: Tensor  # complex128, the coefficient of 1 / (x - p)^multiplicity
    multiplicity: Tensor  # int64
    spurious: Tensor  # bool
    # of poles of a fit to data, float64: standard errors, and how clear of 0 the strength is
    position_se: Tensor | None = None
    residue_se: Tensor | None = None
    significance: Tensor | None = None
    inside: Tensor | None = None  # bool: real, and among the data
    # float64: y grows as |x - p|^-exponent; half the multiplicity for a fit to y², nan for log y
    exponent: Tensor | None = None

    def at(self, index: Tensor) -> "PoleTable":
        """Return the poles `index`."""
        return PoleTable(*(None if part is None else part[index] for part in self))  # pyright: ignore

    def __repr__(self) -> str:
        """Return one line for each pole that fits a screen, to the second digit of each error."""
        return self._text(short=True)

    def __str__(self) -> str:
        """Return one line for each pole, all digits, real and imaginary parts in their columns."""
        return self._text(short=False)

    def _text(self, *, short: bool) -> str:
        data = self.columns()
        lines: list[tuple[str, ...]] = [
            ("position", "imaginary", "± error", "residue", "imaginary", "± error", "multiplicity",
             "significance", "where"),
        ]  # fmt: skip
        for x, x_imag, p_se, r, r_imag, r_se, m, clear, on_data, spurious in zip(
            *data.values(), strict=True
        ):
            own, its, clear_of = ("" if math.isnan(e) else f"{e:.2g}" for e in (p_se, r_se, clear))
            where = "" if on_data is None else "on the data" if on_data else "off the data"
            where += ", spurious" if spurious else ""
            digits = [repr(part + 0.0) for part in (x, x_imag, r, r_imag)]
            if short:
                pairs = (complex(x, x_imag), p_se), (complex(r, r_imag), r_se)
                place, size = (with_error(*pair).split(" ± ")[0] for pair in pairs)
                digits = [place, "", size, ""]
            lines.append((*digits[:2], own, *digits[2:], its, str(m), clear_of, where))
        if short:
            lines = [(x, own, r, its, m, *rest) for x, _, own, r, _, its, m, *rest in lines]
        wide = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join(
            "  ".join(cell.ljust(w) for cell, w in zip(line, wide, strict=True)).rstrip()
            for line in lines
        )

    def columns(self) -> dict[str, list[Any]]:
        """Return all digits by name: real and imaginary parts, nan for an error not known."""
        unknown = [math.nan] * len(self.position)
        errors = [self.position_se, self.residue_se, self.significance]
        p_se, r_se, clear = (unknown if each is None else each.tolist() for each in errors)
        return {
            "position": self.position.real.tolist(),
            "position_imag": self.position.imag.tolist(),
            "position_se": p_se,
            "residue": self.residue.real.tolist(),
            "residue_imag": self.residue.imag.tolist(),
            "residue_se": r_se,
            "multiplicity": self.multiplicity.tolist(),
            "significance": clear,
            "on_data": [None] * len(unknown) if self.inside is None else self.inside.tolist(),
            "spurious": self.spurious.tolist(),
        }

    def to_pandas(self) -> Any:
        """Return a `pandas.DataFrame` of `columns`, a row for each pole."""
        return require("pandas", extra="data").DataFrame(self.columns())


def rounded(value: float, se: float, most: int = 15) -> str:
    """Return a number ± its standard error, to the second digit of that."""
    if not math.isfinite(se):
        return f"{value:.3g}"
    if se <= 0 or value == 0:
        return f"{value:.3g} ± {se:.2g}"
    digits = math.floor(math.log10(abs(value))) - math.floor(math.log10(se)) + 2
    return f"{value:.{min(max(digits, 1), most)}g} ± {se:.2g}"


def with_error(z: complex, se: float) -> str:
    """Return a complex number ± its standard error; 10 digits where that is not known.

    Examples:
        >>> with_error(0.30000123 + 0.1j, 0.00021)
        '0.3 + 0.1i ± 0.00021'
    """
    small, sign = abs(z.imag) <= 1e-12 * abs(z.real), "-" if z.imag < 0 else "+"
    if not math.isfinite(se) or se <= 0:
        return f"{z.real:.10g}" if small else f"{z.real:.10g} {sign} {abs(z.imag):.6g}i"
    if small:
        return rounded(z.real, se)
    real, imag = (rounded(part, se).split(" ")[0] for part in (z.real, abs(z.imag)))
    return f"{real} {sign} {imag}i ± {se:.2g}"


def on_interval(position: Tensor, low: float, high: float) -> Tensor:
    """Return the real parts of the poles that lie on [low, high], as float64.

    Examples:
        >>> on_interval(torch.tensor([0.5 + 0j, 0.5 + 0.1j, 3 + 0j]), -1, 1)
        tensor([0.5000])
    """
    return position.real[(position.imag == 0) & (position.real >= low) & (position.real <= high)]


def newton(D: Callable[[Tensor], Tensor], zeros: Tensor) -> Tensor:
    """Take Newton steps from the zeros where they lower |D|."""
    for _ in range(3 if len(zeros) else 0):
        z = zeros.detach().requires_grad_()
        value = D(z)
        # for an analytic function autograd gives the conjugate of the derivative
        slope = torch.autograd.grad(value.real.sum(), z)[0].conj()
        step = value.detach() / torch.where(slope == 0, 1, slope)
        # next to a second zero Newton's step means nothing
        step = torch.where((slope == 0) | (step.abs() > 1e-3 * _separation(zeros)), 0, step)
        moved = zeros - step
        zeros = torch.where(D(moved).abs() < value.detach().abs(), moved, zeros)
    return zeros


def _separation(zeros: Tensor) -> Tensor:
    """Return the distance of each to its nearest neighbour; inf for a single one."""
    if len(zeros) < 2:
        return torch.full((len(zeros),), torch.inf, dtype=torch.float64)
    gap = (zeros[:, None] - zeros).abs()
    return gap.fill_diagonal_(torch.inf).amin(1)


def clustered(
    zeros: Tensor, middle: float, half: float, resolution: float, real: bool
) -> tuple[Tensor, Tensor]:
    """Return (means, sizes) of the groups of zeros within the resolution of each other."""
    left, means, sizes = zeros.tolist(), [], []
    while left:
        group = [left.pop()]
        reach = resolution * max(half, abs(group[0] - middle))
        for member in group:  # grows while it is read: nearness is passed on
            near = [z for z in left if abs(z - member) <= reach]
            left = [z for z in left if z not in near]
            group += near
        mean = sum(group) / len(group)
        if real and len(group) > 1 and abs(mean.imag) <= reach:
            mean = complex(mean.real, 0.0)
        means.append(mean)
        sizes.append(len(group))
    return torch.tensor(means, dtype=torch.complex128), torch.tensor(sizes, dtype=torch.int64)


def laurent(
    f: Callable[[Tensor], Tensor], position: Tensor, multiplicity: Tensor, half: float
) -> tuple[Tensor, Tensor]:
    """Return the coefficients of order -1 and -multiplicity, by the trapezoidal rule on circles."""
    radius = _separation(position).clamp(max=half) / 2
    turn = torch.exp(2j * torch.pi * torch.arange(_NODES, dtype=torch.float64) / _NODES)
    ray = radius[:, None] * turn
    values = f(position[:, None] + ray)
    return (values * ray).mean(1), (values * ray ** multiplicity[:, None]).mean(1)


def polynomial_zeros(
    coefficients: Tensor, basis: str = "chebyshev", domain: tuple[float, float] = (-1.0, 1.0)
) -> Tensor:
    """Return all zeros of Σ c_k B_k(x), repeated by multiplicity, in the units of x.

    They are the eigenvalues of the colleague matrix of Good (1961) for Chebyshev polynomials and of
    the companion matrix for monomials. Leading coefficients below rounding are dropped: their zeros
    lie at infinity for every purpose.

    Args:
        coefficients: c, `(degree + 1,)`, ascending, real or complex.
        basis: `"chebyshev"` or `"monomial"`.
        domain: (low, high) of the Chebyshev polynomials.

    Returns:
        complex128, `(degree,)` at most; conjugate pairs are exact for real coefficients.

    Raises:
        RangeError: An unknown basis, or `domain` is no interval.

    Examples:
        >>> polynomial_zeros(torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)).abs()
        tensor([0., 0.], dtype=torch.float64)
    """
    one_of(basis, BASES, "basis")
    low, high = checked_domain(domain)
    c = coefficients.detach()
    c = c.to(torch.complex128 if c.is_complex() else torch.float64)
    size = c.abs()
    kept = (size > size.max() * torch.finfo(torch.float64).eps / 4).nonzero()
    degree = int(kept[-1]) if len(kept) else 0
    c = c[: degree + 1]
    if degree == 0:
        return torch.zeros(0, dtype=torch.complex128)
    matrix = _companion(c) if basis == "monomial" else colleague(c)
    t = torch.linalg.eigvals(matrix)
    return t if basis == "monomial" else (low + high) / 2 + (high - low) / 2 * t


def _companion(c: Tensor) -> Tensor:
    matrix = torch.diag(torch.ones(len(c) - 2, dtype=c.dtype), 1)
    matrix[-1] = -c[:-1] / c[-1]
    return matrix


def colleague(c: Tensor) -> Tensor:
    """Return the matrix whose eigenvalues are the zeros of Σ c_k T_k."""
    d = len(c) - 1
    half = torch.full((d - 1,), 0.5, dtype=c.dtype)
    matrix = torch.diag(half, 1) + torch.diag(half, -1)
    if d > 1:
        matrix[0, 1] = 1
        matrix[-1] = matrix[-1] - c[:-1] / (2 * c[-1])
    else:
        matrix[0, 0] = -c[0] / c[1]
    return matrix


def barycentric_zeros(points: Tensor, weights: Tensor) -> Tensor:
    """Return the zeros of Σ w_j / (x - z_j), at most m - 1 of them.

    With v_j = 1 / (λ - z_j) a zero λ means w·v = 0 and (z_j - λ) v_j alike for all j: an eigenvalue
    of the pencil between the two complements, of ordinary size. It is shifted to a point that is no
    zero and inverted, since zeros at infinity are allowed; those beyond 10⁶ widths count as such.

    Args:
        points: z, `(m,)`, real or complex.
        weights: w, `(m,)`; for the zeros of f pass w_j f_j.

    Returns:
        complex128, repeated by multiplicity.

    Examples:
        >>> z, w = torch.tensor([0.0, 2.0], dtype=torch.float64), torch.ones(2, dtype=torch.float64)
        >>> barycentric_zeros(z, w).real.round(decimals=12)
        tensor([1.], dtype=torch.float64)
    """
    dtype = torch.promote_types(points.dtype, weights.dtype)
    z, w = points.detach().to(dtype), weights.detach().to(dtype)
    if len(z) < 2:
        return torch.zeros(0, dtype=torch.complex128)
    right = torch.linalg.qr(w.conj()[:, None], mode="complete")[0][:, 1:]
    left = torch.linalg.qr(torch.ones_like(w)[:, None], mode="complete")[0][:, 1:].mH
    shift = _far_from_zeros(z, w)
    shifted = left @ ((z - shift)[:, None] * right)
    nu = torch.linalg.eigvals(torch.linalg.solve(shifted, left @ right))
    far = nu.abs() * (z - shift).abs().max() < 1e-6
    return shift + 1 / nu[~far]


def _far_from_zeros(z: Tensor, w: Tensor) -> Tensor:
    low, high = z.real.min(), z.real.max()
    guess = low + (high - low) * torch.linspace(-0.1, 1.1, 25, dtype=z.real.dtype)
    terms = w / (guess[:, None].to(z.dtype) - z + 1e-9 * (high - low))
    clear = terms.sum(1).abs() / terms.abs().sum(1)
    return guess[clear.argmax()].to(z.dtype)


def pole_curve(
    D: Callable[[Tensor], Tensor],
    domain: Sequence[Sequence[float]],
    *,
    points: int = 201,
    steps: int = 4,
) -> list[Tensor]:
    """Trace D = 0 in a rectangle: marching squares on a grid, then Newton steps across the curve.

    Args:
        D: Takes `(n, 2)` in float64 and returns `(n,)`, differentiable by autograd.
        domain: ((low, high), (low, high)) of the two inputs, in their units.
        points: Grid points per side. A loop inside one cell, or a curve along which D touches 0
            without changing sign, is not seen.
        steps: Newton steps, each along the gradient with the inputs scaled to the rectangle. A
            vertex that does not get nearer to D = 0 stays on the grid's curve.

    Returns:
        One tensor `(k, 2)` per connected line, in the order along it; closed lines repeat their
        first vertex. Empty where D keeps its sign.

    Raises:
        RangeError: `domain` holds no two intervals, or `points` or `steps` is too small.
        ShapeError: D does not return one value per point.
        MissingExtraError: contourpy, which comes with matplotlib, is not installed.

    Examples:
        >>> (circle,) = pole_curve(lambda x: x.square().sum(1) - 1, ((-2, 2), (-2, 2)), points=21)
        >>> bool((torch.linalg.vector_norm(circle, dim=1) - 1).abs().max() < 1e-12)
        True
    """
    whole(points, "points", low=2)
    whole(steps, "steps")
    first, second = (checked_domain(side) for side in domain)
    x1, x2 = (torch.linspace(*side, points, dtype=torch.float64) for side in (first, second))
    grid = torch.cartesian_prod(x1, x2)
    with torch.no_grad():
        values = D(grid)
    if values.shape != (points * points,):
        raise ShapeError(
            f"D must have one value per point, ({points * points},), got {tuple(values.shape)}"
        )
    lines = require("contourpy", extra="plots").contour_generator(
        x1.numpy(), x2.numpy(), values.reshape(points, points).T.numpy()
    )
    width = torch.tensor([high - low for low, high in (first, second)], dtype=torch.float64)
    found = (torch.from_numpy(line) for line in lines.lines(0.0))
    return [_onto(D, line, width, steps) for line in found]


def _onto(D: Callable[[Tensor], Tensor], x: Tensor, width: Tensor, steps: int) -> Tensor:
    """Move the vertices onto D = 0."""
    value, slope = _with_slope(D, x)
    for _ in range(steps):
        scaled = slope * width
        length = scaled.square().sum(1, keepdim=True)
        step = width * scaled * value[:, None] / torch.where(length == 0, 1, length)
        moved = x - step
        ahead, turned = _with_slope(D, moved)
        better = ahead.abs() < value.abs()
        x, slope = (torch.where(better[:, None], b, a) for a, b in ((x, moved), (slope, turned)))
        value = torch.where(better, ahead, value)
    return x


def _with_slope(f: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        value = f(x)
        if value.shape != x.shape[:1]:
            raise ShapeError(
                f"D must have one value per point, ({len(x)},), got {tuple(value.shape)}"
            )
        if not value.requires_grad:
            return value.detach(), torch.zeros_like(x)
        slope = torch.autograd.grad(value.sum(), x, allow_unused=True)[0]
    return value.detach(), torch.zeros_like(x) if slope is None else slope
