r"""Fits polished on the residual that counts, \|N/D - y\|, by Levenberg-Marquardt.

What enters linearly is eliminated at every step (variable projection). `refine` moves the weights
of D, `fit_factored` its roots: beside a double root the coefficients of D cancel to nothing, while
(x - c)² - h does not.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from zeroproof._checks import positive, whole
from zeroproof.errors import RangeError, ShapeError
from zeroproof.layers.basis import chebyshev_basis
from zeroproof.projective.gauge import target_scale
from zeroproof.solve.forms import CoefficientForm, FactoredForm
from zeroproof.solve.linearized import (
    checked_degrees,
    checked_table,
    counted,
    double,
    linearized,
    outside,
    pseudo_solve,
)

__all__ = ["REASONS", "Refined", "fit_factored", "least_squares", "refine", "refine_from_many"]

EPS = torch.finfo(torch.float64).eps
Point = TypeVar("Point")
REASONS = ("gradient", "step", "objective", "max_iterations")
MAX_ITERATIONS = 200
FIRST = 12  # steps of every start
FINISHED = 5  # starts that go on to the end
CLOSE = 0.1  # of the domain: nearer real roots share a quadratic, since they may meet


class State(NamedTuple, Generic[Point]):
    """Where an iteration stands: N is the best for the D at hand."""

    point: Point  # what D follows from
    D: Tensor  # (n,)
    a: Tensor  # (m, k); 0 along directions that the features of N do not have
    answer: Tensor  # weighted N / D, (m, n)
    residual: Tensor  # weighted, (m, n)
    basis: Tensor  # orthonormal columns that the answers can reach, (m, n, k)
    objective: float  # infinite where D is 0 in a row

    @classmethod
    def of(cls, point: Point, D: Tensor, H_N: Tensor, y: Tensor, root: Tensor) -> "State[Point]":
        """Fit H_N a / D, H_N `(n, k)`, to y `(n, m)`; `root` is that of the weights, `(n, m)`."""
        zero, target = D == 0, (root * y).T
        F = (root / torch.where(zero, 1, D)[:, None]).T[..., None] * H_N
        Q, R = torch.linalg.qr(F)
        U, S, Vh = torch.linalg.svd(R)
        a = pseudo_solve(U, S, Vh, Q.mH @ target[..., None], len(D))
        answer = (F @ a)[..., 0]
        basis = Q @ U * (S[..., :1] * len(D) * EPS < S)[..., None, :]
        objective = float((answer - target).abs().square().sum())
        if bool(zero.any()) or not objective < torch.inf:
            objective = torch.inf
        return cls(point, D, a[..., 0], answer, answer - target, basis, objective)

    def jacobian(self, slopes: Tensor) -> Tensor:
        """Return Kaufman's Jacobian `(m n, l)`: what a cannot mend of the slopes, `(m, n, l)`."""
        return outside(self.basis, slopes).flatten(0, 1)


class Model(NamedTuple):
    """The linear model of the residual around a state."""

    frame: Tensor  # directions to move in, as columns
    S: Tensor
    Vh: Tensor
    slope: Tensor  # Uᴴ r
    cosine: float  # of the largest angle between r and a direction of the model

    @classmethod
    def of(cls, J: Tensor, residual: Tensor, frame: Tensor) -> "Model":
        """Decompose the Jacobian J along the frame."""
        Q, R = torch.linalg.qr(J @ frame)
        U, S, Vh = torch.linalg.svd(R)
        slope = U.mH @ (Q.mH @ residual.flatten())
        length = float(torch.linalg.vector_norm(residual))
        cosine = float(slope.abs().max()) / length if length and len(slope) else 0.0
        return cls(frame, S, Vh, slope, cosine)

    def step(self, damping: float) -> tuple[Tensor, float]:
        """Return the damped step and the decrease of the objective that it promises."""
        S = self.S
        coordinate = -S * self.slope / (S.square() + damping * S[0].square())
        left = self.slope + S * coordinate
        promised = self.slope.abs().square().sum() - left.abs().square().sum()
        return self.frame @ (self.Vh.mH @ coordinate), float(promised)


