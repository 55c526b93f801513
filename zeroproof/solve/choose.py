"""Which form, and which weighting of the rows, serves a table best: held-out rows decide."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from zeroproof._checks import one_of
from zeroproof.errors import RangeError
from zeroproof.layers.basis import chebyshev_basis
from zeroproof.projective.gauge import target_scale
from zeroproof.solve.aaa import fit_barycentric
from zeroproof.solve.degrees import choose_degrees, split_rows
from zeroproof.solve.factored import fit_factored
from zeroproof.solve.forms import CoefficientForm, Form, predict
from zeroproof.solve.linearized import linearized
from zeroproof.solve.noise import noise_power, row_weight
from zeroproof.solve.poles import polynomial_zeros
from zeroproof.solve.table import Table, checked_degrees, checked_table

__all__ = ["FORMS", "Candidate", "Chosen", "choose_form", "relative_error"]

FORMS = ("coefficients", "factored", "barycentric")
CLEAN = 1e-8  # held-out error below which only rounding tells the forms apart
_MOST_ROWS = 3000  # that choose degrees
PREFERENCE = 10.0  # then: of the factored form, fitted to relative errors, over the others


class Candidate(NamedTuple):
    """One way to fit, and how well it did on held-out rows."""

    name: str  # one of FORMS
    start_power: int  # weighting of the linearised fit: 0 chordal, 1 relative
    weight_power: int  # weighting of the form's own fit
    error: float  # root mean square relative error


class Chosen(NamedTuple):
    """The form fitted on all rows, and what it was chosen from."""

    form: Form
    name: str  # one of FORMS
    weight_power: int
    degrees: tuple[int, int]
    error: float  # root mean square relative error on held-out rows
    candidates: tuple[Candidate, ...]


def relative_error(form: Form, x: Tensor, y: Tensor, weight: Tensor | None = None) -> float:
    r"""Return the root mean square of \|ŷ - y\| / \|y\|; infinite if D is 0 in a row.

    Rows with \|y\| below a thousandth of the median are divided by that instead.
    """
    level = y.abs().clamp(min=1e-3 * target_scale(y))
    square = ((predict(form, x) - y).abs() / level).square()
    mean = square.mean() if weight is None else (weight * square).sum() / weight.sum()
    return float(torch.where(torch.isfinite(mean), mean, torch.inf).sqrt())


def choose_form(
    x: Tensor,
    y: Tensor,
    degrees: tuple[int, int] | None = None,
    *,
    weight: Tensor | None = None,
    forms: tuple[str, ...] = FORMS,
    weight_power: int | None = None,
    seed: int = 0,
) -> Chosen:
    """Fit coefficients, factored and barycentric forms, weighted both ways; keep the best.

    One row in five is held out; the form with the lowest root mean square relative error there is
    fitted again on all rows. On clean data, where rounding decides, the factored form fitted
    to relative errors wins unless it is ten times worse: only it holds its accuracy all the way to
    a pole, single or double, nearer than any row. On noisy data the residuals tell how errors grow
    with y (see `noise_power`); degrees and form are chosen once more with rows weighted for that.

    Args:
        x: Points, `(n,)`, real.
        y: Targets, `(n,)`, real or complex; those that are not finite are left out.
        degrees: (p, q) of N and D; chosen on held-out rows by default.
        weight: Row weights, `(n,)`.
        forms: Which forms to try.
        weight_power: How errors grow with y, if that is known: 0, 1 or 2 of `noise_power`.
        seed: Seed of the held-out rows; the same seed gives the same answer.

    Raises:
        ShapeError: x is not `(n,)`, or y and weight do not match it.
        DataError: x is not finite or constant, or no target is finite.
        RangeError: The degrees have more unknowns than there are distinct finite rows, or `forms`
            names no form.

    Examples:
        >>> x = torch.linspace(-1, 1, 200, dtype=torch.float64)
        >>> chosen = choose_form(x, 1 / (x - 0.123) ** 2)
        >>> chosen.name, chosen.error < 1e-13
        ('factored', True)
    """
    for form in forms:
        one_of(form, FORMS, "forms")
    if not forms:
        raise RangeError(f"forms must name at least one of {', '.join(FORMS)}, got none")
    table = checked_table(x, y, weight)
    chosen = _chosen(table, degrees, forms, weight_power, seed)
    if weight_power is None and chosen.error >= CLEAN:
        s = target_scale(table.y)
        # errors beside a pole tell nothing unless it is well placed: relative errors do that
        relative = _chosen(table, degrees, forms, 1, seed)
        answer = predict(relative.form, table.x)
        power = noise_power((answer - table.y) / s, answer / s)
        chosen = relative if power == 1 else _chosen(table, degrees, forms, power, seed)
    return chosen


def _chosen(
    table: Table,
    degrees: tuple[int, int] | None,
    forms: tuple[str, ...],
    power: int | None,
    seed: int,
) -> Chosen:
    if degrees is None:
        order = torch.randperm(len(table.x), generator=torch.Generator().manual_seed(seed))
        part = table.at(order[:_MOST_ROWS])
        y = part.y / target_scale(table.y)
        weight = part.weight * row_weight(y, power or 0)
        degrees = choose_degrees(part.x, y, torch.ones_like(y), weight=weight, seed=seed)
    return _best(table, checked_degrees(degrees, table.x), forms, power, seed)


def _best(
    table: Table, degrees: tuple[int, int], forms: tuple[str, ...], power: int | None, seed: int
) -> Chosen:
    train, held = split_rows(table.x, seed)
    if len(table.x[train].unique()) < sum(degrees) + 1:
        train = held = torch.arange(len(table.x))  # too few rows to spare any
    rows = table.at(held)[:3]
    scored = [
        (candidate._replace(error=relative_error(form, *rows)), form)
        for candidate, form in _fits(table.at(train), degrees, forms, power)
    ]
    candidates = tuple(candidate for candidate, _ in scored)
    clean = min(candidate.error for candidate in candidates) < CLEAN
    if clean:
        best, form = min(scored, key=lambda pair: _handicapped(pair[0]))
    else:
        best, form = min(scored, key=lambda pair: _noisy_error(pair[1], rows, power))
    again = {c[:3]: form for c, form in _fits(table, degrees, (best.name,), power)}.get(
        best[:3], form
    )
    if relative_error(again, *rows) <= 2 * best.error:
        form = again
    return Chosen(form, best.name, best.weight_power, degrees, best.error, candidates)


def _fits(
    table: Table, degrees: tuple[int, int], forms: tuple[str, ...], given: int | None
) -> Iterator[tuple[Candidate, Form]]:
    """Fit every form that the rows allow."""
    x, y, weight, domain = table
    p, q = degrees
    size = max(p, q) + 1
    H = chebyshev_basis(x, size - 1, domain=domain)
    s = target_scale(y)
    for start in (0, 1):
        w = (weight * (1 + (y / s).abs().square()) ** (start - 1))[:, None]
        Y_n = (y / s)[:, None]
        a, b = linearized(H[:, : p + 1], H[:, : q + 1], Y_n, torch.ones_like(Y_n), w)
        zeros = polynomial_zeros(b, "chebyshev", domain)
        if "coefficients" in forms:
            form = CoefficientForm(s * a[:, 0], b, "chebyshev", domain)
            yield Candidate("coefficients", start, start, torch.inf), form
        for power in (0, 1) if given is None else (given,):
            if "factored" in forms:
                form = fit_factored(x, y, zeros, p, weight=weight, weight_power=power)
                yield Candidate("factored", start, power, torch.inf), form
            if "barycentric" in forms and 2 * size <= len(x.unique()) + 1:
                form = fit_barycentric(table, zeros, size, weight_power=power)
                yield Candidate("barycentric", start, power, torch.inf), form


def _noisy_error(form: Form, rows: tuple[Tensor, Tensor, Tensor], power: int | None) -> float:
    """Return the error of a form on noisy rows, in units of the noise."""
    if power is None:
        return relative_error(form, *rows)
    x, y, weight = rows
    s = target_scale(y)
    square = ((predict(form, x) - y) / s).abs().square() * row_weight(y / s, power - 2)
    mean = float((weight * square).sum() / weight.sum())
    return mean if mean < torch.inf else torch.inf


def _handicapped(candidate: Candidate) -> float:
    """Return the error by which forms are compared on clean data."""
    preferred = (candidate.name, candidate.weight_power) == ("factored", 1)
    return candidate.error / (PREFERENCE if preferred else 1)
