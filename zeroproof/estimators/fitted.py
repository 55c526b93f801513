"""A closed-form fit ready to answer: values with masks, poles and roots, a score, a picture."""

import math
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zeroproof._checks import one_of
from zeroproof.errors import RangeError
from zeroproof.estimators.closed_form import ClosedForm
from zeroproof.estimators.labels import Labels, Region
from zeroproof.estimators.model import FormModel, Model, ReadoutModel, cancelled, head, tuples
from zeroproof.estimators.regions import constant_denominator, disagreement
from zeroproof.estimators.uncertainty import answer_errors, pole_errors
from zeroproof.inference import InferenceConfig, StrictResult
from zeroproof.inference.strict import decided
from zeroproof.plots.fit import Answers, plot_curve, plot_parity
from zeroproof.projective import denominator_score
from zeroproof.projective.angle import chordal_distance
from zeroproof.projective.gauge import rescaled
from zeroproof.projective.pair import Pair
from zeroproof.solve.forms import ConjugateForm
from zeroproof.solve.interval import interpolated, known, pole_curve
from zeroproof.solve.poles import RESOLUTION, TOLERANCE, PoleTable, on_interval, pole_table, roots
from zeroproof.solve.race import SIGNIFICANT
from zeroproof.solve.recipe import lift

__all__ = [
    "Fitted",
    "curves_of",
    "in_x",
    "is_system",
    "known_poles",
    "oriented_tuples",
    "parts_of",
    "picture_of",
    "poles_of",
    "roots_of",
    "skill",
    "strict",
    "warn_outside",
]

_COARSEST = 1e-2  # half widths: poles farther apart are never taken for one
_GRID = 2001
_WIDE = 30.0  # largest over smallest input from which their axis may be logarithmic
# t(x), x(t), x' and x'' of the transforms of a column
_BACK: dict[str, tuple[Callable[[Tensor], Tensor], ...]] = {
    "identity": (lambda x: x, lambda t: t, torch.ones_like, torch.zeros_like),
    "log": (torch.log, torch.exp, torch.exp, torch.exp),
    "sqrt": (torch.sqrt, torch.square, lambda t: 2 * t, lambda t: 2 + 0 * t),
    "inverse": (torch.reciprocal, torch.reciprocal, lambda t: -1 / t**2, lambda t: 2 / t**3),
}
_REAL = 1e-12  # of the range of x: a smaller imaginary part is rounding
_RISKY = 0.1  # of the answer: a larger standard error is a gap
_MOST_TARGETS = 4
_CANCELS = 0.3  # of residues: the sum of those of a double pole that noise has split


class Fitted(NamedTuple):
    """All that is needed to answer rows.

    Attributes:
        fit: The model and what it was chosen from.
        thresholds: With the angle score and the scale of y.
        columns: Which columns of X are used, by place.
        names: Their names.
        domain: Their smallest and largest values, `(2, columns)`, float64.
        affine: Do +∞ and -∞ differ? Then D <= 0 is ⊥.
        sign: ±1 for each D, so that D > 0 on the data if the topology is affine.
        flat: Were the targets `(n,)`?
        seen: Names of all columns of X, or their number if they had none.
        spread: Roots of the covariance of the coefficients, see `spread_of`.
        region: Inputs without an answer, if labels fill one.
        labels: How many rows were labelled, and what is answered there.
        rows: How many rows were fitted; 0 where that is not known.
    """

    fit: ClosedForm
    thresholds: InferenceConfig
    columns: tuple[int, ...]
    names: tuple[str, ...]
    domain: Tensor
    affine: bool
    sign: Tensor
    flat: bool
    seen: tuple[str, ...] | int
    spread: tuple[Tensor, ...] = ()
    region: Region | None = None
    labels: Labels | None = None
    rows: int = 0