def minimise(
    state: State[Point],
    model_of: Callable[[State[Point]], Model],
    moved: Callable[[Point, Tensor], State[Point]],
    max_iterations: int,
    *,
    damping: float,
    resolved: float,
) -> tuple[State[Point], int, str]:
    """Return the last state, how many steps were tried, and why it ended.

    The damping follows the gain, actual over predicted decrease (Nielsen 1999). Steps no longer
    than `resolved` end it.
    """
    if not state.objective < torch.inf:
        return state, 0, "step"
    growth, model = 4.0, None
    for tried in range(max_iterations):
        model = model or model_of(state)
        if model.cosine <= EPS:
            return state, tried, "gradient"
        step, promised = model.step(damping)
        if promised <= EPS * EPS * state.objective:
            return state, tried + 1, "objective"
        if float(torch.linalg.vector_norm(step)) <= resolved:
            return state, tried + 1, "step"
        ahead = moved(state.point, step)
        gain = (state.objective - ahead.objective) / promised
        if gain > 0:
            state, model = ahead, None
            damping, growth = damping * max(1 / 10, 1 - (2 * gain - 1) ** 3), 4.0
        else:
            damping, growth = damping * growth, growth * 2
    return state, max_iterations, "max_iterations"


class Refined(NamedTuple):
    """Where the iteration ended, and why."""

    a: Tensor  # (k,) or (k, m)
    b: Tensor  # (l,), of length 1
    objective: float  # the weighted sum of squares
    iterations: int  # steps tried
    reason: str  # one of REASONS


class _Problem(NamedTuple):
    H_N: Tensor  # (n, k)
    H_D: Tensor  # (n, l)
    y: Tensor  # (n, m)
    root: Tensor  # square root of the weight of each entry, (n, m)


def refine(
    H_N: Tensor,
    H_D: Tensor,
    y: Tensor,
    b: Tensor,
    *,
    weight: Tensor | None = None,
    weight_power: float = 0.0,
    scale: float | None = None,
    max_iterations: int = MAX_ITERATIONS,
) -> Refined:
    r"""Minimise Σ w_i \|ŷ_i - y_i\|² / (1 + \|y_i/s\|²)^power with ŷ = (H_N a) / (H_D b).

    a enters linearly and is eliminated at every step (variable projection with Kaufman's Jacobian);
    b moves on the unit sphere, since ⟨N, D⟩ and ⟨cN, cD⟩ are one answer. The damping follows the
    gain, actual over predicted decrease (Nielsen 1999). With power 0 the end is the ordinary least
    squares fit next to the start.

    Args:
        H_N: Features of N, `(n, k)`, real or complex.
        H_D: Features of D, `(n, l)`.
        y: Targets, `(n,)`, or `(n, m)` with one D for all; rows that are not finite are left out.
        b: Where to start, `(l,)`; its length is free.
        weight: w, `(n,)`; 1 by default.
        weight_power: 0 for plain least squares, 1 for relative errors where \|y\| exceeds s.
        scale: s, in the units of y; the median of \|y\| by default.
        max_iterations: Steps tried at most.

    Returns:
        `Refined`. Its reason is "gradient" (the residual is orthogonal to every direction),
        "objective" (no step promises a decrease above rounding), "step" (none moves b), or
        "max_iterations".

    Raises:
        ShapeError: The shapes do not belong together.
        DataError: No target is finite.
        RangeError: D is 0 in a row at the start, or an option is out of range.

    Examples:
        >>> x = torch.linspace(-1, 1, 9, dtype=torch.float64)
        >>> H = torch.stack([torch.ones_like(x), x], 1)
        >>> fit = refine(H[:, :1], H, 1 / (x - 3), torch.tensor([-2.0, 1.0]))
        >>> round(float(-fit.b[0] / fit.b[1]), 12)
        3.0
    """
    whole(max_iterations, "max_iterations")
    problem = _problem(H_N, H_D, y, weight, weight_power, scale)
    if b.shape != (problem.H_D.shape[1],):
        raise ShapeError(f"b must be ({problem.H_D.shape[1]},), got {tuple(b.shape)}")
    return _checked(_iterate(problem, b.to(problem.y.dtype), max_iterations), y)


