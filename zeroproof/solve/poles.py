"""Poles, residues and roots of a rational form; spurious pairs are told and taken out."""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from zeroproof._checks import one_of, positive
from zeroproof.layers.basis import BASES, checked_domain
from zeroproof.projective.gauge import target_scale
from zeroproof.solve.aaa import refit_weights
from zeroproof.solve.factored import fit_factored
from zeroproof.solve.forms import (
    BarycentricForm,
    CoefficientForm,
    ConjugateForm,
    FactoredForm,
    Form,
    FractionForm,
    SigmoidForm,
    basis_of,
    evaluate,
    predict,
    span,
)
from zeroproof.solve.table import Table, checked_table

__all__ = [
    "PoleTable",
    "barycentric_zeros",
    "clean_up",
    "on_interval",
    "pole_table",
    "poles",
    "polynomial_zeros",
    "residues",
    "roots",
]

RESOLUTION = 1e-6  # of the half width: roots of D nearer than this are one multiple pole
TOLERANCE = 1e-9  # strength below which a pole is spurious, over typical value and half width
NODES = 64  # of the circle around a pole; two poles apart, the rule errs by 2⁻⁶⁴


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

    def __str__(self) -> str:
        """Return one line for each pole, all digits, real and imaginary parts in their columns."""
        return _text(self)


def pole_table(
    form: Form, *, resolution: float = RESOLUTION, tolerance: float = TOLERANCE
) -> PoleTable:
    r"""Find all poles of a form with what there is to know about each.

    Zeros of D closer than `resolution` are one pole of that multiplicity at their mean: rounding
    splits a double zero of D by the root of its own size, yet keeps the mean. Residue and strength
    are integrals over a circle around the pole alone. A pole is spurious (a Froissart pair: a zero
    of N cancels it) when its strength is below `tolerance` for a function of this size, or a zero
    of N lies as near.

    Args:
        form: Any form.
        resolution: In half widths of the domain; take about the root of the relative noise.
        tolerance: Relative to the median of \|f\| on the domain and its half width; raise it for
            noisy data.

    Raises:
        RangeError: `resolution` or `tolerance` is not above 0.

    Examples:
        >>> form = CoefficientForm(
        ...     torch.tensor([3.0]), torch.tensor([-0.5, 1.0]), "monomial", (-1, 1)
        ... )
        >>> table = pole_table(form)
        >>> table.position.real, table.residue.real, table.multiplicity
        (tensor([0.5000], dtype=torch.float64), tensor([3.], dtype=torch.float64), tensor([1]))
    """
    positive(resolution, "resolution")
    positive(tolerance, "tolerance")
    if isinstance(form, SigmoidForm):
        none = torch.zeros(0, dtype=torch.complex128)
        return PoleTable(none, none, none, none.real.long(), none.real.bool())
    if isinstance(form, ConjugateForm):  # its race has judged its poles
        p, residue, strength, multiplicity = map(torch.from_numpy, form.system().table())
        if form.part:  # from s = ix to x
            p, turn = -1j * p, -1j if form.part == "imaginary" else 1
            residue, strength = -1j * turn * residue, (-1j) ** multiplicity * turn * strength
        p = torch.complex(p.real + 0.0, p.imag)
        order = torch.from_numpy(np.lexsort((p.imag, p.real)))
        none = torch.zeros(len(p), dtype=torch.bool)
        return PoleTable(p[order], residue[order], strength[order], multiplicity[order], none)
    low, high = span(form)
    half = (high - low) / 2
    zeros = _improved(form, denominator_zeros(form))
    position, multiplicity = _clustered(zeros, (low + high) / 2, half, resolution, is_real(form))
    order = (position.real + 1e-12 * position.imag).argsort()
    position, multiplicity = position[order], multiplicity[order]
    residue, strength = _laurent(form, position, multiplicity, half)
    if is_real(form):  # so are the coefficients at a real pole, but for rounding
        on_line = position.imag == 0
        residue, strength = (torch.where(on_line, z.real + 0j, z) for z in (residue, strength))
    nodes = (low + high) / 2 + half * torch.cos(torch.arange(1, 128, 2) * torch.pi / 128)
    sizes = predict(form, nodes.to(torch.float64)).abs()
    typical = sizes[torch.isfinite(sizes)].median()
    far = torch.maximum((position - (low + high) / 2).abs() / half, torch.ones(()))
    weak = strength.abs() <= tolerance * typical * (half * far) ** multiplicity
    near = numerator_zeros(form)
    gap = (position[:, None] - near).abs()
    nearest = gap.amin(1) if len(near) else torch.full_like(half * far, torch.inf)
    return PoleTable(
        position, residue, strength, multiplicity, weak | (nearest <= tolerance * half * far)
    )