def oriented_tuples(fitted: Fitted, X: Tensor) -> Pair:
    """Return ⟨N, D⟩ in the units of y; rows of X that are not finite give tuples that are not."""
    finite = torch.isfinite(X).all(1, keepdim=True)
    N, D = tuples(fitted.fit.model, torch.where(finite, X, torch.nan))
    return Pair(torch.where(finite, N, torch.nan) * fitted.sign, D * fitted.sign)


def strict(fitted: Fitted, X: Tensor) -> StrictResult:
    r"""Return answers with masks, `(n, k)`, for rows of the columns that are used.

    ⟨0, 0⟩ up to rounding is ⊥, and so is what lies in a region of labels.

    Beside the thresholds, the local error e of the answer y decides: with s the scale of the
    targets, e / √(s² + y²) is the error of the angle over the angle to ⊥. Above 1 the sign of D is
    not known, and the answer is ⊥; above a tenth it is in the gap. Other fits that serve as well
    add to the error, yet they alone make no ⊥: one of them may have a pole just beyond the data.
    """
    N, D = oriented_tuples(fitted, X)
    beyond = cancelled(fitted.fit.model, X).expand_as(N)
    if fitted.affine:
        beyond = beyond | (D <= 0)
    if fitted.region is not None:
        beyond = beyond | fitted.region.holds(X)[:, None]
    found = decided(N, D, fitted.thresholds, bottom=beyond)
    if not fitted.spread or constant_denominator(fitted.fit):
        return found
    error = answer_errors(fitted.fit, fitted.spread, X)
    size = torch.hypot(found.decoded.abs(), torch.tensor(fitted.thresholds.scale).double())
    level = error / size
    alone = fitted.fit._replace(alternates=())
    far = (level > 1).any(1)
    unknown = torch.zeros_like(found.bottom_mask)
    unknown[far] = answer_errors(alone, fitted.spread, X[far]) > size[far]
    lost = found.bottom_mask | unknown
    gap = (found.gap_mask | (level > _RISKY)) & ~lost
    return StrictResult(torch.where(lost, torch.nan, found.decoded), lost, gap)


def parts_of(result: StrictResult) -> StrictResult:
    """Return real and imaginary part of complex answers as two columns each, with their masks."""
    decoded, *masks = result
    if not decoded.is_complex():
        return result
    parts = torch.view_as_real(decoded.resolve_conj()).flatten(1)
    return StrictResult(parts, *(mask.repeat_interleave(2, 1) for mask in masks))


def warn_outside(fitted: Fitted, X: Tensor, stacklevel: int = 2) -> None:
    """Warn of rows outside the data on which admissible fits disagree."""
    low, high = fitted.domain
    beyond = ((low > X) | (high < X)).any(1) & torch.isfinite(X).all(1)
    apart = disagreement(fitted.fit, X[beyond], fitted.thresholds.scale)
    count = int((apart > 0).sum())
    if count:
        warnings.warn(
            f"{count} rows lie outside the data, where fits that serve the data equally well "
            f"differ by up to {float(apart.max()):.2g} of the answer",
            stacklevel=stacklevel,
        )


def skill(N: Tensor, D: Tensor, y: Tensor, weight: Tensor) -> float:
    """Return 1 - E / E₀.

    E₀ = 1 - λ, λ the largest eigenvalue of the mean projector on the unit tuples of an output.

    Args:
        N: Numerators over the scale of y, `(n, m)`.
        D: Denominators, `(n, m)` or `(n, 1)`.
        y: Targets over their scale, `(n, m)`, inf and nan allowed.
        weight: Row weights, `(n,)`.

    Examples:
        >>> y = torch.tensor([[1.0], [-1.0]])
        >>> skill(y, torch.ones(2, 1), y, torch.ones(2))
        1.0
    """
    Y_n, Y_d = lift("y", y)
    w = weight / weight.sum()
    square = chordal_distance(N, D.expand_as(N), Y_n, Y_d).square().nan_to_num(nan=1.0)
    error = float((w[:, None] * square).sum(0).mean())
    Y_n, Y_d, _ = rescaled(Y_n, Y_d)
    unit = torch.stack([Y_n, Y_d], -1)
    unit = unit / torch.linalg.vector_norm(unit, dim=-1, keepdim=True)
    projector = torch.einsum("n,nmi,nmj->mij", w.to(unit.dtype), unit, unit.conj())
    constant = float((1 - torch.linalg.eigvalsh(projector)[:, -1]).mean())
    if constant <= 0:  # all targets alike
        return 1.0 if error == 0 else 0.0
    return 1 - error / constant


