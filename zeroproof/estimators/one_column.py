"""From the race of one column to a closed-form fit."""

import numpy as np
import torch

from zeroproof.estimators.candidates import Request, Rows, preferred, searched
from zeroproof.estimators.closed_form import ClosedForm, fit_closed_form
from zeroproof.estimators.model import FormModel, Model, ReadoutModel, tuples
from zeroproof.layers.features import Column, graded_features
from zeroproof.projective.angle import chordal_distance
from zeroproof.solve.choose import choose_form, relative_error
from zeroproof.solve.forms import BarycentricForm, CoefficientForm, SigmoidForm
from zeroproof.solve.line import Entry, LineFit, Sigmoid, Support, race_line
from zeroproof.solve.race import POLE, TYPICAL, Held
from zeroproof.solve.recipe import Recipe
from zeroproof.solve.search import FLOOR, split

__all__ = ["fit_one_column", "raced"]

CLEAN = 1e-8  # typical relative error below which only rounding tells forms apart
_ENOUGH = 20  # distinct inputs, for transforms of y to be looked for
_TIES = 5
_POWERS = {"relative": 1, "mixed": 0, "additive": 2}


def raced(rows: Rows, request: Request) -> bool:
    """Tell whether a request is one for the race of one column."""
    free = request.features == "auto" and request.degrees is None and not request.linear
    one = rows.X.shape[1] == 1 and rows.y.shape[1] == 1 and not rows.y.is_complex()
    finite = torch.isfinite(rows.y[:, 0])
    return free and one and not request.affine and len(rows.X[finite].unique()) > 1


def fit_one_column(rows: Rows, request: Request) -> ClosedForm:
    """Fit rows of one column and one real target.

    Singular targets take no part: a pole is where the finite ones say. Clean rows go on to the
    forms that keep their accuracy next to a pole; noisy ones may prefer a transform of y.

    Args:
        rows: Inputs, targets over their scale, weights.
        request: What to fit.
    """
    used = rows.at(torch.isfinite(rows.y[:, 0]))
    x, y, weight = (part.numpy() for part in (used.X[:, 0], used.y, used.weight))
    race = race_line(x, y, weight=weight, seed=request.seed)
    entry = race.entry
    level = np.maximum(np.abs(y), 1e-3)
    relative = float(np.median((np.abs(entry.answers - y) / level)[race.inner]))
    model, name = _model(entry, request.scale), entry.name
    if relative < CLEAN:
        model, name = _next_to_poles(used, model, entry, request)
    elif race.distinct > _ENOUGH:
        other = _transformed(used, race, request)
        if other is not None:
            return other
    error, near = _chordal(race, y)
    return ClosedForm(
        model=model,
        name=name,
        recipe=_recipe(entry) if isinstance(model, ReadoutModel) else None,
        error=error,
        shell=error,
        near=near,
        relative=relative,
        shared=True,
        power=_POWERS[race.noise],
        polished=False,
        alternates=tuple(_model(e, request.scale) for e in race.tied[1:_TIES]),
        tried=tuple((e.name, e.held.body, round(e.free)) for e in race.tied),
        significant=entry.candidate.q > 0 and not isinstance(entry.candidate, Support),
    )


def _model(entry: Entry, scale: float) -> Model:
    """Return the model of an entry."""
    c, axis = entry.candidate, entry.candidate.axis
    domain = (axis.middle - axis.half, axis.middle + axis.half)
    parts = [torch.from_numpy(np.array(part[0])) for part in entry.fit]
    if isinstance(c, Sigmoid):
        low, high, h, middle = parts[0].unbind()
        at = axis.middle + axis.half * middle
        return FormModel(
            (SigmoidForm(low, high, h / axis.half, at, axis.transform == "log", domain),), scale
        )
    if isinstance(c, Support):
        z, f, v = parts
        return FormModel((BarycentricForm(axis.middle + axis.half * z, f[0], v),), scale)
    a, b = parts
    if axis.transform == "identity":
        return FormModel((CoefficientForm(a[:, 0], b, "chebyshev", domain),), scale)
    column = [Column(0, *axis)]
    return ReadoutModel(
        graded_features(column, c.p), graded_features(column, c.q), a, b[:, None], "y", scale
    )


def _recipe(entry: Entry) -> Recipe:
    c = entry.candidate
    return Recipe("polynomial", (c.axis.transform,), (), "y", (c.p, c.q))


def _next_to_poles(used: Rows, model: Model, entry: Entry, request: Request) -> tuple[Model, str]:
    """Return the form that holds its accuracy up to a pole, if it serves as well as the winner."""
    if not isinstance(model, FormModel) or isinstance(entry.candidate, Sigmoid):
        return model, entry.name
    x, y = used.X[:, 0], used.y[:, 0]
    chosen = choose_form(x, y, weight=used.weight, seed=request.seed)
    mine, theirs = (relative_error(form, x, y) for form in (model.forms[0], chosen.form))
    if isinstance(entry.candidate, Support) and chosen.error > 10 * np.sqrt(entry.held.body):
        return model, entry.name
    if theirs > max(10 * mine, 1e-13):
        return model, entry.name
    return FormModel((chosen.form,), request.scale), "rational"


def _transformed(used: Rows, race: LineFit, request: Request) -> ClosedForm | None:
    """Return the fit of a transform of y or x that wins by three standard errors, if there is one.

    Transforms are searched for on a part of the rows; the best is then fitted to the same folds as
    the entries of the race.
    """
    parts = split(used.X, request.seed)
    found, power = searched(used, request, parts, None)
    found = [
        each for each in found
        if each.recipe is not None
        and (each.recipe.target != "y" or each.recipe.transforms[0] not in {"identity", "log"})
    ]  # fmt: skip
    if not found:
        return None
    best = preferred(found, len(parts.held))[0]
    y = used.y.numpy()
    answers = np.full(y.shape, np.nan)
    for f in np.unique(race.fold):
        own = torch.from_numpy(race.fold == f)
        N, D = tuples(best.solve(used.at(~own), power, True), used.X[own])
        answers[own.numpy()] = (N / torch.where(D == 0, torch.nan, D)).numpy() / request.scale
    error = np.abs(answers - y)
    error = np.where(np.isfinite(error), np.maximum(error, race.entry.floor), 1e150)
    square = np.minimum((error / race.deviation) ** 2, 1e300).mean(1)
    held = Held(square[race.inner], race.fold[race.inner])
    unit = min(held.body, race.entry.held.body)
    mean, spread, ratio = race.entry.held.behind(held, unit)
    if not (mean > POLE * spread or ratio > TYPICAL):
        return None
    return fit_closed_form(used, request)


def _chordal(race: LineFit, y: np.ndarray) -> tuple[float, float]:
    """Return the mean squared chordal distance of held-out rows, and that of those nearest to ⊥."""
    answers = torch.from_numpy(np.nan_to_num(race.entry.answers, nan=1e150))
    targets = torch.from_numpy(y)
    one = torch.ones_like(targets)
    square = chordal_distance(answers, one, targets, one).square()[torch.from_numpy(race.inner), 0]
    size = targets[torch.from_numpy(race.inner), 0].abs()
    far = size.argsort(descending=True)[: max(5, len(size) // 10)]
    return max(float(square.mean()), FLOOR), max(float(square[far].mean()), FLOOR)
