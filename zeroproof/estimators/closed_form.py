"""Fit in closed form: choose a candidate, solve it on all rows, polish where that helps."""

import math
from typing import NamedTuple

import torch

from zeroproof.estimators.candidates import (
    FAILURES,
    Candidate,
    Request,
    Rows,
    Scored,
    candidates,
    crosses,
    held_errors,
    held_residual,
    preferred,
)
from zeroproof.estimators.model import FormModel, Model
from zeroproof.estimators.polish import objective, polished
from zeroproof.estimators.trunks import trunk_candidates, trunk_seconds, trunks_asked
from zeroproof.solve.branch import Branch
from zeroproof.solve.noise import POWERS
from zeroproof.solve.recipe import Recipe
from zeroproof.solve.search import CLEAN, Split, split

__all__ = ["ROUNDING", "ClosedForm", "Compared", "fit_closed_form", "solvable"]

ROUNDING = 1e-20  # mean chordal² below which there is nothing to polish
_GAIN = 2.0  # in error, for more denominators than one


class Compared(NamedTuple):
    """How one model of a race did on rows it had not seen, beside the best constant.

    Attributes:
        name: What it is.
        error: Root mean square error over the size of the noise; 1 for the best constant.
        spread: Standard error of that, over the folds.
        delivered: Is it the one that answers?
    """

    name: str
    error: float
    spread: float
    delivered: bool


class ClosedForm(NamedTuple):
    """A fit, what it reached on rows held out, and what it was chosen from.

    Attributes:
        model: Fitted to all rows.
        name: Of the candidate: "rational", a family of features, "module" or a trunk.
        recipe: Transforms, linear columns, target and size, if features were searched.
        error: Mean squared chordal distance on held-out rows, of the fit to the others.
        shell: The same on the outer rows: an extrapolation.
        near: The same over the tenth of held-out rows nearest to ⊥.
        relative: Median relative error of finite held-out rows.
        shared: One denominator for all outputs?
        power: p of the row weights (1 + |y/s|²)^p of the readout.
        polished: Did the polish on the residual help?
        alternates: Other admissible fits, of the core rows.
        tried: Name, score and number of weights of each.
        significant: Was each pole among the rows tested to stand out of the noise?
        comparison: The fit beside plain models on the same folds, if it was chosen by a race.
        left_out: Rows that no model explains and that the fit did not use.
        cut: What was not tried within the time budget.
        branches: Points of one column where y has a step, a kink, a logarithm or a broken power.
    """

    model: Model
    name: str
    recipe: Recipe | None
    error: float
    shell: float
    near: float
    relative: float
    shared: bool
    power: int
    polished: bool
    alternates: tuple[Model, ...]
    tried: tuple[tuple[str, float, int], ...]
    significant: bool = False
    comparison: tuple[Compared, ...] = ()
    left_out: tuple[int, ...] = ()
    cut: tuple[str, ...] = ()
    branches: tuple[Branch, ...] = ()


def fit_closed_form(rows: Rows, request: Request, known: Scored | None = None) -> ClosedForm:
    """Fit rows as asked.

    Args:
        rows: Inputs, targets over their scale, weights.
        request: What to fit.
        known: Candidates, if they were scored before.

    Raises:
        RangeError: No candidate fits into the budget, or the degrees exceed what the rows tell.
        ShapeError: A module of features returns anything but `(n, k)`.
    """
    parts = split(rows.X, request.seed)
    found, power = known or solvable(rows, request, parts)
    ordered = preferred(found, len(parts.held))
    while len(ordered) > 1:
        try:
            return _solved(ordered, power, rows, request, parts)
        except FAILURES:  # a core may be solvable where all rows are not
            ordered = ordered[1:]
    return _solved(ordered, power, rows, request, parts)


