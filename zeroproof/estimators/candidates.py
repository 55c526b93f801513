"""The candidates of a closed-form fit: each can be solved on any rows, and says what it reached."""

import math
import warnings
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from zeroproof.errors import DataError, RangeError
from zeroproof.estimators.model import FormModel, Model, ReadoutModel
from zeroproof.layers.features import (
    Features,
    ModuleFeatures,
    feature_matrix,
    fit_column,
)
from zeroproof.solve import choose_rho, streamed_readout
from zeroproof.solve.centres import distances, find_centres
from zeroproof.solve.choose import FORMS, choose_form
from zeroproof.solve.noise import noise_power, row_weight
from zeroproof.solve.recipe import Recipe, bases, lift
from zeroproof.solve.search import (
    CLEAN,
    FLOOR,
    ROUNDING,
    Budget,
    SearchOptions,
    Split,
    best_candidates,
    chordal_error,
    oriented,
    search,
    slack,
)
from zeroproof.solve.search import Candidate as Searched

__all__ = [
    "FAILURES",
    "Candidate",
    "Request",
    "Rows",
    "Scored",
    "block",
    "candidates",
    "crosses",
    "held_errors",
    "held_residual",
    "of_features",
    "preferred",
    "scored",
    "searched",
]

# of one candidate: it drops out, and the others go on; torch's errors are RuntimeErrors
FAILURES = (ArithmeticError, IndexError, RuntimeError, ValueError)
_MOST_FOR_RHO = 3000  # rows
_ENTRIES = 2**21  # of the features of one block
_GAIN_OF_POLES = 2 / 3
_PLACES = (2, 3)  # columns that may be a place in space
_ONE_COLUMN = ("auto", "chebyshev", "polynomial")
_EXACT = CLEAN * 100  # error of a rational form between other rows that leaves nothing to find


class Request(NamedTuple):
    """What was asked for; checked."""

    features: str | nn.Module
    degrees: tuple[int, int] | None
    affine: bool
    shared: bool | str
    linear: tuple[int, ...] | None
    scale: float
    weight_power: float
    polish: str
    budget: float
    seed: int
    symmetry: str = "none"
    clock: Budget = Budget()  # of the whole fit


class Rows(NamedTuple):
    """Rows to solve on; y over its scale."""

    X: Tensor  # (n, d)
    y: Tensor  # (n, m)
    weight: Tensor  # (n,)

    def at(self, index: Tensor) -> "Rows":
        """Return the rows `index`."""
        return Rows(self.X[index], self.y[index], self.weight[index])


class Candidate(NamedTuple):
    """A way to fit: its name, held-out score (see `search`), and how to solve it on given rows."""

    name: str
    score: float
    weights: int
    solve: Callable[[Rows, int, bool], Model]  # rows, power of the row weights, one D for all?
    recipe: Recipe | None = None


class Scored(NamedTuple):
    """Candidates, and the power p of the row weights (1 + |y/s|²)^p they were scored with."""

    candidates: list[Candidate]
    power: int


def candidates(rows: Rows, request: Request, parts: Split) -> Scored:
    """Score what the request allows, the forms of one variable first.

    Raises:
        RangeError: Nothing fits into the time budget.
    """
    features, found, power = request.features, [], None
    if isinstance(features, nn.Module):
        given = _of_module(features, rows, request)
        found, power = _with_power(given, rows, request, parts)
    elif _forms_serve(rows, request):
        form = Candidate("rational", math.inf, 0, _form_solver(request))
        found, power = _with_power(form, rows, request, parts)
    # poles of complex targets are roots of a form; no search would find those of other features
    exact = any(each.score <= CLEAN for each in found) or (bool(found) and rows.y.is_complex())
    several = rows.y.shape[1] > 1 and features in _ONE_COLUMN
    if not exact and (features == "auto" or not found or several):
        more, power = searched(rows, request, parts, power)
        found += more
    found = [each for each in found if each.score < math.inf]
    if not found:
        raise RangeError(
            "time_budget, rows and topology must allow at least one candidate, got "
            f"{request.budget:g} s and {len(rows.X)} rows; smaller degrees need fewer rows"
        )
    return Scored(found, power or 0)


