r"""Polish a rational fit on the residual that counts, \|N/D - y\|, by Levenberg-Marquardt."""

from typing import NamedTuple

import torch
from torch import Tensor

from zeroproof._checks import positive, whole
from zeroproof.errors import RangeError, ShapeError
from zeroproof.layers.basis import chebyshev_basis
from zeroproof.projective.gauge import target_scale
from zeroproof.solve._linearized import linearized
from zeroproof.solve._marquardt import EPS, Model, State, minimise
from zeroproof.solve._table import checked_degrees, checked_table, counted, double
from zeroproof.solve.forms import CoefficientForm

__all__ = ["REASONS", "Refined", "least_squares", "refine", "refine_from_many"]

REASONS = ("gradient", "step", "objective", "max_iterations")
MAX_ITERATIONS = 200
FIRST = 12  # steps of every start
FINISHED = 5  # starts that go on to the end


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
