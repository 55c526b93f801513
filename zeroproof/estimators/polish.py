"""The polish of a closed-form fit: least squares of the decoded residual."""

import torch
from torch import Tensor

from zeroproof.errors import RangeError
from zeroproof.estimators.candidates import Request, Rows
from zeroproof.estimators.model import FormModel, Model, ReadoutModel
from zeroproof.solve.forms import Form
from zeroproof.solve.marquardt import least_squares, refine

__all__ = ["objective", "polished"]

_MOST_WEIGHTS, _MOST_ENTRIES = 300, 2**23  # beyond, an iteration would outlast the fit
_STARTS = 5


def polished(model: Model, rows: Rows, request: Request) -> Model:
    r"""Return the model after Levenberg-Marquardt on Σ w \|ŷ - y\|² / (1 + \|y / s\|²)^power.

    The model itself where that cannot be: the target was transformed, the features are too many, or
    D is 0 in a row.
    """
    if isinstance(model, FormModel):
        forms = (
            _polished_form(form, rows, y, request)
            for form, y in zip(model.forms, rows.y.T, strict=True)
        )
        return model._replace(forms=tuple(forms))
    count = len(model.a) * model.a.shape[1] + len(model.b)
    if model.target != "y" or count > _MOST_WEIGHTS or count * len(rows.X) > _MOST_ENTRIES:
        return model
    return _polished_readout(model, rows, request)


def objective(model: Model, rows: Rows, request: Request) -> float:
    """Return what the polish minimises; infinite where an answer is."""
    N, D = model.tuples(rows.X)
    answer = N / torch.where(D == 0, torch.nan, D) / model.scale
    square = (answer - rows.y).abs().square() / (1 + rows.y.abs().square()) ** request.weight_power
    total = (rows.weight[:, None] * square)[torch.isfinite(rows.y)].sum()
    return float(torch.where(torch.isfinite(total), total, torch.inf))


def _polished_form(form: Form, rows: Rows, y: Tensor, request: Request) -> Form:
    try:
        return least_squares(
            rows.X[:, 0],
            y,
            request.degrees or form.degrees,
            weight=rows.weight,
            weight_power=request.weight_power,
            scale=1.0,
            starts=30 if request.degrees else _STARTS,
            seed=request.seed,
        )[0]
    except RangeError:
        return form


def _polished_readout(model: ReadoutModel, rows: Rows, request: Request) -> ReadoutModel:
    H_N, H_D = model.matrices(rows.X)
    columns = [slice(None)] if model.b.shape[1] == 1 else [
        slice(j, j + 1) for j in range(model.b.shape[1])
    ]  # fmt: skip
    a, b = [], []
    for j, begin in zip(columns, model.b.T, strict=True):
        try:
            fit = refine(
                H_N, H_D, rows.y[:, j], begin,
                weight=rows.weight, weight_power=request.weight_power, scale=1.0,
            )  # fmt: skip
        except RangeError:
            return model
        a.append(fit.a)
        b.append(fit.b[:, None])
    return model._replace(a=torch.cat(a, 1), b=torch.cat(b, 1))
