"""Poles of any model: on an interval, and along curves in a rectangle.

On an interval a sign change of D is verified by halving; a curve gets Newton steps from a grid.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from zeroproof._checks import positive, whole
from zeroproof._extras import require
from zeroproof.errors import ShapeError
from zeroproof.layers.basis import checked_domain
from zeroproof.projective.pair import Pair
from zeroproof.solve.poles import RESOLUTION, TOLERANCE, PoleTable

__all__ = ["interval_poles", "interval_zeros", "pole_curve"]


def interval_zeros(
    f: Callable[[Tensor], Tensor],
    domain: Sequence[float],
    *,
    points: int = 4097,
    resolution: float = RESOLUTION,
) -> tuple[Tensor, Tensor]:
    """Find the real zeros of a smooth function on [low, high].

    Every sign change on an even grid is halved down to rounding: such a zero is certain. Where f
    comes near 0 without crossing, the extremum between is found in the same way from f'; it counts
    as a double zero if the parabola there has its zeros within the resolution. Two zeros inside one
    step of the grid that are farther apart than the resolution are found from that extremum too.

    Args:
        f: Takes `(n,)` in float64 and returns `(n,)`; differentiable by autograd, entry by entry.
        domain: (low, high), in the units of x.
        points: Size of the grid.
        resolution: In half widths of the domain.

    Returns:
        (zeros, multiplicities), sorted, float64 and int64; a multiplicity is 1 or 2.

    Raises:
        RangeError: `domain` is no interval, or a number is out of range.
        ShapeError: f does not return one value per point.

    Examples:
        >>> zeros, multiplicity = interval_zeros(lambda x: x * (x - 0.5) ** 2, (-1, 1))
        >>> zeros.round(decimals=9), multiplicity
        (tensor([0.0000, 0.5000], dtype=torch.float64), tensor([1, 2]))
    """
    low, high = checked_domain(domain)
    whole(points, "points", low=3)
    reach = positive(resolution, "resolution") * (high - low) / 2
    x = torch.linspace(low, high, points, dtype=torch.float64)
    value, slope = _with_slope(f, x)
    turn = (slope[:-1] * slope[1:] < 0) & (value[:-1] * value[1:] > 0)
    turn &= value[:-1] * slope[:-1] < 0  # towards 0, not away from it
    left, right = x[:-1][turn], x[1:][turn]
    extremum = _bracketed(lambda u: _with_slope(f, u)[1], left, right)
    cut = torch.cat([x, extremum]).sort()[0]
    value, slope = _with_slope(f, cut)
    crossed = value[:-1] * value[1:] < 0
    zeros = torch.cat([cut[value == 0], _bracketed(f, cut[:-1][crossed], cut[1:][crossed])])
    zeros = torch.cat([zeros, extremum[_touches(f, extremum, reach)]]).sort()[0]
    twice = _touches(f, zeros, reach)
    return _merged(zeros, twice, reach)


def interval_poles(
    model: Callable[[Tensor], Pair],
    domain: Sequence[float],
    *,
    points: int = 4097,
    resolution: float = RESOLUTION,
    tolerance: float = TOLERANCE,
) -> PoleTable:
    """Find the poles of a model on [low, high]: random features, a network, anything with a D.

    Residue and strength come from the model on both sides of the pole, extrapolated to it.

    Args:
        model: Takes `(n,)` in float64 and returns N and D, both `(n,)`, differentiable by autograd.
        domain: (low, high), in the units of x.
        points: Size of the grid on which D is searched.
        resolution: In half widths; nearer zeros of D are one double pole.
        tolerance: A pole is spurious when its strength, over the median of |f| and the half width,
            does not exceed this.

    Raises:
        RangeError: `domain` is no interval, or a number is out of range.
        ShapeError: The model does not return one value per point.

    Examples:
        >>> from zeroproof.projective import Pair
        >>> table = interval_poles(lambda x: Pair(2 + x, torch.sin(x)), (-1, 1))
        >>> table.position.real, table.residue.real.round(decimals=9)
        (tensor([0.], dtype=torch.float64), tensor([2.], dtype=torch.float64))
    """
    low, high = checked_domain(domain)
    half = (high - low) / 2
    position, multiplicity = interval_zeros(
        lambda x: model(x)[1], domain, points=points, resolution=resolution
    )
    gap = (position[:, None] - position).abs()
    gap = gap.fill_diagonal_(torch.inf).amin(1) if len(position) > 1 else gap.flatten() + half
    residue, strength = _sides(model, position, multiplicity, gap.clamp(max=half) / 16)
    N, D = (part.detach() for part in model(torch.linspace(low, high, 257, dtype=torch.float64)))
    size = (N / D)[D != 0].abs().nanmedian()
    weak = strength.abs() <= positive(tolerance, "tolerance") * size * half**multiplicity
    p, r, s = (value.to(torch.complex128) for value in (position, residue, strength))
    return PoleTable(p, r, s, multiplicity, weak)


def _with_slope(f: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        value = f(x)
        if value.shape != x.shape[:1]:
            raise ShapeError(
                f"D must have one value per point, ({len(x)},), got {tuple(value.shape)}"
            )
        if not value.requires_grad:
            return value.detach(), torch.zeros_like(x)
        slope = torch.autograd.grad(value.sum(), x, allow_unused=True)[0]
    return value.detach(), torch.zeros_like(x) if slope is None else slope


def _bracketed(f: Callable[[Tensor], Tensor], left: Tensor, right: Tensor) -> Tensor:
    """Return one zero of f in each bracket with a sign change."""
    if not len(left):
        return left
    sign = f(left).detach().sign()
    for _ in range(60):
        middle = (left + right) / 2
        same = f(middle).detach().sign() == sign
        left, right = torch.where(same, middle, left), torch.where(same, right, middle)
    return torch.where(f(left).detach().abs() <= f(right).detach().abs(), left, right)


def _touches(f: Callable[[Tensor], Tensor], x: Tensor, reach: float) -> Tensor:
    """Tell where the parabola through f, f' and f'' has both its zeros within reach of x."""
    value, slope = _with_slope(f, x)
    if not len(x):
        return torch.zeros(0, dtype=torch.bool)
    step = 100 * reach
    bend = (_with_slope(f, x + step)[1] - _with_slope(f, x - step)[1]) / (2 * step)
    near = (slope.abs() <= bend.abs() * 2 * reach) & (value.abs() <= bend.abs() * reach**2 / 2)
    return near & (bend != 0)


