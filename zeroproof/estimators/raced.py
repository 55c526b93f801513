"""From a race to a closed-form fit."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import spatial, stats
from torch import Tensor

from zeroproof.estimators.closed_form import (
    FAILURES,
    ClosedForm,
    Scored,
    fit_closed_form,
    preferred,
    searched,
    solvable,
    solved,
)
from zeroproof.estimators.comparison import (
    CLEAN,
    EQUAL,
    beside,
    boosted,
    closed,
    compared,
    held_out,
    relative_error,
)
from zeroproof.estimators.model import FormModel, Model, ReadoutModel
from zeroproof.estimators.options import Request, Rows
from zeroproof.estimators.signals import real_system, two_parts
from zeroproof.layers.features import (
    Column,
    Features,
    feature_matrix,
    fit_column,
    graded_features,
)
from zeroproof.projective.angle import chordal_distance
from zeroproof.solve.branch import Branch, branch_points
from zeroproof.solve.line import Fraction, LineEntry, Polynomial, Support, race_line
from zeroproof.solve.race import (
    POLE,
    TYPICAL,
    Held,
    RaceFit,
    ahead,
    deviation,
    whole_groups,
    with_all_groups,
)
from zeroproof.solve.rational import fit_factored, least_squares
from zeroproof.solve.recipe import TARGETS, Recipe
from zeroproof.solve.robust import FEWEST, heavy_tailed, trimmed_rows
from zeroproof.solve.search import FLOOR, Candidate, split
from zeroproof.solve.space import EXACT, race_space, total_degree

__all__ = ["fit_by_race", "raced"]

Array = NDArray[Any]

_ENOUGH = 30  # distinct inputs, for transforms of y to be looked for
_NEAR_LINE, _PLACES = 0.05, 4  # half widths; places looked at
_TRIFLE = 1e-5  # of the typical y: an error below it makes no outlier
_TIES = 5
_SEARCHED = 0.6  # of the budget, for what is tried beside the race
_FIRST_FOLDS = 3
_FEWEST_WHITE = 200  # rows that tell whether errors are noise alone
_RACE_ROWS = 4000  # of several columns; more rows fit the winner, not the choice
_MOST_FACTORS = 24  # of a product that is still known to rounding
_MOST_DEGREE, _MOST_FEATURES = 4, 500  # of a law
_FOLD_FEATURES = 250
_LINE_DEGREES = (*range(9), 10, 12, 15, 20, 30)  # of a robust fit of one column
_MOST_OUTLIERS = 0.2
_FAR, _WRONG = 9.0, 0.1  # typical errors; of y
_LOST = 0.01  # of the rows: a fit may answer ⊥ there
_STRANGE = 1e-6  # angle to a law that is right to rounding
_DOZENS = 40  # coefficients that may imitate a step
_LARGE = 13  # coefficients of a clean fit that a root or an exponential may have simpler
_NEARLY, _AS_EXACT, _ROUNDED = 1e-4, 10.0, 1e-11  # relative errors, and times that of y itself
_FEWEST_RADIANS = 2.5  # that a column spans which may be an angle


def raced(rows: Rows, request: Request) -> bool:
    """Tell whether a request is one for the race.

    Everything is left to be chosen, or rational functions of one column are asked for.
    """
    one = rows.X.shape[1] == 1
    if request.linear or request.features not in ("auto", "chebyshev", "polynomial"):
        return False
    if not one and (request.features != "auto" or request.degrees is not None or request.affine):
        return False
    X = rows.X[torch.isfinite(rows.y).all(1)]
    return (one or not rows.y.is_complex()) and bool((X[:1] != X).any())


def fit_by_race(rows: Rows, request: Request) -> ClosedForm:
    """Fit rows by the race of one column or of several.

    Singular targets take no part: a pole is where the finite ones say.

    Args:
        rows: Inputs, targets over their scale, weights.
        request: What to fit.
    """
    finite = torch.isfinite(rows.y).all(1)
    used = rows if bool(finite.all()) else rows.at(finite)
    fit = None if request.symmetry == "none" else real_system(used, request)
    if fit is None:
        free = rows.y.shape[1] == 1 or request.symmetry != "none"
        way = _several if rows.X.shape[1] > 1 else _one_column if free else _columns
        fit = way(used, request)
    places = torch.nonzero(finite)[:, 0]
    return fit._replace(left_out=tuple(places[list(fit.left_out)].tolist()))


def _one_column(used: Rows, request: Request) -> ClosedForm:
    part = _raced_line(used, request)
    return _of_line(part, request)._replace(left_out=part.left_out)


def _columns(used: Rows, request: Request) -> ClosedForm:
    part = _raced_line(used, request)
    return _together_or_apart(part, request)._replace(left_out=part.left_out)


def _race(used: Rows, request: Request) -> RaceFit:
    return race_line(
        used.X[:, 0].numpy(), used.y.numpy(), weight=used.weight.numpy(), group=used.groups,
        seed=request.seed, clock=request.clock, degrees=request.degrees,
        plain=request.features != "auto", affine=request.affine,
    )  # fmt: skip


class _Line(NamedTuple):
    """The race of one column: its rows, all that the winner explains, and those it does not."""

    race: RaceFit
    rows: Rows
    everything: Rows
    left_out: tuple[int, ...]


def _raced_line(used: Rows, request: Request) -> _Line:
    """Race without outliers; many rows fit the winner, but a part of them chooses it."""
    x = used.X[:, 0]
    rows = torch.arange(len(x))
    if len(x) > _RACE_ROWS:  # with both ends, so that no row lies outside of what was raced on
        rows = torch.cat([torch.stack([x.argmin(), x.argmax()]), _drawn(used, request)]).unique()
    race, kept = _robust(used.at(rows), request)
    explained = torch.ones(len(x), dtype=torch.bool)
    explained[rows] = kept
    if len(x) > len(rows):
        explained = _on_all(race, used, outliers=not bool(kept.all()))
    left_out = tuple(torch.nonzero(~explained)[:, 0].tolist())
    return _Line(race, used.at(rows[kept]), used.at(explained), left_out)


def _drawn(used: Rows, request: Request) -> Tensor:
    """Draw the rows that choose, in random order."""
    generator = torch.Generator().manual_seed(request.seed)
    order = torch.randperm(len(used.X), generator=generator).numpy()
    return torch.from_numpy(with_all_groups(order, used.groups)[:_RACE_ROWS])


def _of_line(line: _Line, request: Request) -> ClosedForm:
    """Hand clean rows to forms that stay exact next to a pole, noisy ones to transforms."""
    race, used, entry, y = line.race, line.rows, line.race.entry, line.rows.y.numpy()
    branches = _branches(race, used.X[:, 0].numpy(), y)
    free = request.features == "auto" and request.degrees is None and not request.affine
    simpler = _transformed(used, race, request) if free else None
    if simpler is not None:
        return simpler._replace(branches=tuple(b for b in branches if b.exponent > 0))
    model, name, polish = _model(entry, request.scale, used.X[:, 0]), entry.name, False
    if request.degrees is not None and request.polish == "auto" and y.shape[1] == 1:
        model, polish = _least_squares(line.everything, request), True
    elif relative_error(race, y) < CLEAN:
        model, name = _next_to_poles(used, model, entry, request)
    elif free and race.distinct > _ENOUGH and not np.iscomplexobj(y):
        other = _rival(used, race, request, line.everything)
        if other is not None:
            return boosted(other._replace(branches=branches), race, used)
    # written another way it may be worth less
    if request.degrees is None and not _delivers(model, used, race):
        others = sorted(race.entries, key=lambda e: e.held.body)
        sound = (_model(e, request.scale, used.X[:, 0]) for e in (*race.tied[1:], *others))
        model = next((each for each in sound if _delivers(each, used, race)), model)
    significant = entry.candidate.q > 0 and not isinstance(entry.candidate, Support)
    alternates = tuple(_model(e, request.scale, used.X[:, 0]) for e in race.tied[1:_TIES])
    recipe = _recipe(entry) if isinstance(model, ReadoutModel) else None
    found = closed(race, y, model, name, recipe)
    crosses = request.affine and any(
        e.inside and ahead(e.held, entry.held, POLE) for e in race.entries
    )
    found = found._replace(
        significant=significant, alternates=alternates, branches=branches, polished=polish,
        crosses=crosses,
    )  # fmt: skip
    return boosted(found, race, used)


def _transformed(used: Rows, race: RaceFit, request: Request) -> ClosedForm | None:
    """Return the fit of y² or log y, if it is as exact as that of y with half the coefficients.

    A root of a rational function and the exponential of one are none themselves: what AAA makes of
    them to rounding is a row of poles along the cut, which mean nothing.
    """
    entry, y = race.entry, used.y.numpy()
    exact = relative_error(race, y)
    if entry.free < _LARGE or exact > _NEARLY or y.shape[1] > 1 or np.iscomplexobj(y):
        return None
    if y.min() < 0 < y.max():
        return None
    sign = 1.0 if y.min() >= 0 else -1.0
    found = []
    for target, inverse in (("square", np.sqrt), ("log", np.exp)):
        if found or (target == "log" and not y.all()) or not request.clock.allows("transforms"):
            break
        T = TARGETS[target](sign * used.y).numpy()
        other = race_line(
            used.X[:, 0].numpy(), T, weight=used.weight.numpy(), group=used.groups,
            seed=request.seed, clock=request.clock.part(_SEARCHED),
        )  # fmt: skip
        for each in other.entries:
            if 2 * each.free <= entry.free and isinstance(each.candidate, Polynomial | Fraction):
                with np.errstate(all="ignore"):
                    each.answers = sign * inverse(each.answers)
                each.held = held_out(race, each.answers, y)
                alike = race._replace(entry=each, entries=(each, *race.entries))
                error = relative_error(alike, y)
                if error < min(max(_AS_EXACT * exact, _ROUNDED), CLEAN):
                    found.append((each.free, error, target, alike))
    if not found:
        return None
    _, _, target, alike = min(found, key=lambda one: one[:2])
    model = _readout(alike.entry, target, sign * request.scale)
    recipe = _recipe(alike.entry)._replace(target=target)
    return closed(alike, y, model, alike.entry.name, recipe)._replace(significant=True)


def _least_squares(used: Rows, request: Request) -> FormModel:
    """Return the function of the degrees asked for that minimises the objective asked for."""
    assert request.degrees is not None
    form, _ = least_squares(
        used.X[:, 0], used.y[:, 0], request.degrees, weight=used.weight,
        weight_power=request.weight_power, scale=1.0, seed=request.seed,
    )  # fmt: skip
    return FormModel((form,), request.scale)


def _together_or_apart(line: _Line, request: Request) -> ClosedForm:
    """Fit several targets with one D, or each by itself where that does better.

    Of equal ones the smaller is taken. Fits that are no forms of the column have one D.
    """
    race, y = line.race, line.rows.y.numpy()
    if request.shared is True:
        return _of_line(line, request)
    races = [_race(line.rows._replace(y=each[:, None]), request) for each in line.rows.y.T]
    answers = np.concatenate([each.entry.answers for each in races], 1)
    together, apart = (
        held_out(race, each, y, floor=EQUAL * race.entry.floor)
        for each in (race.entry.answers, answers)
    )
    c = race.entry.candidate
    smaller = sum(each.entry.free for each in races) < y.shape[1] * (c.p + 1) + c.q
    better = ahead(apart, together, 1.0) or (smaller and not ahead(together, apart, 1.0))
    free = request.features == "auto" and request.degrees is None
    if free and y.shape[1] == 2 and request.shared == "auto":
        best, free = together, 2 * (c.p + 1) + c.q
        if better:
            best, free = apart, sum(each.entry.free for each in races)
        fit = two_parts(line.rows, request, race, best, free)
        if fit is not None:
            return fit
    if request.shared == "auto" and not better:
        return _of_line(line, request)
    fits = []
    for j, each in enumerate(races):
        rows, whole = (p._replace(y=p.y[:, j : j + 1]) for p in (line.rows, line.everything))
        fits.append(_of_line(_Line(each, rows, whole, ()), request))
    forms = [fit.model.forms[0] for fit in fits if isinstance(fit.model, FormModel)]
    if len(forms) < len(fits):
        return _of_line(line, request)
    name = "; ".join(dict.fromkeys(fit.name for fit in fits))
    return fits[0]._replace(
        model=FormModel(tuple(forms), request.scale), name=name, recipe=None, shared=False,
        significant=all(fit.significant for fit in fits), alternates=(), left_out=(),
        error=max(fit.error for fit in fits), shell=max(fit.shell for fit in fits),
        near=max(fit.near for fit in fits), relative=max(fit.relative for fit in fits),
        comparison=(beside(race, name, apart, delivered=True),
                    *(each._replace(delivered=False) for each in compared(race))),
    )  # fmt: skip


def _on_all(race: RaceFit, used: Rows, *, outliers: bool) -> Tensor:
    """Fit the winner of a part of the rows to all that it explains; tell which these are."""
    c, u, y = race.entry.candidate, race.entry.candidate.axis(used.X[:, 0].numpy()), used.y.numpy()
    explained = np.ones(len(u), bool)
    g = deviation(y, race.noise)
    with np.errstate(all="ignore"):
        if outliers:
            error = (np.abs(c.value(race.entry.fit, u)[0] - y) / g).max(1)
            explained = error <= _FAR * np.median(error)
        if not isinstance(c, Support):  # it passes through rows, of which it needs a few
            w = np.sqrt(used.weight.numpy()[explained]) / g[explained].T
            race.entry.fit = c.fit(u[explained], y[explained].T, w[None], False)
    return torch.from_numpy(explained)


def _delivers(model: Model, used: Rows, race: RaceFit) -> bool:
    """Tell whether a model is about as good on the rows it was fitted to as on unseen ones."""
    N, D = model.tuples(used.X)
    error = np.abs((N / D).numpy() / model.scale - used.y.numpy()) / race.deviation
    typical = 10 * math.sqrt(race.entry.held.typical) + float(np.median(race.entry.floor))
    return float(np.median(error)) <= typical and bool(np.isfinite(error).mean() > 1 - _LOST)


def _branches(race: RaceFit, x: Array, y: Array) -> tuple[Branch, ...]:
    """Look for points that are no poles, where a fit has poles near the line."""
    c, large = race.entry.candidate, race.entry.free > _DOZENS
    # a sigmoid may be steeper than rows can tell
    told = race.entry.exact and not large and isinstance(c, Polynomial | Fraction)
    if y.shape[1] > 1 or np.iscomplexobj(y) or told:
        return ()
    zeros = race.entry.zeros()
    zeros = zeros[(np.abs(zeros.imag) < _NEAR_LINE) & (np.abs(zeros.real) <= 1)]
    zeros = zeros[np.abs(zeros.imag).argsort()][:_PLACES]
    places = c.axis.inverse(zeros.real)
    held = (race.entry.answers - y)[:, 0]
    return branch_points(x, y[:, 0], race.deviation[:, 0], places, held, large=large)


def _robust(used: Rows, request: Request) -> tuple[RaceFit, Tensor]:
    """Race on all rows, and again without outliers if there are some."""
    x, y = used.X[:, 0].numpy(), used.y.numpy()
    race = _race(used, request)
    everything = torch.ones(len(x), dtype=torch.bool)
    asked = request.degrees is not None  # of all rows
    kept = np.ones(len(x), bool) if asked else _explained(used, race, request.seed)
    if kept.all():
        return race, everything
    if not request.clock.allows("a fit without outliers"):
        return race, everything

    again = _race(used.at(torch.from_numpy(kept)), request)
    answers = again.entry.candidate.value(again.entry.fit, again.entry.candidate.axis(x))[0]
    if not _outlying(race.entry.answers, answers, y, kept, again.noise):
        return race, everything
    # an angle hides what is far off where |y| is large; held out, no row is passed through
    error = np.abs(again.entry.answers - y[kept])
    size = error / again.deviation
    beyond = ((size > _FAR**2 * np.median(size)) & (error > _WRONG * np.abs(y[kept]))).any(1)
    if beyond.any():
        kept[kept] = ~beyond
        again = _race(used.at(torch.from_numpy(kept)), request)
    return again, torch.from_numpy(kept)


def _explained(used: Rows, race: RaceFit, seed: int) -> NDArray[np.bool_]:
    """Mark the rows that a fit explains which outliers cannot move; all if none stand out."""
    held = np.sqrt(race.entry.held.error)  # a fit may pass through an outlier that it has seen
    everything = np.ones(len(used.X), bool)
    trifle = held.max() < _TRIFLE or used.y.is_complex()
    if race.distinct < FEWEST or trifle or not heavy_tailed(held):
        return everything
    X, y = used.X.numpy(), used.y.numpy()
    kept = np.all([trimmed_rows(X, _bases(used.X), target, seed) for target in y.T], axis=0)
    return kept if (~kept).mean() < _MOST_OUTLIERS else everything


def _bases(X: Tensor) -> Iterator[Callable[[Array], Array]]:
    """Yield features of rising degree, of the columns and of angles among them, as functions."""
    d = X.shape[1]
    turning = [_FEWEST_RADIANS <= float(np.ptp(x)) <= 4 * math.pi for x in X.T.numpy()]
    kinds = [["identity"] * d]
    if d > 1 and any(turning):
        kinds.append(["trig" if each else "identity" for each in turning])
    for transforms in kinds:
        columns = [fit_column(x, i, transforms[i]) for i, x in enumerate(X.T)]
        inputs = d + transforms.count("trig")
        for degree in _LINE_DEGREES if d == 1 else range(_MOST_DEGREE + 1):
            if math.comb(inputs + degree, degree) <= _FOLD_FEATURES:
                yield partial(_features, graded_features(columns, degree))


def _features(features: Features, X: Array) -> Array:
    return feature_matrix(features, torch.from_numpy(X)).numpy()


def _outlying(before: Array, after: Array, y: Array, kept: NDArray[np.bool_], noise: str) -> bool:
    """Tell whether rows left out are outliers.

    They are if neither the fit to all rows nor that to the others explains them and the others are
    explained no worse without them: either three times better, or as well while the rows left out
    are far from both.
    """
    before, after = (
        np.nan_to_num(np.abs(each - y) / deviation(y, noise), nan=1e300, posinf=1e300).max(1)
        for each in (before, after)
    )
    old, new = float(np.median(before[kept])), float(np.median(after[kept]))
    slack = 1 + 2 / math.sqrt(len(y))  # the error of a median
    far = np.median(after[~kept]) > _FAR * new
    apart = far and np.median(before[~kept]) > 6 * old
    return bool((far and new < old / 3) or (new < max(slack * old, CLEAN) and apart))


def _several(used: Rows, request: Request, *, trusted: bool = False) -> ClosedForm:
    """A law of total degree that unseen rows confirm ends the race before it begins.

    Outliers are looked for once, where the race leaves heavy tails, and the rest begins anew.
    """
    n, d = used.X.shape
    drawn = _drawn(used, request)
    held = np.zeros(len(drawn), bool)
    if used.groups is not None:  # those that a law is tested on come last
        held = whole_groups(used.groups[drawn], 0.1, request.seed)
        drawn = drawn[torch.from_numpy(held.argsort(kind="stable"))]
    columns = [fit_column(x, i) for i, x in enumerate(used.X.T)]
    widths = [1, d + 1]
    while len(widths) <= _MOST_DEGREE and math.comb(d + len(widths), d) <= _MOST_FEATURES:
        widths.append(math.comb(d + len(widths), d))
    sample = used.at(drawn)
    H = feature_matrix(graded_features(columns, len(widths) - 1), sample.X).numpy()
    if used.y.shape[1] == 1:
        law = _law(sample, H, widths, columns, request, int(held.sum()))
        if law is not None:
            return law if trusted else _without_strangers(law, used, request)
    few = [1, d + 1, *(k for k in widths[2:3] if k <= _FOLD_FEATURES)]
    y = sample.y.numpy()
    race = race_space(
        sample.X.numpy(), H[:, : few[-1]], tuple(few), y, sample.weight.numpy(), request.seed,
        sample.groups,
    )  # fmt: skip
    entry = race.entry
    kept = np.ones(n, bool) if trusted else _explained(used, race, request.seed)
    if not kept.all():
        fit = _several(used.at(torch.from_numpy(kept)), request, trusted=True)
        N, D = fit.model.tuples(sample.X)
        answers = (N / D).numpy() / request.scale
        seen = kept[drawn.numpy()]
        if _outlying(entry.answers, answers, y, seen, race.noise):
            return fit._replace(left_out=tuple(np.flatnonzero(~kept).tolist()))
    if race.distinct > _ENOUGH and relative_error(race, y) > CLEAN:
        other = _rival(sample, race, request, used)
        if other is not None:
            return boosted(other, race, sample)
    a, b = entry.fit
    if n > _RACE_ROWS:
        degree = widths.index(max(len(a), len(b)))
        features, X, y = graded_features(columns, degree), used.X.numpy(), used.y.numpy()
        root = np.sqrt(used.weight.numpy())[:, None] / deviation(y, race.noise)
        some = lambda at: _features(features, X[at])  # noqa: E731 - of a block
        a, b = entry.candidate.on_all(some, y, root, entry.fit)
    model, recipe = _polynomial(columns, widths, a, b, request.scale)
    ties = (e.fit for e in race.tied[1:_TIES])
    alternates = tuple(_polynomial(columns, widths, a, b, request.scale)[0] for a, b in ties)
    found = closed(race, sample.y.numpy(), model, entry.name, recipe)
    return boosted(found._replace(alternates=alternates), race, sample)


def _without_strangers(law: ClosedForm, used: Rows, request: Request) -> ClosedForm:
    """Leave out the rows that a law does not explain, if one without them does not either.

    A factor that N and D share makes room for a few of them: it is 0 there.
    """
    N, D = law.model.tuples(used.X)
    size = torch.hypot(N / request.scale, D)[:, 0]
    strange = (_angle(law, used, request) > _STRANGE) | (size < _STRANGE * size.median())
    if not 0 < float(strange.double().mean()) < _MOST_OUTLIERS:
        return law
    fit = _several(used.at(~strange), request, trusted=True)
    out = strange & (_angle(fit, used, request) > _STRANGE)
    places = torch.nonzero(out)[:, 0].tolist()
    return fit._replace(left_out=tuple(places)) if places else law


def _angle(fit: ClosedForm, used: Rows, request: Request) -> Tensor:
    N, D = fit.model.tuples(used.X)
    return chordal_distance(N / request.scale, D, used.y, torch.ones_like(used.y))[:, 0]


def _law(
    sample: Rows, H: Array, widths: list[int], columns: list[Column], request: Request, held: int
) -> ClosedForm | None:
    """Return the rational function of least total degree that is right on unseen rows."""
    y = sample.y[:, 0].numpy()
    for degree, width in enumerate(widths[1:], 1):
        found = total_degree(H, width, y, held=held)
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


def _model(entry: LineEntry, scale: float, x: Tensor) -> Model:
    """Return the model of an entry that was fitted at x."""
    c = entry.candidate
    forms = c.forms(entry.fit, x.numpy())
    return FormModel(tuple(forms), scale) if forms else _readout(entry, "y", scale)


def _readout(entry: LineEntry, target: str, scale: float) -> ReadoutModel:
    """Return the quotient of polynomials that an entry is, of a function of the target."""
    c = entry.candidate
    a, b = (torch.from_numpy(np.array(part[0])) for part in entry.fit)
    columns = [Column(0, *c.axis)]
    maps = graded_features(columns, c.p), graded_features(columns, c.q)
    return ReadoutModel(*maps, a, b[:, None], target, scale)


def _recipe(entry: LineEntry) -> Recipe:
    c = entry.candidate
    return Recipe("polynomial", (c.axis.transform,), (), "y", (c.p, c.q))


def _next_to_poles(
    used: Rows, model: Model, entry: LineEntry, request: Request
) -> tuple[Model, str]:
    """Return the form that holds its accuracy up to a pole, if it serves as well as the winner."""
    c = entry.candidate
    if not isinstance(model, FormModel) or not 0 < c.q <= _MOST_FACTORS:
        return model, entry.name
    own, *others = model.forms
    if others:
        return model, entry.name
    x, y = used.X[:, 0], used.y[:, 0]
    roots = torch.from_numpy(np.asarray(c.axis.middle + c.axis.half * entry.zeros(), complex))
    try:
        form = fit_factored(x, y, roots, c.p, weight=used.weight)
    except FAILURES:
        return model, entry.name
    level = y.abs().clamp(min=1e-3)
    mine, theirs = (
        float(((each(x) - y).abs() / level).square().mean().sqrt()) for each in (own, form)
    )
    if theirs <= max(10 * mine, 1e-13):
        return FormModel((form,), request.scale), "rational"
    return model, entry.name


def _rival(
    sample: Rows, race: RaceFit, request: Request, used: Rows | None = None
) -> ClosedForm | None:
    """Return the fit of a recipe that wins; none where rows are fewer than columns, or it fails."""
    if race.distinct <= sample.X.shape[1]:
        return None
    try:
        return _ahead(sample, race, request, used)
    except FAILURES:
        return None


def _ahead(
    sample: Rows, race: RaceFit, request: Request, used: Rows | None = None
) -> ClosedForm | None:
    """Return the fit of a recipe that wins by three standard errors, if there is one.

    Transforms of y and of columns, linear columns, waves and trunks are searched for on a part of
    the rows; the best is then fitted to the folds of the race.
    """
    if _white(race, sample.y.numpy(), sample.X) or not request.clock.allows("transforms", 1.0):
        return None
    clock = request.clock  # some of it is kept for the folds
    request = request._replace(budget=_SEARCHED * request.budget, clock=clock.part(_SEARCHED))
    parts = split(sample.X, request.seed, sample.group)
    way = searched if sample.X.shape[1] == 1 else solvable
    found, power = way(sample, request, parts)
    found = [each for each in found if not _known(each)]
    if not found:
        return None
    best = preferred(found, len(parts.held))[0]
    y = sample.y.numpy()
    answers = np.full(y.shape, np.nan, y.dtype)
    held, ours = race.entry.held, race.entry.held
    folds = np.unique(race.fold)
    first = max(_FIRST_FOLDS, len(folds) // 3)  # a fold may be a single row
    for f in folds:
        if f >= first and clock.left() < 0:
            break  # what was found is judged by the folds that there was time for
        own = torch.from_numpy(race.fold == f)
        model = solved(best, sample.at(~own), power, request, shared=True)
        N, D = model.tuples(sample.X[own])
        answers[own.numpy()] = (N / torch.where(D == 0, torch.nan, D)).numpy() / request.scale
        seen = race.inner & (race.fold <= f)
        if not seen.any():
            continue
        held = held_out(race, answers, y, rows=seen)
        ours = Held(race.entry.held.error[seen[race.inner]], race.fold[seen], race.noise)
        if f == first - 1:
            mean, _, ratio = ours.behind(held, min(ours.body, held.body))
            if ratio > TYPICAL:  # enough is seen
                break
            if mean < 0 and ratio < 1:  # will not win by three standard errors
                return None
    # with so many coefficients a fit may be right in most rows and mean nothing
    typical = TYPICAL if 2 * best.weights <= len(y) else math.inf
    if not ahead(held, ours, POLE, typical):
        return None
    fit = fit_closed_form(sample if used is None else used, request, Scored(found, power))
    others = tuple(each._replace(delivered=False) for each in compared(race))
    return fit._replace(comparison=(beside(race, best.name, held, delivered=True), *others))


def _white(race: RaceFit, y: Array, X: Tensor) -> bool:
    """Tell whether held-out errors of neighbouring rows have nothing to do with each other.

    Then no function of these columns is left to find. Errors are ranked, for a few large ones next
    to a pole would hide what the others say.
    """
    if len(X) < _FEWEST_WHITE or y.shape[1] > 1:
        return False
    left = np.nan_to_num((race.entry.answers - y)[:, 0] / race.deviation[:, 0], nan=0.0)
    rank = stats.rankdata(left) / len(left) - 0.5
    z = ((X - X.mean(0)) / X.std(0)).numpy()
    neighbour = np.asarray(spatial.KDTree(z).query(z, k=2)[1])[:, 1]
    r = float((rank * rank[neighbour]).mean() * 12)  # 12: one over the variance of a rank
    return abs(r) < 3 / math.sqrt(len(left))  # pairs that are nearest to each other count twice


def _known(candidate: Candidate) -> bool:
    """Tell whether a recipe of one column took part in the race."""
    recipe = candidate.recipe
    return recipe.target == "y" and recipe.transforms in {("identity",), ("log",)}