def _solved(
    ordered: list[Candidate], power: int, rows: Rows, request: Request, parts: Split
) -> ClosedForm:
    """Solve the first of some candidates on all rows."""
    chosen, core = ordered[0], rows.at(parts.core)
    shared, model = _with_denominators(chosen, rows, parts, power, request)
    keep, model = _kept_polish(model, rows, parts, power, request)
    random, shell = held_errors(model, rows, parts, affine=request.affine)
    near, relative = _beside_bottom(model, rows, parts)
    final = chosen.solve(rows, power, shared)
    best = polished(final, rows, request) if keep else final
    return ClosedForm(
        model=_on_one_side((best, final, model), rows) if request.affine else best,
        name=chosen.name,
        recipe=chosen.recipe,
        error=random,
        shell=shell,
        near=near,
        relative=relative,
        shared=shared,
        power=power,
        polished=keep,
        alternates=tuple(each.solve(core, power, shared) for each in ordered[1:5]),
        tried=tuple((each.name, each.score, each.weights) for each in ordered),
    )


def solvable(rows: Rows, request: Request, parts: Split) -> Scored:
    """Return scored candidates, trunks among them where these are asked for."""
    if not trunks_asked(request, rows.X.shape[1]):
        return candidates(rows, request, parts)
    left = request.budget - trunk_seconds(request.budget)
    found, power = candidates(rows, request._replace(budget=left), parts)
    best = min(each.score for each in found)
    return Scored(found + trunk_candidates(rows, request, parts, power, best), power)


def _with_denominators(
    chosen: Candidate, rows: Rows, parts: Split, power: int, request: Request
) -> tuple[bool, Model]:
    """Share one denominator, unless separate ones halve the error on held-out rows."""
    core = rows.at(parts.core)
    shared = request.shared is not False
    model = chosen.solve(core, power, shared)
    if isinstance(model, FormModel):
        return len(model.forms) == 1, model
    if request.shared == "auto" and rows.y.shape[1] > 1:
        apart = chosen.solve(core, power, False)
        together, separate = (
            max(held_errors(each, rows, parts, power, affine=request.affine)[0], CLEAN)
            for each in (model, apart)
        )
        if separate < together / _GAIN:
            return False, apart
    return shared, model


def _kept_polish(
    model: Model, rows: Rows, parts: Split, power: int, request: Request
) -> tuple[bool, Model]:
    """Polish the fit of the core, and tell whether that served the rows held out."""
    if request.polish == "none" or not bool(torch.isfinite(rows.y).any()):
        return False, model
    before = held_errors(model, rows, parts, power, affine=request.affine)[0]
    if before < ROUNDING:
        return False, model
    ahead = polished(model, rows.at(parts.core), request)
    if ahead is model:
        return False, model
    if request.degrees is not None:
        return True, ahead
    held = rows.at(parts.held if len(parts.held) else parts.core)
    falls = objective(ahead, held, request) < objective(model, held, request)
    after = held_errors(ahead, rows, parts, power, affine=request.affine)[0]
    # unless errors are of one size, the sum of squares may rest on the one row next to a pole
    if falls and (power == POWERS[-1] or after <= 1.01 * before):
        return True, ahead
    return False, model


def _on_one_side(models: tuple[Model, ...], rows: Rows) -> Model:
    """Return the first whose D keeps its sign: noise can put a pole among rows not held out."""
    return next((each for each in models if not crosses(each, rows.X)), models[0])


def _beside_bottom(model: Model, rows: Rows, parts: Split) -> tuple[float, float]:
    """Return the error of rows nearest to ⊥ and the median relative error of finite ones."""
    residual, answer = held_residual(model, rows, parts)
    if not len(answer):
        return math.nan, math.nan
    y2 = 1 + answer.abs().square()
    chordal = (residual / y2).square()
    far = y2.argsort(descending=True)[: max(5, len(y2) // 10)]
    relative = residual / answer.abs().clamp(min=1e-3)
    return float(chordal[far].mean()), float(relative.median())
