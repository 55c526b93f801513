"""From a race to a closed-form fit."""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zeroproof.estimators.candidates import Candidate, Request, Rows, Scored, preferred, searched
from zeroproof.estimators.closed_form import ClosedForm, Compared, fit_closed_form, solvable
from zeroproof.estimators.model import FormModel, Model, ReadoutModel, tuples
from zeroproof.layers.features import Column, feature_matrix, fit_column, graded_features
from zeroproof.projective.angle import chordal_distance
from zeroproof.solve.branch import Branch, branch_points
from zeroproof.solve.choose import choose_form, relative_error
from zeroproof.solve.forms import BarycentricForm, CoefficientForm, FractionForm, SigmoidForm
from zeroproof.solve.fractions import with_conjugates
from zeroproof.solve.line import Entry, LineFit, Sigmoid, Sum, Support, race_line
from zeroproof.solve.race import POLE, Held, ahead, deviation
from zeroproof.solve.recipe import Recipe
from zeroproof.solve.robust import FEWEST, heavy_tailed, trimmed_rows
from zeroproof.solve.search import FLOOR, split
from zeroproof.solve.space import EPS, EXACT, SpaceFit, race_space, total_degree

__all__ = ["fit_by_race", "raced"]

Array = NDArray[Any]

CLEAN = 1e-8  # typical relative error below which only rounding tells forms apart
_ENOUGH = 20  # distinct inputs, for transforms of y to be looked for
_NEAR_LINE, _PLACES = 0.05, 4  # half widths; places looked at
_TRIFLE = 1e-5  # of the typical y: an error below it makes no outlier
_TIES = 5
_PLAIN = ("constant", "line", "linear", "ridge")
_RACE_ROWS = 4000  # of several columns; more rows fit the winner, not the choice
_MOST_FACTORS = 24  # of a product that is still known to rounding
_MOST_DEGREE, _MOST_FEATURES = 4, 500  # of a law
_FOLD_FEATURES = 250
_POWERS = {"relative": 1, "mixed": 0, "additive": 2}


def raced(rows: Rows, request: Request) -> bool:
    """Tell whether a request is one for the race: everything left to be chosen, real targets."""
    free = request.features == "auto" and request.degrees is None and not request.linear
    finite = torch.isfinite(rows.y).all(1)
    several = rows.X.shape[1] > 1 or rows.y.shape[1] == 1
    distinct = len(rows.X[finite].unique(dim=0)) if several else 0
    return free and not rows.y.is_complex() and not request.affine and distinct > 1


def fit_by_race(rows: Rows, request: Request) -> ClosedForm:
    """Fit rows by the race of one column or of several.

    Singular targets take no part: a pole is where the finite ones say.

    Args:
        rows: Inputs, targets over their scale, weights.
        request: What to fit.
    """
    finite = torch.isfinite(rows.y).all(1)
    fit = (_one_column if rows.X.shape[1] == 1 else _several)(rows.at(finite), request)
    places = torch.nonzero(finite)[:, 0]
    return fit._replace(left_out=tuple(places[list(fit.left_out)].tolist()))


def _one_column(used: Rows, request: Request) -> ClosedForm:
    """Hand clean rows to forms that stay exact next to a pole, noisy ones to transforms."""
    race, kept = _robust(used, request)
    left_out = tuple(torch.nonzero(~kept)[:, 0].tolist())
    used = used.at(kept)
    y, entry = used.y.numpy(), race.entry
    branches = _branches(race, used.X[:, 0].numpy(), y)
    model, name = _model(entry, request.scale), entry.name
    if _relative(race, y) < CLEAN:
        model, name = _next_to_poles(used, model, entry, request)
    elif race.distinct > _ENOUGH:
        other = _rival(used, race, request)
        if other is not None:
            return other._replace(left_out=left_out, branches=branches)
    significant = entry.candidate.q > 0 and not isinstance(entry.candidate, Support)
    alternates = tuple(_model(e, request.scale) for e in race.tied[1:_TIES])
    recipe = _recipe(entry) if isinstance(model, ReadoutModel) else None
    found = _closed(race, y, model, name, recipe)
    return found._replace(
        significant=significant, alternates=alternates, left_out=left_out, branches=branches
    )