def poles(
    form: Form,
    *,
    spurious: bool = False,
    resolution: float = RESOLUTION,
    tolerance: float = TOLERANCE,
) -> Tensor:
    """Return the distinct poles, sorted by real part; a multiple pole is listed once.

    Those on the real line have imaginary part 0 where the form is real.

    Args:
        form: Any form.
        spurious: True: give the spurious ones too.
        resolution: See `pole_table`.
        tolerance: See `pole_table`.

    Returns:
        complex128, in the units of x.

    Raises:
        RangeError: `resolution` or `tolerance` is not above 0.

    Examples:
        >>> one, b = torch.ones(1), torch.tensor([-0.25, 0.0, 1.0])
        >>> poles(CoefficientForm(one, b, "monomial", (-1, 1))).real
        tensor([-0.5000,  0.5000], dtype=torch.float64)
    """
    table = pole_table(form, resolution=resolution, tolerance=tolerance)
    return table.position[spurious | ~table.spurious]


def residues(
    form: Form,
    *,
    spurious: bool = False,
    resolution: float = RESOLUTION,
    tolerance: float = TOLERANCE,
) -> Tensor:
    """Return the coefficients of 1 / (x - p), in the order of `poles`, complex128.

    That of 1 / (x - p)² is in `pole_table(form).strength`.

    Args:
        form: Any form.
        spurious: True: give those of the spurious poles too.
        resolution: See `pole_table`.
        tolerance: See `pole_table`.

    Raises:
        RangeError: `resolution` or `tolerance` is not above 0.

    Examples:
        >>> one, b = torch.ones(1), torch.tensor([-0.25, 0.0, 1.0])
        >>> residues(CoefficientForm(one, b, "monomial", (-1, 1))).real
        tensor([-1.,  1.], dtype=torch.float64)
    """
    table = pole_table(form, resolution=resolution, tolerance=tolerance)
    return table.residue[spurious | ~table.spurious]


def roots(form: Form, *, spurious: bool = False, tolerance: float = TOLERANCE) -> Tensor:
    """Return the zeros of N, repeated by multiplicity and sorted by real part, complex128.

    The partner of a spurious pole is left out with it.

    Args:
        form: Any form.
        spurious: True: give those partners too.
        tolerance: See `pole_table`.

    Raises:
        RangeError: `tolerance` is not above 0.

    Examples:
        >>> a, b = torch.tensor([-0.5, 1.0]), torch.tensor([2.0, 1.0])
        >>> roots(CoefficientForm(a, b, "monomial", (-1, 1))).real
        tensor([0.5000], dtype=torch.float64)
    """
    zeros = numerator_zeros(form)
    zeros = zeros[(zeros.real + 1e-12 * zeros.imag).argsort()]
    if spurious or not len(zeros):
        return zeros
    table = pole_table(form, tolerance=tolerance)
    kept = torch.ones(len(zeros), dtype=torch.bool)
    for pole in table.position[table.spurious]:
        left = torch.where(kept, (zeros - pole).abs(), torch.inf)
        kept[left.argmin()] = False
    return zeros[kept]


def on_interval(position: Tensor, low: float, high: float) -> Tensor:
    """Return the real parts of the poles that lie on [low, high], as float64.

    Examples:
        >>> on_interval(torch.tensor([0.5 + 0j, 0.5 + 0.1j, 3 + 0j]), -1, 1)
        tensor([0.5000])
    """
    return position.real[(position.imag == 0) & (position.real >= low) & (position.real <= high)]


def denominator_zeros(form: Form) -> Tensor:
    """Return the zeros of D, repeated by multiplicity."""
    if isinstance(form, SigmoidForm):
        return torch.zeros(0, dtype=torch.complex128)
    if isinstance(form, BarycentricForm):
        return barycentric_zeros(form.points, form.weights)
    if isinstance(form, FractionForm):
        return form.poles
    if isinstance(form, CoefficientForm):
        return polynomial_zeros(form.b, form.basis, form.domain)
    if isinstance(form, ConjugateForm):
        places = torch.from_numpy(form.system().poles.places()[0])
        return -1j * places if form.part else places
    root = form.h.to(torch.complex128).sqrt()
    return torch.cat([form.c - root, form.c + root, form.r.to(torch.complex128)])


