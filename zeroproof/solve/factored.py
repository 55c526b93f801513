"""The factored form, fitted by variable projection: roots of D move, N follows linearly.

Beside a double root the coefficients of D cancel to nothing, while (x - c)² - h does not.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from zeroproof._checks import whole
from zeroproof.layers.basis import chebyshev_basis
from zeroproof.projective.gauge import target_scale
from zeroproof.solve._linearized import projected, solve_rows
from zeroproof.solve._table import checked_degrees, checked_table
from zeroproof.solve.forms import FactoredForm, gaps, product

__all__ = ["fit_factored", "paired"]

CLOSE = 0.1  # of the domain: nearer real roots share a quadratic, since they may meet


def paired(
    roots: Tensor, domain: tuple[float, float], *, real: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """Group roots into quadratics (x - c)² - h and single roots.

    Args:
        roots: complex, `(q,)`; conjugate pairs complete when `real`.
        domain: (low, high), the unit of closeness.
        real: Whether c, h and the single roots are to be real.

    Returns:
        (c, h, r): conjugate and close roots as c ± √h, the others as r.

    Examples:
        >>> paired(torch.tensor([1 + 2j, 1 - 2j, 5 + 0j]), (0.0, 1.0))
        (tensor([1.]), tensor([-4.]), tensor([5.]))
    """
    near = CLOSE * (domain[1] - domain[0])
    upper = roots[roots.imag > 0] if real else roots[:0]
    left = sorted((roots[roots.imag == 0] if real else roots).tolist(), key=lambda z: z.real)
    pairs = [(z, z.conjugate()) for z in upper.tolist()]
    singles: list[complex] = []
    while left:
        z = left.pop(0)
        other = min(left, key=lambda u: abs(u - z), default=None)
        if other is not None and abs(other - z) < near:
            left.remove(other)
            pairs.append((z, other))
        else:
            singles.append(z)
    c = torch.tensor([(u + v) / 2 for u, v in pairs], dtype=roots.dtype)
    h = torch.tensor([((u - v) / 2) ** 2 for u, v in pairs], dtype=roots.dtype)
    r = torch.tensor(singles, dtype=roots.dtype)
    return (c.real, h.real, r.real) if real else (c, h, r)


def fit_factored(
    x: Tensor,
    y: Tensor,
    roots: Tensor,
    degree: int,
    *,
    weight: Tensor | None = None,
    weight_power: float = 1.0,
    scale: float | None = None,
    max_iterations: int = 15,
) -> FactoredForm:
    r"""Fit N / D with D = Π (x - root), moving the roots from where they are given.

    Minimises Σ w \|N/D - y\|² / (1 + \|y/s\|²)^(2 - power): power 1 counts relative errors where
    \|y\| exceeds s. N is eliminated linearly; Kaufman's Jacobian moves c, h and the single roots;
    the damping grows after a step that does not help. A real pole cannot pass a row, where the
    residual is infinite: start nearer than the rows are spaced, as a linearised fit is, or off the
    real line.

    Args:
        x: Points, `(n,)`.
        y: Targets, `(n,)`, real or complex; those that are not finite are left out.
        roots: Where D starts to vanish, complex `(q,)`; conjugate pairs complete for real targets.
        degree: Degree of N.
        weight: Row weights, `(n,)`.
        weight_power: 0 for the chordal distance, 1 for relative errors.
        scale: s, in the units of y; the median of \|y\| by default.
        max_iterations: Steps tried at most.

    Raises:
        ShapeError: x is not `(n,)`, or y does not match it.
        DataError: x is not finite or constant, or no target is finite.
        RangeError: More unknowns than distinct finite rows.

    Examples:
        >>> x = torch.linspace(-1, 1, 50, dtype=torch.float64)
        >>> start = torch.tensor([0.12 + 0.01j, 0.12 - 0.01j])
        >>> form = fit_factored(x, 1 / (x - 0.123) ** 2, start, 0)
        >>> round(float(form.c[0]), 12)
        0.123
    """
    whole(max_iterations, "max_iterations")
    table = checked_table(x, y, weight)
    checked_degrees((degree, len(roots)), table.x)
    s = target_scale(table.y) if scale is None else scale
    size = 1 + (table.y / s).abs().square()
    root = (table.weight * size ** (weight_power - 2)).sqrt()
    real = not (table.y.is_complex() or table.x.is_complex())
    kept = roots.to(torch.complex128)
    c, h, r = paired(kept, table.domain, real=real)
    basis = chebyshev_basis(table.x, degree, domain=table.domain)
    rest = torch.cat([c, r]) * 0
    start = FactoredForm(table.y[:0], c, h, r, rest, table.domain)
    return _Fit(table.x, table.y, basis.to(c.dtype), root).polish(start, max_iterations)


class _State(NamedTuple):
    form: FactoredForm
    columns: Tensor  # weighted features of N over D, (n, k)
    residual: Tensor  # weighted, (n,)
    answer: Tensor  # weighted, (n,)
    error: float  # length of the residual


class _Fit(NamedTuple):
    """One least squares problem in the roots of D."""

    x: Tensor
    y: Tensor
    basis: Tensor  # features of N, (n, k)
    root: Tensor  # square roots of the weights

    def polish(self, form: FactoredForm, max_iterations: int) -> FactoredForm:
        """Return the form after at most so many steps."""
        state = self.solved(form)
        if state.error == torch.inf:  # a root on a row: move it off
            low, high = form.domain
            state = self.solved(form._replace(rest=form.rest + 1e-9 * (high - low)))
        damping, growth, model = 1e-6, 4.0, None
        for _ in range(max_iterations):
            if not 0 < state.error < torch.inf:
                break
            model = model or self.model(state)
            ahead = self.solved(_stepped(state.form, model.step(damping)))
            if ahead.error < state.error:
                state, model = ahead, None
                damping, growth = damping / 10, 4.0
            else:
                damping, growth = damping * growth, growth * 2
        return state.form

    def solved(self, form: FactoredForm) -> _State:
        """Find the best N for the roots of D."""
        D = product(form, *gaps(form, self.x))
        zero = D == 0
        columns = (self.root / torch.where(zero, 1, D))[:, None] * self.basis
        target = self.root * self.y
        a = solve_rows(columns[None], target[None])[0]
        answer = columns @ a
        residual = answer - target
        error = float(torch.linalg.vector_norm(residual))
        if bool(zero.any()) or not error < torch.inf:
            error = torch.inf
        return _State(form._replace(a=a), columns, residual, answer, error)

    def model(self, state: _State) -> "_Model":
        """Return the linear model of the residual, from Kaufman's Jacobian."""
        by_c, by_r = gaps(state.form, self.x)
        quadratic = by_c.square() - state.form.h
        slopes = torch.cat([2 * by_c / quadratic, 1 / quadratic, 1 / by_r], 1)
        J = projected(state.columns, state.answer[:, None] * slopes)
        length = torch.linalg.vector_norm(J, dim=0)
        length = torch.where(length == 0, 1, length)
        Q, R = torch.linalg.qr(J / length)
        U, S, Vh = torch.linalg.svd(R)
        return _Model(U.mH @ (Q.mH @ state.residual), S, Vh, length)


class _Model(NamedTuple):
    slope: Tensor
    S: Tensor
    Vh: Tensor
    length: Tensor  # of the columns of the Jacobian: c, h and r differ in size by decades

    def step(self, damping: float) -> Tensor:
        shrunk = self.S * self.slope / (self.S.square() + damping * self.S[0].square())
        return -(self.Vh.mH @ shrunk) / self.length


def _stepped(form: FactoredForm, step: Tensor) -> FactoredForm:
    """Add the step; what the last bit of c and r cannot hold stays in `rest`."""
    pairs, singles = len(form.c), len(form.r)
    c, h, r = step.split([pairs, pairs, singles])
    old, move = torch.cat([form.c, form.r]), form.rest + torch.cat([c, r])
    new = old + move
    rest = move - (new - old) if len(new) else new
    return form._replace(c=new[:pairs], h=form.h + h, r=new[pairs:], rest=rest)