def _branches(race: LineFit, x: Array, y: Array) -> tuple[Branch, ...]:
    """Look for points that are no poles, where a fit has poles near the line."""
    if y.shape[1] > 1 or np.iscomplexobj(y):
        return ()
    c = race.entry.candidate
    zeros = race.entry.zeros()
    zeros = zeros[(np.abs(zeros.imag) < _NEAR_LINE) & (np.abs(zeros.real) <= 1)]
    zeros = zeros[np.abs(zeros.imag).argsort()][:_PLACES]
    places = c.axis.inverse(zeros.real)
    return branch_points(x, y[:, 0], race.deviation[:, 0], places, (race.entry.answers - y)[:, 0])


def _robust(used: Rows, request: Request) -> tuple[LineFit, Tensor]:
    """Race on all rows, and again without outliers if there are some.

    Rows are outliers if neither race explains them and the others are explained no worse without
    them: either three times better, or as well while the rows left out are far from both.
    """
    x, y, weight = (part.numpy() for part in (used.X[:, 0], used.y, used.weight))
    race = race_line(x, y, weight=weight, seed=request.seed)
    everything = torch.ones(len(x), dtype=torch.bool)
    held = np.sqrt(race.entry.held.error)  # a fit may pass through an outlier that it has seen
    if race.distinct < FEWEST or held.max() < _TRIFLE or not heavy_tailed(held):
        return race, everything
    kept = trimmed_rows(x, y[:, 0], request.seed)
    if not 0 < (~kept).sum() < 0.2 * len(x):
        return race, everything
    again = race_line(x[kept], y[kept], weight=weight[kept], seed=request.seed)
    answers = again.entry.candidate.value(again.entry.fit, again.entry.candidate.axis(x))[0]
    before, after = (
        np.nan_to_num(np.abs(each - y) / deviation(y, again.noise), nan=1e300, posinf=1e300)[:, 0]
        for each in (race.entry.answers, answers)
    )
    old, new = float(np.median(before[kept])), float(np.median(after[kept]))
    apart = np.median(before[~kept]) > 6 * old and np.median(after[~kept]) > 9 * new
    if new < old / 3 or (new < max(1.1 * old, CLEAN) and apart):  # clean fits are polished later
        return again, torch.from_numpy(kept)
    return race, everything


def _several(used: Rows, request: Request) -> ClosedForm:
    """A law of total degree that unseen rows confirm ends the race before it begins."""
    n, d = used.X.shape
    order = torch.randperm(n, generator=torch.Generator().manual_seed(request.seed))
    columns = [fit_column(x, i) for i, x in enumerate(used.X.T)]
    widths = [1, d + 1]
    while len(widths) <= _MOST_DEGREE and math.comb(d + len(widths), d) <= _MOST_FEATURES:
        widths.append(math.comb(d + len(widths), d))
    sample = used.at(order[:_RACE_ROWS])
    H = feature_matrix(graded_features(columns, len(widths) - 1), sample.X).numpy()
    if used.y.shape[1] == 1:
        law = _law(sample, H, widths, columns, request)
        if law is not None:
            return law
    few = [1, d + 1, *(k for k in widths[2:3] if k <= _FOLD_FEATURES)]
    y = sample.y.numpy()
    race = race_space(
        sample.X.numpy(), H[:, : few[-1]], tuple(few), y, sample.weight.numpy(), request.seed
    )
    entry = race.entry
    if race.distinct > _ENOUGH and _relative(race, y) > CLEAN:
        other = _rival(sample, race, request, used)
        if other is not None:
            return other
    a, b = entry.fit
    if n > _RACE_ROWS:
        degree = widths.index(max(len(a), len(b)))
        whole = feature_matrix(graded_features(columns, degree), used.X).numpy()
        y = used.y.numpy()
        root = np.sqrt(used.weight.numpy())[:, None] / deviation(y, race.noise)
        a, b = entry.candidate.fit(whole, y, root, *((b,) if entry.candidate.q else ()))
    model, recipe = _polynomial(columns, widths, a, b, request.scale)
    alternates = tuple(
        _polynomial(columns, widths, *e.fit, request.scale)[0] for e in race.tied[1:_TIES]
    )
    found = _closed(race, sample.y.numpy(), model, entry.name, recipe)
    return found._replace(alternates=alternates)


