"""Fits of a search: features of many kinds, N = H_N a and D = H_D b solved in closed form.

What can be fitted are recipes of the search, the features of a given module, and trained trunks.
Rows held out score each; the choice is solved on all rows and polished where that helps.
"""

import math
import warnings
from collections.abc import Iterator
from contextlib import suppress
from copy import deepcopy
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from zeroproof.errors import DataError, RangeError
from zeroproof.estimators.model import Model, ReadoutModel
from zeroproof.estimators.options import Request, Rows
from zeroproof.layers.features import (
    Column,
    Features,
    ModuleFeatures,
    feature_matrix,
    fit_column,
)
from zeroproof.solve import choose_rho, streamed_readout
from zeroproof.solve.branch import Branch
from zeroproof.solve.centres import distances, find_centres
from zeroproof.solve.noise import POWERS, noise_power, row_weight
from zeroproof.solve.race import whole_groups
from zeroproof.solve.rational import fit_rational
from zeroproof.solve.recipe import Recipe, bases, lift
from zeroproof.solve.search import (
    CLEAN,
    FLOOR,
    ROUNDING,
    Candidate,
    SearchOptions,
    Split,
    best_candidates,
    chordal_error,
    oriented,
    search,
    slack,
    split,
)
from zeroproof.training.trunk import METHODS, default_trunk, fit_trunk

__all__ = [
    "FAILURES",
    "ClosedForm",
    "Compared",
    "Scored",
    "block",
    "crosses",
    "fit_closed_form",
    "preferred",
    "solvable",
    "solved",
]

# of one candidate: it drops out, and the others go on; torch's errors are RuntimeErrors
FAILURES = (ArithmeticError, IndexError, RuntimeError, ValueError)
_MOST_FOR_RHO = 3000  # rows
_ENTRIES = 2**21  # of the features of one block
_GAIN = 2.0  # in error, for more denominators than one
_GAIN_OF_POLES = 2 / 3
_PLACES = (2, 3)  # columns that may be a place in space
_ALTERNATES, _MOST_STEPS = 4, 200
_MOST_POLISHED, _MOST_ENTRIES = 300, 2**23  # beyond, an iteration would outlast the fit
# trunks: shares of the time budget, and the seconds that the search gets before they get more
_LEAST, _MOST, _SEARCH_FIRST = 0.1, 0.6, 9.0
_FEWEST_COLUMNS = 5  # with fewer, random waves cover the inputs
_FEWEST_STEPS = 15  # fewer leave a trunk as it was drawn
_GOOD = 1e-10  # score below which a trunk, trained in float32, is not tried
_MOST_ROWS = 20_000
_STEP = 0.01  # seconds; a count of steps, unlike a clock, gives the same answer again


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
        name: Of the candidate: a kind of curve, a family of features, "module" or a trunk.
        recipe: Transforms, linear columns, target and size, if features were searched.
        error: Mean squared chordal distance on held-out rows, of the fit to the others.
        shell: The same on the outer rows: an extrapolation.
        near: The same over the tenth of held-out rows nearest to ⊥.
        relative: Median relative error of finite held-out rows.
        shared: One denominator for all outputs?
        power: p of the row weights (1 + |y/s|²)^p of the readout.
        polished: Is it the least-squares fit of y itself?
        alternates: Other admissible fits, of the core rows.
        tried: Name, score and number of weights of each.
        significant: Was each pole among the rows tested to stand out of the noise?
        comparison: The fit beside plain models on the same folds, if it was chosen by a race.
        left_out: Rows that no model explains and that the fit did not use.
        cut: What was not tried within the time budget.
        branches: Points of one column where y has a step, a kink, a logarithm or a broken power.
        crosses: Would a pole among the rows, which the affine topology has not, do clearly better?
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
    crosses: bool = False

    def __repr__(self) -> str:
        """Return what was chosen and how well it does; no tensors."""
        return (
            f"<ClosedForm: {self.name}, {self.model.free} coefficients, median relative error on "
            f"unseen rows {self.relative:.2g}>"
        )


class Scored(NamedTuple):
    """Candidates, and the power p of the row weights (1 + |y/s|²)^p they were scored with."""

    candidates: list[Candidate]
    power: int


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
    parts = split(rows.X, request.seed, rows.group)
    found, power = known or solvable(rows, request, parts)
    ordered = preferred(found, len(parts.held))
    while len(ordered) > 1:
        try:
            return _fitted(ordered, power, rows, request, parts)
        except FAILURES:  # a core may be solvable where all rows are not
            ordered = ordered[1:]
    return _fitted(ordered, power, rows, request, parts)