def numerator_zeros(form: Form) -> Tensor:
    """Return the zeros of N, repeated by multiplicity."""
    if isinstance(form, SigmoidForm):  # beyond the larger end it has none on the line
        return torch.zeros(0, dtype=torch.complex128)
    if isinstance(form, BarycentricForm):
        return barycentric_zeros(form.points, form.weights * form.values)
    if isinstance(form, ConjugateForm):
        zeros = torch.from_numpy(form.system().zeros())
        return -1j * zeros if form.part else zeros
    if isinstance(form, FractionForm):
        return _fraction_zeros(form)
    basis = form.basis if isinstance(form, CoefficientForm) else "chebyshev"
    return polynomial_zeros(form.a, basis, form.domain)


def _fraction_zeros(form: FractionForm) -> Tensor:
    """Return the zeros of a sum: eigenvalues for the vector (T_0, …, T_{d-1}, 1 / (u - p)).

    u times each entry is a combination of the others: by the recurrence of Chebyshev polynomials,
    by u / (u - p) = 1 + p / (u - p), and for the last by f(u) = 0.
    """
    low, high = form.domain
    middle, half = (low + high) / 2, (high - low) / 2
    p, r, a = (form.poles - middle) / half, form.residues / half, form.a.to(torch.complex128)
    d = len(a) - 1
    if not bool(a.any()):
        return middle + half * barycentric_zeros(p, r)
    if d < 1:
        matrix = torch.diag(p) - r.expand(len(p), -1) / a
    else:
        matrix = torch.block_diag(_colleague(a), torch.diag(p))
        matrix[d - 1, d:] = -r / (a[-1] if d == 1 else 2 * a[-1])
        matrix[d:, 0] = 1
    return middle + half * torch.linalg.eigvals(matrix)


def is_real(form: Form) -> bool:
    """Tell whether the form is real on the real line: its poles then come in conjugate pairs."""
    if isinstance(form, FractionForm):  # its poles are stored as complex numbers always
        return not form.a.is_complex()
    return not any(isinstance(field, Tensor) and field.is_complex() for field in form)


def _improved(form: Form, zeros: Tensor) -> Tensor:
    """Take Newton steps on D where they lower |D|; roots of the factored form are final."""
    if isinstance(form, FactoredForm | FractionForm) or not len(zeros):
        return zeros
    for _ in range(3):
        z = zeros.detach().requires_grad_()
        D = evaluate(form, z).D
        # for an analytic function autograd gives the conjugate of the derivative
        slope = torch.autograd.grad(D.real.sum(), z)[0].conj()
        step = D.detach() / torch.where(slope == 0, 1, slope)
        # next to a second zero Newton's step means nothing
        step = torch.where((slope == 0) | (step.abs() > 1e-3 * _separation(zeros)), 0, step)
        moved = zeros - step
        zeros = torch.where(evaluate(form, moved).D.abs() < D.detach().abs(), moved, zeros)
    return zeros


def _separation(zeros: Tensor) -> Tensor:
    """Return the distance of each to its nearest neighbour; inf for a single one."""
    if len(zeros) < 2:
        return torch.full((len(zeros),), torch.inf, dtype=torch.float64)
    gap = (zeros[:, None] - zeros).abs()
    return gap.fill_diagonal_(torch.inf).amin(1)


