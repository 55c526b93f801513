"""Removing spurious poles: the form is fitted again without them."""

import torch
from torch import Tensor

from zeroproof.projective.gauge import target_scale
from zeroproof.solve._barycentric import refit_weights
from zeroproof.solve._marquardt import State
from zeroproof.solve._table import Table, checked_table
from zeroproof.solve.factored import fit_factored
from zeroproof.solve.forms import (
    BarycentricForm,
    CoefficientForm,
    FactoredForm,
    Form,
    SigmoidForm,
    basis_of,
)
from zeroproof.solve.poles import TOLERANCE, denominator_zeros, is_real, pole_table

__all__ = ["clean_up"]


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
        tolerance: See `zeroproof.solve.poles.pole_table`.

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
    if not len(wrong) or isinstance(form, SigmoidForm):
        return form
    if isinstance(form, BarycentricForm):
        at = _others(form.points, wrong)
        return refit_weights(form.points[at], form.values[at], data)
    zeros = denominator_zeros(form)
    kept = zeros[_others(zeros, wrong)]
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
    fit = State.of(b, D, basis_of(form, data.x, degree), data.y[:, None], root)
    return form._replace(a=fit.a[0], b=b)