def _fitted(
    ordered: list[Candidate], power: int, rows: Rows, request: Request, parts: Split
) -> ClosedForm:
    """Solve the first of some candidates on all rows."""
    chosen, core = ordered[0], rows.at(parts.core)
    shared, model = _with_denominators(chosen, rows, parts, power, request)
    keep, model = _kept_polish(model, rows, parts, power, request)
    random, shell = held_errors(model, rows, parts, affine=request.affine)
    near, relative = _beside_bottom(model, rows, parts)
    final = solved(chosen, rows, power, request, shared=shared)
    best = polished(final, rows, request) if keep else final
    if request.affine:  # noise can put a pole among rows not held out
        best = next((m for m in (best, final, model) if not crosses(m, rows.X)), best)
    return ClosedForm(
        model=best,
        name=chosen.name,
        recipe=None if chosen.features is not None else chosen.recipe,
        error=random,
        shell=shell,
        near=near,
        relative=relative,
        shared=shared,
        power=power,
        polished=keep,
        alternates=tuple(
            solved(each, core, power, request, shared=shared)
            for each in ordered[1 : 1 + _ALTERNATES]
        ),
        tried=tuple((each.name, each.score, each.weights) for each in ordered),
    )


def solvable(rows: Rows, request: Request, parts: Split) -> Scored:
    """Score all that the request allows, trunks among them where there are many columns.

    Raises:
        RangeError: Nothing fits into the time budget.
    """
    columns, budget = rows.X.shape[1], request.budget
    steps = _trunk_steps(budget)
    trunks = request.features == "auto" and columns >= _FEWEST_COLUMNS and steps >= _FEWEST_STEPS
    if trunks:
        request = request._replace(budget=budget - _trunk_seconds(budget))
    if isinstance(request.features, nn.Module):
        found, power = _of_module(request.features, rows, request, parts)
    else:
        found, power = searched(rows, request, parts)
    found = [each for each in found if each.score < math.inf]
    if not found:
        raise RangeError(
            "time_budget, rows and topology must allow at least one candidate, got "
            f"{request.budget:g} s and {len(rows.X)} rows; smaller degrees need fewer rows"
        )
    if trunks and min(each.score for each in found) >= _GOOD and len(parts.held):
        found += trunk_candidates(rows, request, parts, power, steps)
    return Scored(found, power)


def searched(rows: Rows, request: Request, parts: Split) -> Scored:
    """Search recipes; where y diverges at points, with the distances to them as columns too."""
    centres, options = _centres(rows, request, parts), _options(rows, request)
    found: list[Candidate] = []
    power = None
    if len(centres):
        options = options._replace(budget=options.budget / 2)
        tried, power = search(distances(rows.X, centres), rows.y, options, rows=parts)
        kept = best_candidates(tried, len(parts.held))
        found = [each._replace(centres=centres) for each in kept]
    if not any(each.score <= CLEAN for each in found):
        tried, power = search(rows.X, rows.y, options, rows=parts, power=power)
        found += best_candidates(tried, len(parts.held))
    return Scored(found, power or 0)


def _centres(rows: Rows, request: Request, parts: Split) -> Tensor:
    X, y = rows.X, rows.y
    asked = request.features == "auto" and request.degrees is None and not request.affine
    if not asked or X.shape[1] not in _PLACES or y.shape[1] > 1 or y.is_complex():
        return X[:0]
    used = torch.cat(parts)
    return find_centres(X[used], y[used, 0])


def _options(rows: Rows, request: Request) -> SearchOptions:
    auto = request.features == "auto"
    families = (str(request.features),)
    if auto:
        waves = rows.X.shape[1] > 1 and request.degrees is None
        families = ("polynomial", "random") if waves else ("polynomial",)
    return SearchOptions(
        families=families,
        degrees=request.degrees,
        linear=request.linear,
        transforms=auto,
        affine=request.affine,
        budget=request.budget,
        seed=request.seed,
        clock=request.clock,
    )


