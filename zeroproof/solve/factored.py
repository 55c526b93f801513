"""The factored form, fitted by variable projection: roots of D move, N follows linearly.

Beside a double root the coefficients of D cancel to nothing, while (x - c)² - h does not.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from zeroproof._checks import positive, whole
from zeroproof.layers.basis import chebyshev_basis
from zeroproof.projective.gauge import target_scale
from zeroproof.solve._marquardt import Model, State, minimise
from zeroproof.solve._table import checked_degrees, checked_table
from zeroproof.solve.forms import FactoredForm, gaps, product

__all__ = ["fit_factored"]

CLOSE = 0.1  # of the domain: nearer real roots share a quadratic, since they may meet


def _paired(
    roots: Tensor, domain: tuple[float, float], *, real: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """Group roots into quadratics (x - c)² - h and single roots.

    Conjugate roots (complete when `real`) and close ones become c ± √h, the others stay.
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
    s = target_scale(table.y) if scale is None else positive(scale, "scale")
    y = table.y[:, None]
    root = (table.weight * (1 + (table.y / s).abs().square()) ** (weight_power - 2)).sqrt()
    real = not (table.y.is_complex() or table.x.is_complex())
    c, h, r = _paired(roots.to(torch.complex128), table.domain, real=real)
    basis = chebyshev_basis(table.x, degree, domain=table.domain)
    problem = _Problem(table.x, y, basis.to(c.dtype), root[:, None])
    state = problem.state(FactoredForm(y[:0, 0], c, h, r, torch.cat([c, r]) * 0, table.domain))
    if state.objective == torch.inf:  # a root on a row: move it off
        low, high = table.domain
        state = problem.state(state.point._replace(rest=state.point.rest + 1e-9 * (high - low)))
    state, _, _ = minimise(
        state, problem.model, problem.moved, max_iterations, damping=1e-6, resolved=0.0
    )
    return state.point._replace(a=state.a[0])


class _Problem(NamedTuple):
    """Least squares in the roots of D."""

    x: Tensor
    y: Tensor  # (n, 1)
    basis: Tensor  # features of N, (n, k)
    root: Tensor  # square roots of the weights, (n, 1)

    def state(self, form: FactoredForm) -> State[FactoredForm]:
        """Find the best N for the roots of D."""
        D = product(form, *gaps(form, self.x))
        return State.of(form, D, self.basis, self.y, self.root)

    def model(self, state: State[FactoredForm]) -> Model:
        """Return the linear model; c, h and r differ in size by decades, so columns are scaled."""
        by_c, by_r = gaps(state.point, self.x)
        quadratic = by_c.square() - state.point.h
        slopes = torch.cat([2 * by_c / quadratic, 1 / quadratic, 1 / by_r], 1)
        J = state.jacobian(state.answer[..., None] * slopes)
        length = torch.linalg.vector_norm(J, dim=0)
        frame = torch.diag(1 / torch.where(length == 0, 1, length)).to(J.dtype)
        return Model.of(J, state.residual, frame)

    def moved(self, form: FactoredForm, step: Tensor) -> State[FactoredForm]:
        """Add the step; what the last bit of c and r cannot hold stays in `rest`."""
        pairs, singles = len(form.c), len(form.r)
        c, h, r = step.split([pairs, pairs, singles])
        old, move = torch.cat([form.c, form.r]), form.rest + torch.cat([c, r])
        new = old + move
        rest = move - (new - old)
        return self.state(form._replace(c=new[:pairs], h=form.h + h, r=new[pairs:], rest=rest))