def _law(
    sample: Rows, H: Array, widths: list[int], columns: list[Column], request: Request
) -> ClosedForm | None:
    """Return the rational function of least total degree that is right on unseen rows."""
    y = sample.y[:, 0].numpy()
    for degree, width in enumerate(widths[1:], 1):
        found = total_degree(H, width, y)
        if found is None:
            return None
        a, b, relative = found
        if relative < EXACT:
            model, recipe = _polynomial(columns, widths, a[:, None], b, request.scale)
            size = max(relative**2, FLOOR)
            name = f"rational function of total degree {degree}"
            tried = ((name, size, 2 * width - 1),)
            return ClosedForm(
                model, name, recipe, size, size, size, relative,
                shared=True, power=1, polished=False, alternates=(), tried=tried,
            )  # fmt: skip
    return None


def _polynomial(
    columns: list[Column], widths: list[int], a: Array, b: Array, scale: float
) -> tuple[ReadoutModel, Recipe]:
    """Return the quotient of polynomials of a total degree each, by their widths."""
    p, q = (widths.index(len(part)) for part in (a, b))
    N, D = (torch.from_numpy(np.ascontiguousarray(part)) for part in (a, b[:, None]))
    maps = graded_features(columns, p), graded_features(columns, q)
    recipe = Recipe("polynomial", ("identity",) * len(columns), (), "y", (p, q))
    return ReadoutModel(*maps, N, D, "y", scale), recipe


def _closed(
    race: LineFit | SpaceFit, y: Array, model: Model, name: str, recipe: Recipe | None
) -> ClosedForm:
    error, near = _chordal(race, y)
    return ClosedForm(
        model=model,
        name=name,
        recipe=recipe,
        error=error,
        shell=error,
        near=near,
        relative=_relative(race, y),
        shared=True,
        power=_POWERS[race.noise],
        polished=False,
        alternates=(),
        tried=tuple((e.name, e.held.body, round(e.free)) for e in race.tied),
        comparison=_compared(race),
    )


def _compared(race: LineFit | SpaceFit) -> tuple[Compared, ...]:
    """Set the winner beside the best of the plain models: constant, straight, ridge, curved."""
    plain = [e for e in race.entries if not e.candidate.q and e is not race.entry]
    best = min(plain, key=lambda e: e.held.error.mean(), default=None)
    shown = [e for e in plain if e.name in _PLAIN or e is best]
    constant = next((e for e in race.entries if e.name == "constant"), race.entry)
    unit = float(constant.held.error.mean()) or 1.0

    def line(entry: Any) -> Compared:
        means = entry.held.by_fold(entry.held.error) / unit
        error = math.sqrt(float(entry.held.error.mean()) / unit)
        spread = float(means.std(ddof=1)) / math.sqrt(len(means)) if len(means) > 1 else math.inf
        return Compared(entry.name, error, spread / (2 * error or 1.0), entry is race.entry)

    return tuple(line(e) for e in (race.entry, *shown))