def poles_of(
    fit: ClosedForm, domain: tuple[float, float], output: int, resolution: float | None = None
) -> PoleTable:
    """Return the poles of one output, complex ones too, whatever the fit is stored as.

    Noise splits double poles by its root and leaves weak pairs, so resolution and tolerance grow
    with the relative error of the fit, unless a resolution is given, by those who know standard
    errors. Of a fit to y² or log y they are the places where that
    diverges: y itself has half the exponent, or no power at all; its residue is nan then, and
    its strength is known where the exponent is a whole number.
    """
    relative = fit.relative if math.isfinite(fit.relative) else 0.0
    tolerance = max(TOLERANCE, relative) if resolution is None else TOLERANCE
    if resolution is None:
        resolution = max(RESOLUTION, min(math.sqrt(relative), _COARSEST))
    model, scale = fit.model, fit.model.scale
    if isinstance(model, FormModel):
        form = model.forms[_output(output, len(model.forms))]
        table = pole_table(form, resolution=resolution, tolerance=tolerance)
    else:
        table = _of_readout(model, domain, output, resolution, tolerance)
    if fit.significant:  # D changes its sign there, and N is clear of 0
        p = table.position
        on_data = (p.imag == 0) & (p.real >= domain[0]) & (p.real <= domain[1])
        table = table._replace(spurious=table.spurious & ~on_data)
    residue, strength, exponent = table.residue, table.strength, table.multiplicity.double()
    target = model.target if isinstance(model, ReadoutModel) else "y"
    if target != "y":
        residue = residue * math.nan
        exponent = exponent / 2 if target == "square" else exponent * math.nan
        strength = torch.where(exponent % 1 == 0, strength.abs().sqrt() + 0j, math.nan)
    return table._replace(residue=residue * scale, strength=strength * scale, exponent=exponent)


def _of_readout(
    model: ReadoutModel, domain: tuple[float, float], output: int, resolution: float, fine: float
) -> PoleTable:
    """Return poles by interpolants in t(x), the variable in which the features are polynomials.

    With x(t), residue r and strength s of a pole in t become r x' + s x'' and s x'^m: the first
    because 1 / (t - t₀)² = x'² / (x - x₀)² + x'' / (x - x₀) + …
    """
    columns = getattr(model.H_D, "columns", ())
    transform = columns[0].transform if len(columns) == 1 and model.centres is None else "identity"
    if transform not in _BACK:
        transform = "identity"
    if transform == "inverse" and len(model.b) == 1:
        return _at_zero(model, output)
    there, back, slope, bend = _BACK[transform]
    ends = sorted(float(there(torch.tensor(end, dtype=torch.float64))) for end in domain)
    form = interpolated(lambda t: _line(model, back(t), output), ends)
    table = pole_table(form, resolution=resolution, tolerance=fine)
    t, m = table.position, table.multiplicity
    # log and the root have one sheet; x = 1/t has no place for t = 0
    sheet = {"log": t.imag.abs() < math.pi, "sqrt": t.real > 0, "inverse": t != 0}
    kept = known(form, t) & sheet.get(transform, torch.ones_like(m, dtype=torch.bool))
    double = torch.where(m == 2, table.strength, 0)
    table = table._replace(
        position=back(t),
        residue=table.residue * slope(t) + double * bend(t),
        strength=table.strength * slope(t) ** m,
    )
    table = PoleTable(*(part[kept] for part in table[:5]))
    order = table.position.real.argsort()
    return PoleTable(*(part[order] for part in table[:5]))