def _clustered(
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


def _laurent(
    form: Form, position: Tensor, multiplicity: Tensor, half: float
) -> tuple[Tensor, Tensor]:
    """Return the coefficients of order -1 and -multiplicity, by the trapezoidal rule on circles."""
    radius = _separation(position).clamp(max=half) / 2
    turn = torch.exp(2j * torch.pi * torch.arange(NODES, dtype=torch.float64) / NODES)
    ray = radius[:, None] * turn
    N, D = evaluate(form, position[:, None] + ray)
    values = N / torch.where(D == 0, torch.nan, D)
    return (values * ray).mean(1), (values * ray ** multiplicity[:, None]).mean(1)


def clean_up(
    form: Form,
    x: Tensor,
    y: Tensor,
    *,
    weight: Tensor | None = None,
    tolerance: float = TOLERANCE,
) -> Form:
    """Take the spurious poles out of a form and fit what is left to the data again.

    Coefficients and factored forms lose one degree of N and of D for each; a barycentric form loses
    the support point nearest to it.

    Args:
        form: Any form.
        x: Points, `(n,)`.
        y: Targets, `(n,)`; those that are not finite are left out.
        weight: Row weights, `(n,)`.
        tolerance: See `pole_table`.

    Returns:
        A form of the same kind; the one given if it has no spurious pole.

    Raises:
        ShapeError: x is not `(n,)`, or y or weight do not match it.
        DataError: x is not finite or constant, or no target is finite.

    Examples:
        >>> x = torch.linspace(-1, 1, 50, dtype=torch.float64)
        >>> b = torch.tensor([-0.5, 1.0], dtype=torch.float64)
        >>> twice = CoefficientForm(b, torch.tensor([1.0, -2.5, 1.0]), "monomial", (-1, 1))
        >>> clean_up(twice, x, 1 / (x - 2)).b.shape  # (x - 0.5) / ((x - 0.5)(x - 2))
        torch.Size([2])
    """
    data = checked_table(x, y, weight)
    found = pole_table(form, tolerance=tolerance)
    wrong = found.position[found.spurious]
    if not len(wrong) or isinstance(form, SigmoidForm | ConjugateForm):
        return form
    if isinstance(form, BarycentricForm):
        at = _others(form.points, wrong)
        return refit_weights(form.points[at], form.values[at], data)
    zeros = denominator_zeros(form)
    at = _others(zeros, wrong)
    if isinstance(form, FractionForm):
        return form._replace(poles=zeros[at], residues=form.residues[at])
    kept = zeros[at]
    if is_real(form):
        upper = kept[kept.imag > 0]
        kept = torch.cat([kept[kept.imag == 0], upper, upper.conj()])
    degree = max(0, len(form.a) - 1 - len(wrong))
    if isinstance(form, FactoredForm):
        return fit_factored(data.x, data.y, kept, degree, weight=data.weight)
    return _coefficients(form, kept, degree, data)


def _others(points: Tensor, wrong: Tensor) -> Tensor:
    """Return the mask without the point nearest to each wrong pole."""
    kept = torch.ones(len(points), dtype=torch.bool)
    for pole in wrong:
        kept[torch.where(kept, (points - pole).abs(), torch.inf).argmin()] = False
    return kept


def _coefficients(form: CoefficientForm, zeros: Tensor, degree: int, data: Table) -> Form:
    """Return N and D on the basis of the form: D has these zeros, N follows by least squares."""
    q, (low, high) = len(zeros), form.domain
    turn = torch.arange(1, 2 * q + 3, 2, dtype=torch.float64) * torch.pi / (2 * q + 2)
    nodes = (low + high) / 2 + (high - low) / 2 * torch.cos(turn)
    values = torch.ones(q + 1, dtype=torch.complex128)
    for zero in zeros:
        values = values * (nodes - zero) / (nodes - zero).abs().max()
    b = torch.linalg.solve(basis_of(form, nodes, q).to(values.dtype), values)
    b = b if form.b.is_complex() else b.real
    b = b / torch.linalg.vector_norm(b)
    D = basis_of(form, data.x, q).to(b.dtype) @ b
    level = (data.y / target_scale(data.y)).abs().clamp(min=1)
    root = torch.where(D == 0, 0, data.weight.sqrt() / level)[:, None]
    A = root / torch.where(D == 0, 1, D)[:, None] * basis_of(form, data.x, degree)
    return form._replace(a=torch.linalg.lstsq(A, root * data.y[:, None]).solution[:, 0], b=b)


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
    matrix = _companion(c) if basis == "monomial" else _colleague(c)
    t = torch.linalg.eigvals(matrix)
    return t if basis == "monomial" else (low + high) / 2 + (high - low) / 2 * t


def _companion(c: Tensor) -> Tensor:
    matrix = torch.diag(torch.ones(len(c) - 2, dtype=c.dtype), 1)
    matrix[-1] = -c[:-1] / c[-1]
    return matrix


def _colleague(c: Tensor) -> Tensor:
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


def _text(table: PoleTable) -> str:
    known = torch.full((len(table.position),), torch.nan)
    errors = [table.position_se, table.residue_se, table.significance]
    numbers = [part.tolist() for part in (known if e is None else e for e in errors)]
    inside = table.inside.tolist() if table.inside is not None else [None] * len(known)
    lines: list[tuple[str, ...]] = [
        ("position", "imaginary", "± error", "residue", "imaginary", "± error", "multiplicity",
         "significance", "where"),
    ]  # fmt: skip
    for p, r, m, spurious, on_data, *few in zip(
        table.position.tolist(), table.residue.tolist(), table.multiplicity.tolist(),
        table.spurious.tolist(), inside, *numbers, strict=True,
    ):  # fmt: skip
        p_se, r_se, clear = ("" if math.isnan(value) else f"{value:.2g}" for value in few)
        where = "" if on_data is None else "on the data" if on_data else "off the data"
        where += ", spurious" if spurious else ""
        digits = [repr(part + 0.0) for part in (p.real, p.imag, r.real, r.imag)]
        lines.append((*digits[:2], p_se, *digits[2:], r_se, str(m), clear, where))
    wide = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(w) for cell, w in zip(line, wide, strict=True)).rstrip()
        for line in lines
    )