def _merged(zeros: Tensor, twice: Tensor, reach: float) -> tuple[Tensor, Tensor]:
    """Make one double zero of those within reach of each other."""
    means, sizes = [], []
    group: list[tuple[float, bool]] = []
    for zero, double in zip(zeros.tolist(), twice.tolist(), strict=True):
        if group and zero - group[-1][0] > 2 * reach:
            _close(group, means, sizes)
            group = []
        group.append((zero, double))
    if group:
        _close(group, means, sizes)
    return torch.tensor(means, dtype=torch.float64), torch.tensor(sizes, dtype=torch.int64)


def _close(group: list[tuple[float, bool]], means: list[float], sizes: list[int]) -> None:
    means.append(sum(zero for zero, _ in group) / len(group))
    sizes.append(2 if len(group) > 1 or group[0][1] else 1)


def _sides(
    model: Callable[[Tensor], Pair], position: Tensor, multiplicity: Tensor, radius: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the coefficients of order -1 and -multiplicity, by Richardson's extrapolation."""
    odd, even = [], []
    for k in range(4):
        h = radius / 2**k
        right, left = (_quotient(model, position + step) for step in (h, -h))
        odd.append(h * (right - left) / 2)
        even.append(h * h * (right + left) / 2)
    residue = _extrapolated(odd)
    return residue, torch.where(multiplicity == 1, residue, _extrapolated(even))


def _quotient(model: Callable[[Tensor], Pair], x: Tensor) -> Tensor:
    N, D = (part.detach() for part in model(x))
    return N / torch.where(D == 0, torch.nan, D)


def _extrapolated(row: list[Tensor]) -> Tensor:
    for k in range(1, len(row)):
        row = [(4**k * b - a) / (4**k - 1) for a, b in pairwise(row)]
    return row[0]


def pole_curve(
    D: Callable[[Tensor], Tensor],
    domain: Sequence[Sequence[float]],
    *,
    points: int = 201,
    steps: int = 4,
) -> list[Tensor]:
    """Trace D = 0 in a rectangle: marching squares on a grid, then Newton steps across the curve.

    Args:
        D: Takes `(n, 2)` in float64 and returns `(n,)`, differentiable by autograd.
        domain: ((low, high), (low, high)) of the two inputs, in their units.
        points: Grid points per side. A loop inside one cell, or a curve along which D touches 0
            without changing sign, is not seen.
        steps: Newton steps, each along the gradient with the inputs scaled to the rectangle. A
            vertex that does not get nearer to D = 0 stays on the grid's curve.

    Returns:
        One tensor `(k, 2)` per connected line, in the order along it; closed lines repeat their
        first vertex. Empty where D keeps its sign.

    Raises:
        RangeError: `domain` holds no two intervals, or `points` or `steps` is too small.
        ShapeError: D does not return one value per point.
        MissingExtraError: contourpy, which comes with matplotlib, is not installed.

    Examples:
        >>> (circle,) = pole_curve(lambda x: x.square().sum(1) - 1, ((-2, 2), (-2, 2)), points=21)
        >>> bool((torch.linalg.vector_norm(circle, dim=1) - 1).abs().max() < 1e-12)
        True
    """
    whole(points, "points", low=2)
    whole(steps, "steps")
    first, second = (checked_domain(side) for side in domain)
    x1, x2 = (torch.linspace(*side, points, dtype=torch.float64) for side in (first, second))
    grid = torch.cartesian_prod(x1, x2)
    with torch.no_grad():
        values = D(grid)
    if values.shape != (points * points,):
        raise ShapeError(
            f"D must have one value per point, ({points * points},), got {tuple(values.shape)}"
        )
    lines = require("contourpy", extra="plots").contour_generator(
        x1.numpy(), x2.numpy(), values.reshape(points, points).T.numpy()
    )
    width = torch.tensor([high - low for low, high in (first, second)], dtype=torch.float64)
    found = (torch.from_numpy(line) for line in lines.lines(0.0))
    return [_onto(D, line, width, steps) for line in found]


def _onto(D: Callable[[Tensor], Tensor], x: Tensor, width: Tensor, steps: int) -> Tensor:
    """Move the vertices onto D = 0."""
    value, slope = _with_slope(D, x)
    for _ in range(steps):
        scaled = slope * width
        length = scaled.square().sum(1, keepdim=True)
        step = width * scaled * value[:, None] / torch.where(length == 0, 1, length)
        moved = x - step
        ahead, turned = _with_slope(D, moved)
        better = ahead.abs() < value.abs()
        x, slope = (torch.where(better[:, None], b, a) for a, b in ((x, moved), (slope, turned)))
        value = torch.where(better, ahead, value)
    return x