def preferred(found: list[Candidate], rows: int) -> list[Candidate]:
    """Return the admissible candidates, at most twice the best score, the choice first.

    The choice is the smallest of those that held-out rows cannot tell from the best. On noisy data
    a constant D comes first unless poles lower the score by a third.

    Args:
        found: Scored candidates.
        rows: How many were held out.
    """
    best = min(each.score for each in found)
    alike = max(slack(best, rows) * best, CLEAN)
    admissible = [each for each in found if each.score <= max(2 * best, CLEAN)]
    bar = best / _GAIN_OF_POLES if best > ROUNDING else 0.0

    def rank(c: Candidate) -> tuple[bool, bool, int, float]:
        plain = c.features is None and not c.recipe.size[1] and c.score <= bar
        return not plain, c.score > alike, c.weights, c.score

    return sorted(admissible, key=rank)


def held_errors(
    model: Model, rows: Rows, parts: Split, power: int = 0, *, affine: bool = False
) -> tuple[float, float]:
    """Return the mean squared chordal distance on held-out rows, random ones and the shell."""
    weight = row_weight(rows.y, power)
    errors = []
    for drawn in (parts.held, parts.shell):
        part = drawn if len(drawn) else parts.core  # too few rows to spare any
        N, D = model.tuples(rows.X[part])
        if affine:
            N, D = oriented(N, D)
        y, w = rows.y[part], weight[part]
        errors.append(chordal_error(N / model.scale, D, y, w, affine=affine))
    return errors[0], errors[1]


def held_residual(model: Model, rows: Rows, parts: Split) -> tuple[Tensor, Tensor]:
    """Return absolute errors and answers over their scale, of held-out rows where both exist."""
    part = parts.held if len(parts.held) else parts.core
    N, D = model.tuples(rows.X[part])
    answer = N / torch.where(D == 0, torch.nan, D) / model.scale
    fine = torch.isfinite(rows.y[part]) & torch.isfinite(answer)
    return (answer - rows.y[part])[fine].abs(), answer[fine]


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


def crosses(model: Model, X: Tensor) -> bool:
    """Tell whether the sign of D changes between rows."""
    D = model.tuples(X).D
    return bool(((D.real > 0).any(0) & (D.real < 0).any(0)).any())


def scored(
    candidate: Candidate, rows: Rows, request: Request, parts: Split, power: int
) -> Candidate:
    """Return a candidate of given features with its score and its number of weights."""
    shared = request.shared is not False
    model = solved(candidate, rows.at(parts.core), power, request, shared=shared)
    errors = held_errors(model, rows, parts, power, affine=request.affine)
    random, shell = (max(error, FLOOR) for error in errors)
    score = math.sqrt(random * shell)
    if request.affine and crosses(model, rows.X[parts.core]):
        score = math.inf
    return candidate._replace(score=score, weights=model.a.numel() + model.b.numel())


def _of_module(module: nn.Module, rows: Rows, request: Request, parts: Split) -> Scored:
    """Score given features, with the row weights that their own errors ask for."""
    linear = request.linear or ()
    columns = [fit_column(x, i) for i, x in enumerate(rows.X.T)]
    own = deepcopy(module).double().eval().requires_grad_(False)
    features = ModuleFeatures(
        tuple(c for c in columns if c.place not in linear),
        own,
        tuple(c for c in columns if c.place in linear),
    )
    H = feature_matrix(features, rows.X)
    if not bool(torch.isfinite(H).all()):
        raise DataError("features must return finite numbers, got inf or nan")
    if not bool((H[:1] != H).any()):
        raise DataError("features must differ between rows, got the same in all of them")
    given = Candidate(Recipe("module", ()), features=features)
    first = scored(given, rows, request, parts, 0)
    if first.score <= CLEAN or first.score == math.inf:
        return Scored([first], 0)
    model = solved(given, rows.at(parts.core), 1, request, shared=request.shared is not False)
    inner = parts._replace(held=torch.cat([parts.core, parts.held]))
    power = noise_power(*held_residual(model, rows, inner))
    return Scored([scored(given, rows, request, parts, power) if power else first], power)