def refine_from_many(
    H_N: Tensor,
    H_D: Tensor,
    y: Tensor,
    *,
    weight: Tensor | None = None,
    weight_power: float = 0.0,
    scale: float | None = None,
    starts: int = 30,
    seed: int = 0,
) -> Refined:
    """Refine from many linearised fits, each with other random row weights; keep the lowest.

    No start value is asked for. The first start has even weights. Every start makes a few steps,
    the best few go on to the end. The same seed gives the same answer.

    Args:
        H_N: See `refine`, as for every argument not listed here.
        H_D: See `refine`.
        y: See `refine`.
        weight: See `refine`.
        weight_power: See `refine`.
        scale: See `refine`.
        starts: How many, at least 1.
        seed: Seed of the random weights.

    Raises:
        ShapeError, DataError, RangeError: As `refine`.

    Examples:
        >>> x = torch.linspace(-1, 1, 9, dtype=torch.float64)
        >>> H = torch.stack([torch.ones_like(x), x], 1)
        >>> fit = refine_from_many(H[:, :1], H, 1 / (x - 3), starts=3)
        >>> round(float(-fit.b[0] / fit.b[1]), 12)
        3.0
    """
    whole(starts, "starts", low=1)
    problem = _problem(H_N, H_D, y, weight, weight_power, scale)
    first = [_iterate(problem, b, FIRST) for b in _starts(problem, starts, seed)]
    first.sort(key=lambda fit: fit.objective)
    ends = [_iterate(problem, fit.b, MAX_ITERATIONS) for fit in first[:FINISHED]]
    return _checked(min(ends, key=lambda fit: fit.objective), y)


def least_squares(
    x: Tensor,
    y: Tensor,
    degrees: tuple[int, int],
    *,
    weight: Tensor | None = None,
    weight_power: float = 0.0,
    scale: float | None = None,
    starts: int = 30,
    seed: int = 0,
) -> tuple[CoefficientForm, Refined]:
    """Fit a rational function of one variable and given degrees, without start values.

    Args:
        x: Points, `(n,)`.
        y: Targets, `(n,)`, real or complex; those that are not finite are left out.
        degrees: (p, q) of N and D.
        weight: See `refine`.
        weight_power: See `refine`; 0 ends at the ordinary least squares fit.
        scale: See `refine`.
        starts: See `refine_from_many`.
        seed: See `refine_from_many`.

    Returns:
        The form, on Chebyshev polynomials scaled to the range of x, and how the iteration ended.

    Raises:
        ShapeError: x is not `(n,)`, or y and weight do not match it.
        DataError: x is not finite or constant, or no target is finite.
        RangeError: The degrees have more unknowns than there are distinct finite rows.

    Examples:
        >>> x = torch.linspace(0, 1, 20, dtype=torch.float64)
        >>> form, fit = least_squares(x, (1 + x) / (2 - x), (1, 1), starts=2)
        >>> fit.objective < 1e-28
        True
    """
    if y.ndim != 1:
        raise ShapeError(f"y must be (n,), got {tuple(y.shape)}")
    table = checked_table(x, y, weight)
    p, q = checked_degrees(degrees, table.x)
    fit = refine_from_many(
        chebyshev_basis(table.x, p, domain=table.domain),
        chebyshev_basis(table.x, q, domain=table.domain),
        table.y,
        weight=table.weight,
        weight_power=weight_power,
        scale=scale,
        starts=starts,
        seed=seed,
    )
    return CoefficientForm(fit.a, fit.b, "chebyshev", table.domain), fit