def searched(
    rows: Rows, request: Request, parts: Split, power: int | None
) -> tuple[list[Candidate], int]:
    """Search recipes; where y diverges at points, with the distances to them as columns too."""
    centres, options = _centres(rows, request, parts), _options(rows, request)
    found: list[Candidate] = []
    if len(centres):
        options = options._replace(budget=options.budget / 2)
        tried, power = search(distances(rows.X, centres), rows.y, options, rows=parts, power=power)
        kept = best_candidates(tried, len(parts.held))
        found = [_of_recipe(each, request, centres) for each in kept]
    if not any(each.score <= CLEAN for each in found):
        tried, power = search(rows.X, rows.y, options, rows=parts, power=power)
        kept = best_candidates(tried, len(parts.held))
        found += [_of_recipe(each, request) for each in kept]
    return found, power or 0


def _centres(rows: Rows, request: Request, parts: Split) -> Tensor:
    X, y = rows.X, rows.y
    asked = request.features == "auto" and request.degrees is None and not request.affine
    if not asked or X.shape[1] not in _PLACES or y.shape[1] > 1 or y.is_complex():
        return X[:0]
    used = torch.cat(parts)
    return find_centres(X[used], y[used, 0])


def _with_power(
    candidate: Candidate, rows: Rows, request: Request, parts: Split
) -> tuple[list[Candidate], int | None]:
    """Score a candidate with the row weights that its own errors ask for; None: exact."""
    first = scored(candidate, rows, request, parts, 0)
    if first.score <= _EXACT or first.score == math.inf:
        return [first], None
    model = candidate.solve(rows.at(parts.core), 1, request.shared is not False)
    inner = parts._replace(held=torch.cat([parts.core, parts.held]))
    power = noise_power(*held_residual(model, rows, inner))
    return [scored(candidate, rows, request, parts, power) if power else first], power


def _forms_serve(rows: Rows, request: Request) -> bool:
    one = rows.X.shape[1] == 1 and request.features in _ONE_COLUMN
    apart = rows.y.shape[1] == 1 or request.shared is not True  # each form has a D of its own
    return one and apart and not request.linear and request.budget >= 0.02 + 5e-5 * rows.y.numel()


def preferred(found: list[Candidate], rows: int) -> list[Candidate]:
    """Return the admissible candidates, at most twice the best score, the choice first.

    The choice is the smallest of those that held-out rows cannot tell from the best, or among these
    the rational form of one column: its poles are roots, not a search. On noisy data a constant D
    comes first unless poles lower the score by a third.

    Args:
        found: Scored candidates.
        rows: How many were held out.
    """
    best = min(each.score for each in found)
    alike = max(slack(best, rows) * best, CLEAN)
    admissible = [each for each in found if each.score <= max(2 * best, CLEAN)]
    bar = best / _GAIN_OF_POLES if best > ROUNDING else 0.0

    def rank(c: Candidate) -> tuple[bool, bool, bool, int, float]:
        plain = c.recipe is not None and not c.recipe.size[1] and c.score <= bar
        return not plain, c.score > alike, c.name != "rational", c.weights, c.score

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


def _options(rows: Rows, request: Request) -> SearchOptions:
    features, auto = request.features, request.features == "auto"
    families = (str(features),)
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


def scored(
    candidate: Candidate, rows: Rows, request: Request, parts: Split, power: int
) -> Candidate:
    """Return the candidate with its score on held-out rows and its number of weights."""
    core = rows.at(parts.core)
    try:
        model = candidate.solve(core, power, request.shared is not False)
        found = held_errors(model, rows, parts, power, affine=request.affine)
    except FAILURES:
        if request.degrees is not None or isinstance(request.features, nn.Module):
            raise  # the only candidate: its sentence says what to change
        return candidate._replace(score=math.inf)
    random, shell = (max(error, FLOOR) for error in found)
    score = random if random <= _EXACT else math.sqrt(random * shell)
    if request.affine and crosses(model, core.X):
        score = math.inf
    return candidate._replace(score=score, weights=_weights(model))