def _relative(race: LineFit | SpaceFit, y: Array) -> float:
    """Return the median relative error of rows held out."""
    error = np.abs(race.entry.answers - y) / np.maximum(np.abs(y), 1e-3)
    return float(np.median(error[race.inner]))


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
        used = v != 0  # a point without weight would be ⟨0, 0⟩
        form = BarycentricForm(axis.middle + axis.half * z[used], f[0, used], v[used])
        return FormModel((form,), scale)
    if isinstance(c, Sum):
        poles, residues, a = parts[0].numpy(), parts[1].numpy()[0], parts[2][0]
        if not a.is_complex():
            poles, residues = with_conjugates(poles, residues)
        p, r = (torch.from_numpy(axis.half * part + 0j) for part in (poles, residues))
        return FormModel((FractionForm(axis.middle + p, r, a, domain),), scale)
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
    c = entry.candidate
    if not isinstance(model, FormModel) or isinstance(c, Sigmoid) or c.q > _MOST_FACTORS:
        return model, entry.name
    x, y = used.X[:, 0], used.y[:, 0]
    degrees = (c.p, c.q) if c.q and not isinstance(c, Support) else None
    chosen = choose_form(x, y, degrees, weight=used.weight, seed=request.seed)
    mine, theirs = (relative_error(form, x, y) for form in (model.forms[0], chosen.form))
    if isinstance(entry.candidate, Support) and chosen.error > 10 * np.sqrt(entry.held.body):
        return model, entry.name
    if theirs > max(10 * mine, 1e-13):
        return model, entry.name
    return FormModel((chosen.form,), request.scale), "rational"


def _rival(
    sample: Rows, race: LineFit | SpaceFit, request: Request, used: Rows | None = None
) -> ClosedForm | None:
    """Return the fit of a recipe that wins by three standard errors, if there is one.

    Transforms of y and of columns, linear columns, waves and trunks are searched for on a part of
    the rows; the best is then fitted to the folds of the race.
    """
    parts = split(sample.X, request.seed)
    if sample.X.shape[1] == 1:  # rational functions of x itself took part in the race
        found, power = searched(sample, request, parts, None)
    else:
        found, power = solvable(sample, request, parts)
    found = [each for each in found if not _known(each)]
    if not found:
        return None
    best = preferred(found, len(parts.held))[0]
    y = sample.y.numpy()
    answers = np.full(y.shape, np.nan)
    for f in np.unique(race.fold):
        own = torch.from_numpy(race.fold == f)
        N, D = tuples(best.solve(sample.at(~own), power, True), sample.X[own])
        answers[own.numpy()] = (N / torch.where(D == 0, torch.nan, D)).numpy() / request.scale
    error = np.abs(answers - y)
    error = np.where(np.isfinite(error), np.maximum(error, 50 * EPS * np.abs(y)), 1e150)
    square = np.minimum((error / race.deviation) ** 2, 1e300).mean(1)
    held = Held(square[race.inner], race.fold[race.inner], race.noise)
    if not ahead(held, race.entry.held, POLE):
        return None
    fit = fit_closed_form(sample if used is None else used, request, Scored(found, power))
    constant = next((e for e in race.entries if e.name == "constant"), race.entry)
    unit = float(constant.held.error.mean()) or 1.0
    error = math.sqrt(float(held.error.mean()) / unit)
    spread = float(held.by_fold(held.error).std(ddof=1)) / unit / math.sqrt(10) / (2 * error or 1.0)
    others = tuple(each._replace(delivered=False) for each in _compared(race))
    return fit._replace(comparison=(Compared(best.name, error, spread, True), *others))


def _known(candidate: Candidate) -> bool:
    """Tell whether a recipe of one column took part in the race."""
    recipe = candidate.recipe
    if recipe is None:
        return False
    return recipe.target == "y" and recipe.transforms in {("identity",), ("log",)}


def _chordal(race: LineFit | SpaceFit, y: Array) -> tuple[float, float]:
    """Return the mean squared chordal distance of held-out rows, and that of those nearest to ⊥."""
    inner = torch.from_numpy(race.inner)
    answers, targets = (
        torch.from_numpy(np.nan_to_num(part, nan=1e150))[inner, 0]
        for part in (race.entry.answers, y)
    )
    one = torch.ones_like(targets)
    square, size = chordal_distance(answers, one, targets, one).square(), targets.abs()
    far = size.argsort(descending=True)[: max(5, len(size) // 10)]
    return max(float(square.mean()), FLOOR), max(float(square[far].mean()), FLOOR)