def _problem(
    H_N: Tensor,
    H_D: Tensor,
    y: Tensor,
    weight: Tensor | None,
    weight_power: float,
    scale: float | None,
) -> _Problem:
    flat = H_N.ndim != 2 or H_D.ndim != 2 or y.ndim not in {1, 2}
    if flat or len({*map(len, (H_N, H_D, y))}) > 1:
        shapes = ", ".join(str(tuple(X.shape)) for X in (H_N, H_D, y))
        raise ShapeError(f"H_N, H_D and y must be (n, k), (n, l) and (n,) or (n, m), got {shapes}")
    if not 0 <= weight_power < torch.inf:
        raise RangeError(f"weight_power must be at least 0, got {weight_power!r}")
    kept, weight = counted(y, weight)
    y = double(y[kept].detach()).reshape(len(weight), -1)
    s = target_scale(y) if scale is None else positive(scale, "scale")
    root = (weight[:, None] / (1 + (y / s).abs().square()) ** weight_power).sqrt()
    H_N, H_D = double(H_N[kept].detach()), double(H_D[kept].detach())
    dtype = torch.promote_types(torch.promote_types(H_N.dtype, H_D.dtype), y.dtype)
    return _Problem(H_N.to(dtype), H_D.to(dtype), y.to(dtype), root)


def _checked(fit: Refined, y: Tensor) -> Refined:
    if not fit.objective < torch.inf:
        raise RangeError(
            "the start must have D other than 0 in every row and a finite objective, "
            f"got an objective of {fit.objective:g}"
        )
    return fit if y.ndim == 2 else fit._replace(a=fit.a[:, 0])


def _starts(problem: _Problem, count: int, seed: int) -> list[Tensor]:
    """Return b of linearised fits; the spread of the weights makes them differ."""
    generator = torch.Generator().manual_seed(seed)
    y = problem.y / target_scale(problem.y)
    one, size = torch.ones_like(y), 1 + y.abs().square()
    found = []
    for i in range(count):
        spread = torch.randn(len(y), generator=generator, dtype=torch.float64)
        weight = torch.exp(0.0 * spread if i == 0 else 2 * spread)[:, None] * size ** (i % 2 - 1)
        found.append(linearized(problem.H_N, problem.H_D, y, one, weight, sweeps=4)[1])
    return found


def _iterate(problem: _Problem, b: Tensor, max_iterations: int) -> Refined:
    def state(b: Tensor) -> State[Tensor]:
        b = b / torch.linalg.vector_norm(b)
        return State.of(b, problem.H_D @ b, problem.H_N, problem.y, problem.root)

    def model(state: State[Tensor]) -> Model:
        J = state.jacobian(-(state.answer / state.D)[..., None] * problem.H_D)
        tangent = torch.linalg.qr(state.point[:, None], mode="complete")[0][:, 1:]
        return Model.of(J, state.residual, tangent)

    end, tried, reason = minimise(
        state(b), model, lambda b, step: state(b + step), max_iterations, damping=1e-3, resolved=EPS
    )
    return Refined(end.a.T, end.point, end.objective, tried, reason)


def fit_factored(
    x: Tensor,
    y: Tensor,
    roots: Tensor,
    degree: int,
    *,
    weight: Tensor | None = None,
    weight_power: float = 1.0,
    scale: float | None = None,
    max_iterations: int = 15,
) -> FactoredForm:
    r"""Fit N / D with D = Π (x - root), moving the roots from where they are given.

    Minimises Σ w \|N/D - y\|² / (1 + \|y/s\|²)^(2 - power): power 1 counts relative errors where
    \|y\| exceeds s. N is eliminated linearly; Kaufman's Jacobian moves c, h and the single roots;
    the damping grows after a step that does not help. A real pole cannot pass a row, where the
    residual is infinite: start nearer than the rows are spaced, as a linearised fit is, or off the
    real line.

    Args:
        x: Points, `(n,)`.
        y: Targets, `(n,)`, real or complex; those that are not finite are left out.
        roots: Where D starts to vanish, complex `(q,)`; conjugate pairs complete for real targets.
        degree: Degree of N.
        weight: Row weights, `(n,)`.
        weight_power: 0 for the chordal distance, 1 for relative errors.
        scale: s, in the units of y; the median of \|y\| by default.
        max_iterations: Steps tried at most.

    Raises:
        ShapeError: x is not `(n,)`, or y does not match it.
        DataError: x is not finite or constant, or no target is finite.
        RangeError: More unknowns than distinct finite rows.

    Examples:
        >>> x = torch.linspace(-1, 1, 50, dtype=torch.float64)
        >>> start = torch.tensor([0.12 + 0.01j, 0.12 - 0.01j])
        >>> form = fit_factored(x, 1 / (x - 0.123) ** 2, start, 0)
        >>> round(float(form.c[0]), 12)
        0.123
    """
    whole(max_iterations, "max_iterations")
    table = checked_table(x, y, weight)
    checked_degrees((degree, len(roots)), table.x)
    s = target_scale(table.y) if scale is None else positive(scale, "scale")
    y = table.y[:, None]
    root = (table.weight * (1 + (table.y / s).abs().square()) ** (weight_power - 2)).sqrt()
    real = not (table.y.is_complex() or table.x.is_complex())
    c, h, r = _paired(roots.to(torch.complex128), table.domain, real=real)
    basis = chebyshev_basis(table.x, degree, domain=table.domain)
    problem = _Roots(table.x, y, basis.to(c.dtype), root[:, None])
    state = problem.state(FactoredForm(y[:0, 0], c, h, r, torch.cat([c, r]) * 0, table.domain))
    if state.objective == torch.inf:  # a root on a row: move it off
        low, high = table.domain
        state = problem.state(replace(state.point, rest=state.point.rest + 1e-9 * (high - low)))
    state, _, _ = minimise(
        state, problem.model, problem.moved, max_iterations, damping=1e-6, resolved=0.0
    )
    return replace(state.point, a=state.a[0])