def crosses(model: Model, X: Tensor) -> bool:
    """Tell whether the sign of D changes between rows."""
    D = model.tuples(X).D
    return bool(((D.real > 0).any(0) & (D.real < 0).any(0)).any())


def _weights(model: Model) -> int:
    if isinstance(model, ReadoutModel):
        return model.a.numel() + model.b.numel()
    return sum(_length(field) for form in model.forms for field in vars(form).values())


def _length(field: object) -> int:
    return len(field) if isinstance(field, Tensor) else 0


def _form_solver(request: Request) -> Callable[[Rows, int, bool], Model]:
    equal = request.degrees is None or request.degrees[0] == request.degrees[1]
    kinds = FORMS if equal else FORMS[:2]  # N and D of a barycentric form are of one degree

    def solve(rows: Rows, power: int, shared: bool) -> Model:
        x = rows.X[:, 0]
        forms = [
            choose_form(
                x,
                y,
                request.degrees,
                forms=kinds,
                weight=rows.weight,
                weight_power=power or None,
                seed=request.seed,
            ).form
            for y in rows.y.T
        ]
        return FormModel(tuple(forms), request.scale)

    return solve


def _of_recipe(found: Searched, request: Request, centres: Tensor | None = None) -> Candidate:
    recipe = found.recipe

    def solve(rows: Rows, power: int, shared: bool) -> Model:
        if centres is not None:
            rows = rows._replace(X=distances(rows.X, centres))
        maps = bases(recipe, rows.X, request.seed)
        model = _solved(maps, rows, power, recipe.target, request, shared=shared)
        return model._replace(centres=centres)

    return Candidate(recipe.family, found.score, found.weights, solve, recipe)


def _of_module(module: nn.Module, rows: Rows, request: Request) -> Candidate:
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
    return of_features(features, "module", request)


def of_features(features: ModuleFeatures, name: str, request: Request) -> Candidate:
    """Return the candidate of given features, not scored yet."""

    def solve(rows: Rows, power: int, shared: bool) -> Model:
        maps = features, features._replace(linear=())
        return _solved(maps, rows, power, "y", request, shared=shared)

    return Candidate(name, math.inf, 0, solve)


def _solved(
    maps: tuple[Features, Features],
    rows: Rows,
    power: int,
    target: str,
    request: Request,
    *,
    shared: bool,
) -> ReadoutModel:
    """Solve on rows: ρ on held-out ones, then all of them, in blocks."""
    columns = [slice(None)] if shared else [slice(j, j + 1) for j in range(rows.y.shape[1])]
    solved = [_one_solved(maps, rows._replace(y=rows.y[:, j]), power, target, request.seed)
              for j in columns]  # fmt: skip
    a, b = (torch.cat(part, 1) for part in zip(*solved, strict=True))
    return ReadoutModel(*maps, a, b, target, request.scale)


def _one_solved(
    maps: tuple[Features, Features], rows: Rows, power: int, target: str, seed: int
) -> tuple[Tensor, Tensor]:
    n = len(rows.X)
    sample = torch.randperm(n, generator=torch.Generator().manual_seed(seed))[:_MOST_FOR_RHO]
    H_N, H_D, Y_n, Y_d, weight = block(maps, rows.at(sample), power, target)
    held = max(1, len(sample) // 8) if len(sample) > 7 else 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # few rows, common zeros: ρ sees to that
        rho = choose_rho(
            H_N, Y_n, Y_d, slice(held, None), slice(0, held or None), H_D=H_D, weight=weight
        ).rho
        blocks = _Blocks(maps, rows, power, target)
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


class _Blocks:
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
