"""The polish of a closed-form fit: least squares of the decoded residual."""

import numpy as np
import torch
from torch import Tensor

from zeroproof.errors import RangeError
from zeroproof.estimators.candidates import Request, Rows
from zeroproof.estimators.model import FormModel, Model, ReadoutModel, inputs, tuples
from zeroproof.layers.features import feature_matrix
from zeroproof.solve.forms import (
    BarycentricForm,
    CoefficientForm,
    ConjugateForm,
    Form,
    FractionForm,
    SigmoidForm,
)
from zeroproof.solve.rational import fit_rational, least_squares

__all__ = ["degrees_of", "objective", "polished"]

_MOST_WEIGHTS, _MOST_ENTRIES = 300, 2**23  # beyond, an iteration would outlast the fit
_STARTS, _STEPS = 5, 200


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
    N, D = tuples(model, rows.X)
    answer = N / torch.where(D == 0, torch.nan, D) / model.scale
    square = (answer - rows.y).abs().square() / (1 + rows.y.abs().square()) ** request.weight_power
    total = (rows.weight[:, None] * square)[torch.isfinite(rows.y)].sum()
    return float(torch.where(torch.isfinite(total), total, torch.inf))


def degrees_of(form: Form) -> tuple[int, int]:
    """Return the degrees of N and of D."""
    if isinstance(form, BarycentricForm):
        return len(form.points) - 1, len(form.points) - 1
    if isinstance(form, SigmoidForm):
        return 0, 0
    if isinstance(form, ConjugateForm):
        k = len(form.real) + 2 * len(form.centre)
        return len(form.c) - 1, k
    if isinstance(form, FractionForm):
        return len(form.poles) + len(form.a) - 1, len(form.poles)
    if isinstance(form, CoefficientForm):
        return len(form.a) - 1, len(form.b) - 1
    return len(form.a) - 1, 2 * len(form.c) + len(form.r)


def _polished_form(form: Form, rows: Rows, y: Tensor, request: Request) -> Form:
    try:
        return least_squares(
            rows.X[:, 0],
            y,
            request.degrees or degrees_of(form),
            weight=rows.weight,
            weight_power=request.weight_power,
            scale=1.0,
            starts=30 if request.degrees else _STARTS,
            seed=request.seed,
        )[0]
    except RangeError:
        return form


def _polished_readout(model: ReadoutModel, rows: Rows, request: Request) -> ReadoutModel:
    kept = torch.isfinite(rows.y).all(1) & (rows.weight > 0)
    X, y = inputs(model, rows.X[kept]), rows.y[kept]
    H_N, H_D = (feature_matrix(each, X).numpy() for each in (model.H_N, model.H_D))
    w = (rows.weight[kept, None] / (1 + y.abs().square()) ** request.weight_power).sqrt().numpy()
    columns = [slice(None)] if model.b.shape[1] == 1 else [
        slice(j, j + 1) for j in range(model.b.shape[1])
    ]  # fmt: skip
    fits = [
        fit_rational(
            H_N, H_D, y.numpy()[:, j].T, w[None, :, j].swapaxes(1, 2),
            warm=begin[None].numpy(), cold=False, steps=_STEPS, resolved=0.0,
        )
        for j, begin in zip(columns, model.b.T, strict=True)
    ]  # fmt: skip
    if not all(np.isfinite(fit.objective).all() for fit in fits):
        return model
    a, b = np.hstack([fit.a[0] for fit in fits]), np.stack([fit.b[0] for fit in fits], 1)
    return model._replace(a=torch.from_numpy(a), b=torch.from_numpy(b))