def _paired(
    roots: Tensor, domain: tuple[float, float], *, real: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """Group roots into quadratics (x - c)² - h and single roots.

    Conjugate roots (complete when `real`) and close ones become c ± √h, the others stay.
    """
    near = CLOSE * (domain[1] - domain[0])
    upper = roots[roots.imag > 0] if real else roots[:0]
    left = sorted((roots[roots.imag == 0] if real else roots).tolist(), key=lambda z: z.real)
    pairs = [(z, z.conjugate()) for z in upper.tolist()]
    singles: list[complex] = []
    while left:
        z = left.pop(0)
        other = min(left, key=lambda u: abs(u - z), default=None)
        if other is not None and abs(other - z) < near:
            left.remove(other)
            pairs.append((z, other))
        else:
            singles.append(z)
    c = torch.tensor([(u + v) / 2 for u, v in pairs], dtype=roots.dtype)
    h = torch.tensor([((u - v) / 2) ** 2 for u, v in pairs], dtype=roots.dtype)
    r = torch.tensor(singles, dtype=roots.dtype)
    return (c.real, h.real, r.real) if real else (c, h, r)


class _Roots(NamedTuple):
    """Least squares in the roots of D."""

    x: Tensor
    y: Tensor  # (n, 1)
    basis: Tensor  # features of N, (n, k)
    root: Tensor  # square roots of the weights, (n, 1)

    def state(self, form: FactoredForm) -> State[FactoredForm]:
        """Find the best N for the roots of D."""
        D = form.denominator(self.x)
        return State.of(form, D, self.basis, self.y, self.root)

    def model(self, state: State[FactoredForm]) -> Model:
        """Return the linear model; c, h and r differ in size by decades, so columns are scaled."""
        by_c, by_r = state.point.gaps(self.x)
        quadratic = by_c.square() - state.point.h
        slopes = torch.cat([2 * by_c / quadratic, 1 / quadratic, 1 / by_r], 1)
        J = state.jacobian(state.answer[..., None] * slopes)
        length = torch.linalg.vector_norm(J, dim=0)
        frame = torch.diag(1 / torch.where(length == 0, 1, length)).to(J.dtype)
        return Model.of(J, state.residual, frame)

    def moved(self, form: FactoredForm, step: Tensor) -> State[FactoredForm]:
        """Add the step; what the last bit of c and r cannot hold stays in `rest`."""
        pairs, singles = len(form.c), len(form.r)
        c, h, r = step.split([pairs, pairs, singles])
        old, move = torch.cat([form.c, form.r]), form.rest + torch.cat([c, r])
        new = old + move
        rest = move - (new - old)
        return self.state(replace(form, c=new[:pairs], h=form.h + h, r=new[pairs:], rest=rest))