def solved(
    candidate: Candidate, rows: Rows, power: int, request: Request, *, shared: bool
) -> ReadoutModel:
    """Solve a candidate on rows: ρ on held-out ones, then all of them, in blocks.

    Args:
        candidate: What to solve.
        rows: On which.
        power: p of the row weights.
        request: Scale and seed.
        shared: One D for all outputs?
    """
    recipe, features, centres = candidate.recipe, candidate.features, candidate.centres
    if centres is not None:
        rows = rows._replace(X=distances(rows.X, centres))
    if features is not None:
        maps = features, features._replace(linear=())
    else:
        maps = bases(recipe, rows.X, request.seed)
    columns = [slice(None)] if shared else [slice(j, j + 1) for j in range(rows.y.shape[1])]
    heads = [_head(maps, rows._replace(y=rows.y[:, j]), power, recipe.target, request.seed)
             for j in columns]  # fmt: skip
    a, b = (torch.cat(part, 1) for part in zip(*heads, strict=True))
    return ReadoutModel(*maps, a, b, recipe.target, request.scale, centres)


def _with_denominators(
    chosen: Candidate, rows: Rows, parts: Split, power: int, request: Request
) -> tuple[bool, ReadoutModel]:
    """Share one denominator, unless separate ones halve the error on held-out rows."""
    core = rows.at(parts.core)
    shared = request.shared is not False
    model = solved(chosen, core, power, request, shared=shared)
    if request.shared == "auto" and rows.y.shape[1] > 1:
        apart = solved(chosen, core, power, request, shared=False)
        together, separate = (
            max(held_errors(each, rows, parts, power, affine=request.affine)[0], CLEAN)
            for each in (model, apart)
        )
        if separate < together / _GAIN:
            return False, apart
    return shared, model


def _kept_polish(
    model: ReadoutModel, rows: Rows, parts: Split, power: int, request: Request
) -> tuple[bool, ReadoutModel]:
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


def polished(model: ReadoutModel, rows: Rows, request: Request) -> ReadoutModel:
    r"""Return the model after Levenberg-Marquardt on Σ w \|ŷ - y\|² / (1 + \|y / s\|²)^power.

    The model itself where that cannot be: the target was transformed, the features are too many, or
    D is 0 in a row.
    """
    count = len(model.a) * model.a.shape[1] + len(model.b)
    if model.target != "y" or count > _MOST_POLISHED or count * len(rows.X) > _MOST_ENTRIES:
        return model
    kept = torch.isfinite(rows.y).all(1) & (rows.weight > 0)
    H_N, H_D = (H.numpy() for H in model.matrices(rows.X[kept]))
    y = rows.y[kept].numpy().T
    w = np.sqrt(rows.weight[kept].numpy() / (1 + np.abs(y) ** 2) ** request.weight_power)
    shared = model.denominators == 1
    groups = [slice(None)] if shared else [slice(j, j + 1) for j in range(len(y))]
    fits = [
        fit_rational(
            H_N, H_D, y[j], w[None, j], warm=start[None].numpy(), cold=False,
            steps=_MOST_STEPS, resolved=0.0,
        )
        for j, start in zip(groups, model.b.T, strict=True)
    ]  # fmt: skip
    if not all(np.isfinite(fit.objective).all() for fit in fits):
        return model
    a, b = np.hstack([fit.a[0] for fit in fits]), np.stack([fit.b[0] for fit in fits], 1)
    return model._replace(a=torch.from_numpy(a), b=torch.from_numpy(b))


def objective(model: Model, rows: Rows, request: Request) -> float:
    """Return what the polish minimises; infinite where an answer is."""
    N, D = model.tuples(rows.X)
    answer = N / torch.where(D == 0, torch.nan, D) / model.scale
    square = (answer - rows.y).abs().square() / (1 + rows.y.abs().square()) ** request.weight_power
    total = (rows.weight[:, None] * square)[torch.isfinite(rows.y)].sum()
    return float(torch.where(torch.isfinite(total), total, torch.inf))


