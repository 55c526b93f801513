"""Where a closed-form fit is singular: poles and roots of one column, curves of two."""

import math

import torch
from torch import Tensor

from zeroproof._checks import one_of
from zeroproof.errors import RangeError
from zeroproof.estimators.closed_form import ClosedForm
from zeroproof.estimators.model import FormModel, ReadoutModel, head
from zeroproof.projective.pair import Pair
from zeroproof.solve.curve import pole_curve
from zeroproof.solve.interval import interval_poles, interval_zeros
from zeroproof.solve.poles import RESOLUTION, TOLERANCE, PoleTable, pole_table, roots

__all__ = ["curves_of", "poles_of", "roots_of"]

_COARSEST = 1e-2  # half widths: poles farther apart are never taken for one


def poles_of(fit: ClosedForm, domain: tuple[float, float], output: int) -> PoleTable:
    """Return the poles of one output.

    Noise splits double poles by its root and leaves weak pairs, so resolution and tolerance grow
    with the relative error of the fit. Of a fit to y² or log y they are the places where that
    diverges; residue and strength are nan, for they are not those of y.
    """
    relative = fit.relative if math.isfinite(fit.relative) else 0.0
    resolution = max(RESOLUTION, min(math.sqrt(relative), _COARSEST))
    tolerance = max(TOLERANCE, relative)
    if isinstance(fit.model, FormModel):
        form = fit.model.forms[_output(output, len(fit.model.forms))]
        table = pole_table(form, resolution=resolution, tolerance=tolerance)
        if fit.significant:  # D changes its sign there, and N is clear of 0
            p = table.position
            on_data = (p.imag == 0) & (p.real >= domain[0]) & (p.real <= domain[1])
            table = table._replace(spurious=table.spurious & ~on_data)
    else:
        model = _real(fit.model)
        table = interval_poles(
            lambda x: _line(model, x, output), domain, resolution=resolution, tolerance=tolerance
        )
    scale = fit.model.scale
    if isinstance(fit.model, ReadoutModel) and fit.model.target != "y":
        scale = math.nan
    return table._replace(residue=table.residue * scale, strength=table.strength * scale)


def roots_of(fit: ClosedForm, domain: tuple[float, float], output: int) -> Tensor:
    """Return the zeros of N of one output, complex."""
    relative = fit.relative if math.isfinite(fit.relative) else 0.0
    if isinstance(fit.model, FormModel):
        form = fit.model.forms[_output(output, len(fit.model.forms))]
        return roots(form, tolerance=max(TOLERANCE, relative))
    model = _real(fit.model)
    zeros, multiplicity = interval_zeros(lambda x: _line(model, x, output).N, domain)
    return zeros.repeat_interleave(multiplicity).to(torch.complex128)


def curves_of(fit: ClosedForm, domain: Tensor, output: int, points: int) -> list[Tensor]:
    """Return the lines D = 0 over a box."""
    if isinstance(fit.model, FormModel):
        raise RangeError("a rational form has one column, got two")
    model = _real(fit.model)
    place = _output(output, model.a.shape[1]) if model.b.shape[1] > 1 else 0
    return pole_curve(lambda X: head(model, X).D[:, place], domain.T.tolist(), points=points)


def _line(model: ReadoutModel, x: Tensor, output: int) -> Pair:
    place = _output(output, model.a.shape[1])
    N, D = head(model, x[:, None])
    return Pair(N[:, place], D[:, place if D.shape[1] > 1 else 0])


def _output(output: int, count: int) -> int:
    return one_of(output, range(count), "output")


def _real(model: ReadoutModel) -> ReadoutModel:
    if model.b.is_complex():
        raise RangeError(
            "poles of complex targets need rational features, 'auto' or 'chebyshev', of one column"
        )
    return model