def _at_zero(model: ReadoutModel, output: int) -> PoleTable:
    """Return the pole of a polynomial of 1/x."""
    (column,) = model.H_N.columns
    ends = [column.middle - column.half, column.middle + column.half]
    a = np.polynomial.Chebyshev((model.a[:, output] / model.b[0, 0]).numpy(), ends)
    c = a.convert(kind=np.polynomial.Polynomial, domain=[-1, 1], window=[-1, 1]).coef
    here = torch.zeros(1, dtype=torch.complex128)
    return PoleTable(here, here + c[1], here + c[-1], torch.tensor([len(c) - 1]), here.real > 0)


def in_x(model: Model, position: Tensor) -> Tensor:
    """Return poles in the units of x; those of a real system are given in s = ix."""
    return -1j * position if is_system(model) else position


def is_system(model: Model) -> bool:
    """Tell whether a model is the complex response of a real system, with poles in s = ix."""
    form = model.forms[0] if isinstance(model, FormModel) else None
    return isinstance(form, ConjugateForm) and not form.part


def known_poles(fitted: Fitted, output: int) -> PoleTable:
    """Return the poles of one output with standard errors, where these are known.

    A pole whose strength is not clear of its own error is spurious. Two that are as near to each
    other as their errors, with residues that cancel, are one double pole.
    """
    low, high = fitted.domain[:, 0].tolist()
    half = (high - low) / 2
    if not fitted.spread:
        return _placed(fitted, poles_of(fitted.fit, (low, high), output))

    def judged(resolution: float) -> PoleTable:
        table = poles_of(fitted.fit, (low, high), output, resolution)
        if not len(table.position):
            return _placed(fitted, table)
        return pole_errors(fitted.fit, fitted.spread[output], _placed(fitted, table), output)

    table = judged(RESOLUTION)
    form = fitted.fit.model.forms[0] if isinstance(fitted.fit.model, FormModel) else None
    if not len(table.position) or isinstance(form, ConjugateForm):  # whose race has judged them
        return table
    if table.position_se is not None:
        p, r, se = table.position, table.residue, table.position_se
        gap, size = (p[:, None] - p).abs(), torch.maximum(r.abs()[:, None], r.abs())
        split = (gap > 0) & (gap < (3 * (se[:, None] + se)).clamp(max=_COARSEST * half))
        split &= (r[:, None] + r).abs() < _CANCELS * size
        if bool(split.any()):
            table = judged(1.01 * float(gap[split].max()) / half)
    if table.significance is not None:
        table = table._replace(spurious=table.spurious | (table.significance < SIGNIFICANT))
    others = [
        poles_of(fitted.fit._replace(model=each), (low, high), output)
        for each in fitted.fit.alternates
    ]
    return _with_ties(table, [other for other in others if len(other.position)])


def _placed(fitted: Fitted, table: PoleTable) -> PoleTable:
    """Mark poles among the data, and as spurious those that stand for a branch point."""
    low, high = fitted.domain[:, 0].tolist()
    p = in_x(fitted.fit.model, table.position)
    # complex targets leave rounding in the imaginary part of a real pole
    inside = (p.imag.abs() <= _REAL * (high - low)) & (p.real >= low) & (p.real <= high)
    spurious = table.spurious
    for branch in fitted.fit.branches:
        spurious = spurious | ((p - branch.position).abs() < branch.reach)
    return table._replace(inside=inside, spurious=spurious)


def _with_ties(table: PoleTable, others: list[PoleTable]) -> PoleTable:
    """Add the variance over the poles of fits that the race could not tell apart."""
    p = table.position
    gap = (p[:, None] - p).abs()
    reach = gap.masked_fill(gap == 0, torch.inf).amin(1) / 2
    positions, residues = [p], [table.residue]
    for other in others:
        away = (p[:, None] - other.position).abs()
        nearest, at = away.min(1)
        same = nearest < reach
        positions.append(torch.where(same, other.position[at], p))
        residues.append(torch.where(same, other.residue[at], table.residue))
    apart, spread = (torch.stack(each).var(0, correction=0) for each in (positions, residues))
    own = table.position_se, table.residue_se
    both = (
        torch.hypot(error, more.sqrt())
        for error, more in zip(own, (apart, spread), strict=True)
        if error is not None
    )
    return table._replace(**dict(zip(("position_se", "residue_se"), both, strict=True)))