def _head(
    maps: tuple[Features, Features], rows: Rows, power: int, target: str, seed: int
) -> tuple[Tensor, Tensor]:
    n = len(rows.X)
    sample = torch.randperm(n, generator=torch.Generator().manual_seed(seed))[:_MOST_FOR_RHO]
    some = rows.at(sample)
    H_N, H_D, Y_n, Y_d, weight = block(maps, some, power, target)
    held = torch.arange(len(sample)) < (max(1, len(sample) // 8) if len(sample) > 7 else 0)
    if some.groups is not None and np.ptp(some.groups) > 0:
        held = torch.from_numpy(whole_groups(some.groups, 1 / 8, seed))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # few rows, common zeros: ρ sees to that
        rho = choose_rho(
            H_N, Y_n, Y_d, ~held, held if held.any() else ~held, H_D=H_D, weight=weight
        ).rho
        blocks = _FeatureBlocks(maps, rows, power, target)
        readout = streamed_readout(blocks, distributed=False, rho=rho)
        if power and target == "y":  # weights from targets alone favour rows with a large error
            blocks.head = readout.a, readout.b
            readout = streamed_readout(blocks, distributed=False, rho=rho)
    return readout.a, readout.b


def block(
    maps: tuple[Features, Features],
    rows: Rows,
    power: int,
    target: str,
    head: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return features, tuples of T(y) and weights of rows, as the readout takes them.

    With a head that was solved before, weights follow its answers.
    """
    H_N, H_D = (feature_matrix(each, rows.X) for each in maps)
    Y_n, Y_d = lift(target, rows.y)
    if head is None:
        weight = row_weight(rows.y, power)
    else:
        N, D = H_N.to(head[0].dtype) @ head[0], H_D.to(head[1].dtype) @ head[1]
        weight = row_weight(rows.y, power, N / torch.where(D == 0, torch.nan, D))
    return H_N, H_D, Y_n, Y_d, rows.weight * weight


class _FeatureBlocks:
    """Rows in blocks whose features fit into memory, anew in every sweep."""

    def __init__(
        self, maps: tuple[Features, Features], rows: Rows, power: int, target: str
    ) -> None:
        self.maps, self.rows, self.power, self.target = maps, rows, power, target
        self.head: tuple[Tensor, Tensor] | None = None

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor, Tensor]]:
        wide = sum(feature_matrix(each, self.rows.X[:1]).shape[1] for each in self.maps)
        for part in torch.arange(len(self.rows.X)).split(max(1, _ENTRIES // wide)):
            yield block(self.maps, self.rows.at(part), self.power, self.target, self.head)


def _trunk_seconds(budget: float) -> float:
    """Return the part of a time budget that trunks get: structure that a search finds is better."""
    return max(_LEAST * budget, min(_MOST * budget, budget - _SEARCH_FIRST))


def _trunk_steps(budget: float) -> int:
    return int(_trunk_seconds(budget) / len(METHODS) / _STEP)


def trunk_candidates(
    rows: Rows, request: Request, parts: Split, power: int, steps: int
) -> list[Candidate]:
    """Train a trunk by each method and score its closed-form head."""
    found = []
    for method in METHODS:
        if not request.clock.allows("trained trunks", steps * _STEP):
            break
        module = _trained(rows, request, parts, method, steps)
        columns = tuple(Column(i, "identity", 0.0, 1.0) for i in range(rows.X.shape[1]))
        candidate = Candidate(
            Recipe(f"{method} trunk", ()), features=ModuleFeatures(columns, module)
        )
        with suppress(*FAILURES):
            found.append(scored(candidate, rows, request, parts, power))
    return [each for each in found if each.score < math.inf]


def _trained(rows: Rows, request: Request, parts: Split, method: str, steps: int) -> nn.Module:
    """Train on all rows but the shell, the held-out ones aside; standardisation goes inside."""
    used = rows.at(_used(len(rows.X), parts, request.seed, rows.group))
    mean, std = used.X.mean(0), used.X.std(0).clamp(min=1e-300)
    trunk = default_trunk(rows.X.shape[1], seed=request.seed)
    fitted = fit_trunk(
        trunk,
        (used.X - mean) / std,
        *lift("y", used.y),
        method=method,
        steps=steps,
        time_budget=4 * steps * _STEP,
        held=torch.arange(len(used.X)) < len(parts.held),
        weight=used.weight,
        seed=request.seed,
    ).trunk
    first = next(layer for layer in fitted.modules() if isinstance(layer, nn.Linear))
    with torch.no_grad():
        first.bias.sub_(first.weight @ (mean / std))
        first.weight.div_(std)
    return fitted.eval().requires_grad_(False)


def _used(count: int, parts: Split, seed: int, group: Tensor | None = None) -> Tensor:
    """Return the rows held out, those of the core and others by chance, none of the shell."""
    first, unseen = torch.cat([parts.held, parts.core]), torch.cat([parts.held, parts.shell])
    left = torch.ones(count, dtype=torch.bool)
    left[torch.cat([first, parts.shell])] = False
    if group is not None:
        left &= ~torch.isin(group, group[unseen])
    others = torch.nonzero(left)[:, 0]
    drawn = torch.randperm(len(others), generator=torch.Generator().manual_seed(seed))
    return torch.cat([first, others[drawn]])[:_MOST_ROWS]
