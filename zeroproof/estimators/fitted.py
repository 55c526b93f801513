"""A closed-form fit ready to answer: values with masks, poles and roots, a score, a picture."""

import math
import warnings
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zeroproof.estimators.closed_form import ClosedForm
from zeroproof.estimators.diagnosis import RowView, scored
from zeroproof.estimators.labels import Labels, Region
from zeroproof.estimators.model import FormModel
from zeroproof.estimators.uncertainty import NOISES, answer_errors, pole_errors
from zeroproof.inference import InferenceConfig, StrictResult
from zeroproof.inference.status import Status
from zeroproof.inference.strict import decided
from zeroproof.plots import Answers, plot_curve, plot_parity
from zeroproof.projective import denominator_score
from zeroproof.projective.angle import chordal_distance
from zeroproof.projective.tuples import Pair, rescaled
from zeroproof.solve.poles import RESOLUTION, TOLERANCE, PoleTable
from zeroproof.solve.race import SIGNIFICANT
from zeroproof.solve.recipe import lift

__all__ = [
    "Fitted",
    "parts_of",
    "skill",
]

_COARSEST = 1e-2  # half widths: poles farther apart are never taken for one
_INFINITE = 1e8  # scales
_APART = 3.0  # times the relative error: more is not noise
_SLICE = 2**14  # rows whose features are held for their gradients
_GRID, _LARGE = 2001, 0.9  # places; quantile of |y| over them
_WIDE = 30.0  # largest over smallest input from which their axis may be logarithmic
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
        outputs: Names of several outputs, if they have some.
        groups: How many groups were held out, each as a whole; 0 if rows were.
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
    outputs: tuple[str, ...] = ()
    groups: int = 0

    def __repr__(self) -> str:
        """Return what was fitted; no tensors."""
        return f"<Fitted: {self.rows} rows, {len(self.names)} columns, {self.fit!r}>"

    def called(self, output: int) -> str:
        """Return the name of an output."""
        if self.fit.model.outputs == 1:
            return "y"
        return self.outputs[output] if self.outputs else f"y{output}"

    @property
    def interval(self) -> tuple[float, float]:
        """Return the smallest and the largest value of the first column."""
        low, high = self.domain[:, 0].tolist()
        return low, high

    def tuples(self, X: Tensor) -> Pair:
        """Return ⟨N, D⟩ in the units of y, D > 0 on affine data.

        Rows of X that are not finite give tuples that are not.
        """
        finite = torch.isfinite(X).all(1, keepdim=True)
        N, D = self.fit.model.tuples(torch.where(finite, X, torch.nan))
        return Pair(torch.where(finite, N, torch.nan) * self.sign, D * self.sign)

    def strict(self, X: Tensor) -> StrictResult:
        r"""Return answers with masks, `(n, k)`, for rows of the columns that are used.

        ⟨0, 0⟩ up to rounding is ⊥, and so is what lies in a region of labels.

        Beside the thresholds, the local error e of the answer y decides: with s the scale of the
        targets, e / √(s² + y²) is the error of the angle over the angle to ⊥. Above 1 the sign of D
        is not known, and the answer is ⊥; above a tenth it is in the gap. Other fits that serve as
        well add to the error, yet they alone make no ⊥: one of them may have a pole just beyond the
        data.
        """
        N, D = self.tuples(X)
        beyond = self.fit.model.cancelled(X).expand_as(N)
        if self.affine:
            beyond = beyond | (D <= 0)
        if self.region is not None:
            beyond = beyond | self.region.holds(X)[:, None]
        found = decided(N, D, self.thresholds, bottom=beyond)
        if not self.spread or self.fit.model.constant_denominator:
            return found
        error = self.errors(X)
        size = torch.hypot(found.decoded.abs(), torch.tensor(self.thresholds.scale).double())
        level = error / size
        alone = self._replace(fit=self.fit._replace(alternates=()))
        far = (level > 1).any(1)
        unknown = torch.zeros_like(found.bottom_mask)
        unknown[far] = alone.errors(X[far]) > size[far]
        lost = found.bottom_mask | unknown
        gap = (found.gap_mask | (level > _RISKY)) & ~lost
        return StrictResult(torch.where(lost, torch.nan, found.decoded), lost, gap)

    def status(self, X: Tensor, answers: StrictResult) -> Tensor:
        """Return a `Status` for each entry of what `strict` answered, int8."""
        N, D = self.tuples(X)
        found = torch.full(N.shape, Status.POLE, dtype=torch.int8)
        sure = denominator_score(N, D, "angle", self.thresholds.scale) >= self.thresholds.tau_infer
        found[sure & ~torch.isfinite(N / D)] = Status.NO_VALUE
        if self.region is not None:
            found[self.region.holds(X)] = Status.NO_VALUE
        found[self.fit.model.cancelled(X).expand_as(N)] = Status.INDETERMINATE
        found[~(torch.isfinite(N) & torch.isfinite(D))] = Status.FAULT
        found[~torch.isfinite(X).all(1)] = Status.INPUT
        found[~answers.bottom_mask] = Status.ANSWER
        found[answers.gap_mask] = Status.GAP
        return found

    def errors(self, X: Tensor) -> Tensor:
        """Return the standard error of each answer, `(n, m)`; nan where it is not known."""
        return answer_errors(self.fit, self.spread, X)

    def disagreement(self, X: Tensor) -> Tensor:
        """Return the largest relative difference between admissible fits for each row, `(n,)`.

        Relative to the larger answer or the scale; 0 below three times the fit's relative error,
        and where all are next to ∞.
        """
        spread = torch.zeros(len(X), dtype=torch.float64)
        if not len(X):
            return spread
        answer, *others = (
            N / torch.where(D == 0, torch.nan, D)
            for N, D in (model.tuples(X) for model in (self.fit.model, *self.fit.alternates))
        )
        least = 1e-3 * self.thresholds.scale
        for other in others:
            size = torch.maximum(answer.abs(), other.abs()).clamp(min=least)
            apart = ((answer - other).abs() / size).nan_to_num(nan=1.0, posinf=1.0)
            near = torch.minimum(
                *(part.abs().nan_to_num(nan=torch.inf) for part in (answer, other))
            )
            apart = torch.where(near > _INFINITE * self.thresholds.scale, 0, apart)
            spread = torch.maximum(spread, apart.amax(1))
        relative = self.fit.relative
        noise = max(_APART * relative, 1e-6) if math.isfinite(relative) else 1e-6
        return torch.where(spread > noise, spread, 0.0)

    def warn_outside(self, X: Tensor, stacklevel: int = 2) -> None:
        """Warn of rows outside the data on which admissible fits disagree."""
        low, high = self.domain
        beyond = ((low > X) | (high < X)).any(1) & torch.isfinite(X).all(1)
        apart = self.disagreement(X[beyond])
        count = int((apart > 0).sum())
        if count:
            warnings.warn(
                f"{count} rows lie outside the data, where fits that serve the data equally well "
                f"differ by up to {float(apart.max()):.2g} of the answer",
                stacklevel=stacklevel,
            )

    def pole_table(self, output: int) -> PoleTable:
        """Return the poles of one output with standard errors, where these are known.

        A pole whose strength is not clear of its own error is spurious. Two that are as near to
        each other as their errors, with residues that cancel, are one double pole.
        """
        if not self.spread:
            return self._placed(self.found_poles(output))

        low, high = self.interval
        half = (high - low) / 2

        def told(resolution: float) -> PoleTable:
            table = self.found_poles(output, resolution)
            if not len(table.position):
                return self._placed(table)
            return pole_errors(self.fit, self.spread[output], self._placed(table), output, half)

        table = told(RESOLUTION)
        if not len(table.position) or self.fit.model.judged:
            return table
        if table.position_se is not None:
            p, r, se = table.position, table.residue, table.position_se
            gap, size = (p[:, None] - p).abs(), torch.maximum(r.abs()[:, None], r.abs())
            split = (gap > 0) & (gap < (3 * (se[:, None] + se)).clamp(max=_COARSEST * half))
            split &= (r[:, None] + r).abs() < _CANCELS * size
            if bool(split.any()):
                table = told(1.01 * float(gap[split].max()) / half)
        if table.significance is not None:
            table = table._replace(spurious=table.spurious | (table.significance < SIGNIFICANT))
        others = [
            self._replace(fit=self.fit._replace(model=each)).found_poles(output)
            for each in self.fit.alternates
        ]
        return _with_ties(table, [other for other in others if len(other.position)])

    def _in_x(self, position: Tensor) -> Tensor:
        """Return poles in the units of x; those of a real system are given in s = ix."""
        return -1j * position if self.fit.model.systems else position

    def _placed(self, table: PoleTable) -> PoleTable:
        """Mark poles among the data, and as spurious those that stand for a branch point."""
        low, high = self.interval
        p = self._in_x(table.position)
        # complex targets leave rounding in the imaginary part of a real pole
        inside = (p.imag.abs() <= _REAL * (high - low)) & (p.real >= low) & (p.real <= high)
        spurious = table.spurious
        for branch in self.fit.branches:
            spurious = spurious | ((p - branch.position).abs() < branch.reach)
        return table._replace(inside=inside, spurious=spurious)

    def found_poles(self, output: int, resolution: float | None = None) -> PoleTable:
        """Return the poles of one output, complex ones too, whatever the fit is stored as.

        Noise splits double poles by its root and leaves weak pairs, so resolution and tolerance
        grow with the relative error of the fit, unless a resolution is given, by those who know
        standard errors. Of a fit to y² or log y they are the places where that diverges.
        """
        relative = self.fit.relative if math.isfinite(self.fit.relative) else 0.0
        tolerance = max(TOLERANCE, relative) if resolution is None else TOLERANCE
        if resolution is None:
            resolution = max(RESOLUTION, min(math.sqrt(relative), _COARSEST))
        low, high = self.interval
        table = self.fit.model.pole_table(
            (low, high), output, resolution=resolution, tolerance=tolerance
        )
        p = table.position
        if len(p) and NOISES[self.fit.power] == "additive" and not self.fit.model.systems:
            # where y vanishes over half the data, its small values are known no better than large
            x = torch.linspace(low, high, _GRID, dtype=torch.float64)[:, None]
            N, D = (part[:, output if part.shape[1] > 1 else 0] for part in self.tuples(x))
            typical = (N / D).abs().nan_to_num().quantile(_LARGE)
            reach = ((high - low) / 2) ** table.multiplicity
            table = table._replace(
                spurious=table.spurious | (table.strength.abs() <= TOLERANCE * typical * reach)
            )
        if self.fit.significant:  # D changes its sign there, and N is clear of 0
            on_data = (p.imag == 0) & (p.real >= low) & (p.real <= high)
            table = table._replace(spurious=table.spurious & ~on_data)
        return table

    def roots(self, output: int) -> Tensor:
        """Return the zeros of N of one output, complex."""
        relative = self.fit.relative if math.isfinite(self.fit.relative) else 0.0
        return self.fit.model.roots(self.interval, output, tolerance=max(TOLERANCE, relative))

    def view(self, X: Tensor) -> RowView:
        r"""Score every row of a closed-form fit and tell its distance to the nearest pole.

        Of one column: to the nearest of the poles that were found, \|x - p\| for complex ones too.
        Of several, where poles are curves or surfaces: as `view_rows` estimates it.

        Args:
            X: Finite rows of the columns that are used; of one column if targets are complex.
        """
        spread = X.std(0, correction=0)
        spread = torch.where(spread > 0, spread, 1)
        N, D = self.tuples(X)
        score = denominator_score(N, D, "angle", self.thresholds.scale).amin(-1)
        model = self.fit.model
        if model.constant_denominator:
            return RowView(score, torch.full_like(score, torch.inf), D.real < 0)
        if isinstance(model, FormModel) or len(self.columns) == 1:
            tables = (self.found_poles(j) for j in range(N.shape[1]))
            p = self._in_x(torch.cat([table.position[~table.spurious] for table in tables]))
            distance = (X - p).abs().amin(1) if len(p) else torch.full_like(score, torch.inf)
            return RowView(score, distance / spread, D.real < 0)
        parts = [scored(model.head, rows, spread) for rows in X.split(_SLICE)]
        distance = torch.cat([part.distance for part in parts])
        return RowView(score, distance, torch.cat([part.negative for part in parts]))

    def picture(
        self,
        X: NDArray[np.float64],
        y: NDArray[Any],
        names: tuple[str, ...] | None = None,
        left_out: NDArray[np.bool_] | None = None,
        ax: Any = None,
    ) -> Any:
        """Return the figure: a curve over one column, else predictions against targets.

        Args:
            X: Rows of the columns that are used.
            y: Targets, `(n,)` or `(n, k)`.
            names: Names of the targets.
            left_out: Rows that the fit did not use, `(n,)`.
            ax: Axes to draw into instead, one for each target; returned as they came.

        Complex targets are drawn as real and imaginary part, two targets each, and named so.
        """
        y = y.reshape(len(y), -1)
        plain = ("y",) if y.shape[1] == 1 else tuple(f"y{j}" for j in range(y.shape[1]))
        if np.iscomplexobj(y):
            plain = tuple(f"{part} {name}" for name in plain for part in ("Re", "Im"))
            y = y.view(np.float64)
        names = names or plain
        targets = {name: y[:, j] for j, name in enumerate(names[:_MOST_TARGETS])}
        at_rows = [
            answers._replace(left_out=left_out) for answers in self._shown_answers(X, len(targets))
        ]
        if X.shape[1] > 1:
            return plot_parity(targets, at_rows, ax)
        low, high = float(X.min()), float(X.max())
        # decades of x, as of doses and frequencies, crowd at the left of a linear axis
        decades = 0 < _WIDE * low < high and float(np.median(X)) < high / 4
        grid = np.geomspace(low, high, _GRID) if decades else np.linspace(low, high, _GRID)
        poles = self._shown_poles(len(targets))
        peaks = np.concatenate(
            [p.real + p.imag * np.linspace(-3, 3, 13)[:, None] for p in poles], 1
        )
        grid = np.unique(np.r_[grid, peaks[(peaks > low) & (peaks < high)]])  # narrow ones too
        config = self.thresholds
        figure = plot_curve(
            X[:, 0],
            targets,
            grid,
            self._shown_answers(grid[:, None], len(targets)),
            (config.tau_infer, config.tau_train),
            self.names[0],
            [p.real[(p.imag == 0) & (p.real >= low) & (p.real <= high)] for p in poles],
            at_rows,
            ax=ax,
        )
        axes = figure.axes if ax is None else np.atleast_1d(ax).flat
        for axis in axes if decades else ():
            axis.set_xscale("log")
        return figure

    def _shown_poles(self, count: int) -> list[Any]:
        """Return the poles of each target drawn, in x, real ones with imaginary part 0."""
        each = 2 if self.fit.model.tuples(self.domain[:1]).N.is_complex() else 1
        found = []
        for j in range(count):
            table = self.pole_table(j // each)
            p = self._in_x(table.position)
            real = table.inside if table.inside is not None else p.imag == 0
            found.append(torch.where(real, p.real + 0j, p)[~table.spurious].numpy())
        return found

    def _shown_answers(self, X: NDArray[np.float64], count: int) -> list[Answers]:
        rows = torch.from_numpy(X)
        score = denominator_score(*self.tuples(rows), score="angle", scale=self.thresholds.scale)
        error = self.errors(rows).expand(len(rows), score.shape[1])
        parts = [part.numpy() for part in (*parts_of(self.strict(rows)), score, error)]
        if parts[0].shape[1] > score.shape[1]:
            parts[3:] = [part.repeat(2, 1) for part in parts[3:]]
        return [Answers(*(part[:, j] for part in parts)) for j in range(count)]


def parts_of(result: StrictResult) -> StrictResult:
    """Return real and imaginary part of complex answers as two columns each, with their masks."""
    decoded, *masks = result
    if not decoded.is_complex():
        return result
    parts = torch.view_as_real(decoded.resolve_conj()).flatten(1)
    return StrictResult(parts, *(mask.repeat_interleave(2, 1) for mask in masks))


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