def roots_of(fit: ClosedForm, domain: tuple[float, float], output: int) -> Tensor:
    """Return the zeros of N of one output, complex."""
    relative = fit.relative if math.isfinite(fit.relative) else 0.0
    if isinstance(fit.model, FormModel):
        form = fit.model.forms[_output(output, len(fit.model.forms))]
        return roots(form, tolerance=max(TOLERANCE, relative))
    model = fit.model
    form = interpolated(lambda x: _line(model, x, output), domain)
    zeros = roots(form, tolerance=max(TOLERANCE, relative))
    return zeros[known(form._replace(b=form.a), zeros)]


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


def picture_of(
    fitted: Fitted,
    X: NDArray[np.float64],
    y: NDArray[Any],
    names: tuple[str, ...] | None = None,
) -> Any:
    """Return the figure: a curve over one column, else predictions against targets.

    Args:
        fitted: The fit.
        X: Rows of the columns that are used.
        y: Targets, `(n,)` or `(n, k)`.
        names: Names of the targets.

    Complex targets are drawn as real and imaginary part, two targets each, and named so.
    """
    y = y.reshape(len(y), -1)
    plain = ("y",) if y.shape[1] == 1 else tuple(f"y{j}" for j in range(y.shape[1]))
    if np.iscomplexobj(y):
        plain = tuple(f"{part} {name}" for name in plain for part in ("Re", "Im"))
        y = y.view(np.float64)
    names = names or plain
    targets = {name: y[:, j] for j, name in enumerate(names[:_MOST_TARGETS])}
    if X.shape[1] > 1:
        return plot_parity(targets, _answers(fitted, X, len(targets)))
    low, high = float(X.min()), float(X.max())
    # decades of x, as of doses and frequencies, crowd at the left of a linear axis
    decades = 0 < _WIDE * low < high and float(np.median(X)) < high / 4
    grid = np.geomspace(low, high, _GRID) if decades else np.linspace(low, high, _GRID)
    config = fitted.thresholds
    figure = plot_curve(
        X[:, 0],
        targets,
        grid,
        _answers(fitted, grid[:, None], len(targets)),
        (config.tau_infer, config.tau_train),
        fitted.names[0],
        _poles(fitted, (low, high), len(targets)),
    )
    for axis in figure.axes if decades else ():
        axis.set_xscale("log")
    return figure


def _poles(fitted: Fitted, shown: tuple[float, float], count: int) -> list[Any]:
    low, high = fitted.domain[:, 0].tolist()
    each = 2 if tuples(fitted.fit.model, fitted.domain[:1]).N.is_complex() else 1
    tables = [poles_of(fitted.fit, (low, high), j // each) for j in range(count)]
    kept = (in_x(fitted.fit.model, table.position[~table.spurious]) for table in tables)
    return [on_interval(p, *shown).numpy() for p in kept]


def _answers(fitted: Fitted, X: NDArray[np.float64], count: int) -> list[Answers]:
    rows = torch.from_numpy(X)
    score = denominator_score(
        *oriented_tuples(fitted, rows), score="angle", scale=fitted.thresholds.scale
    )
    error = answer_errors(fitted.fit, fitted.spread, rows).expand(len(rows), score.shape[1])
    parts = [part.numpy() for part in (*parts_of(strict(fitted, rows)), score, error)]
    if parts[0].shape[1] > score.shape[1]:
        parts[3:] = [part.repeat(2, 1) for part in parts[3:]]
    return [Answers(*(part[:, j] for part in parts)) for j in range(count)]
