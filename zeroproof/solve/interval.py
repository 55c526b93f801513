"""Poles of any model: near an interval, and along curves in a rectangle.

Near an interval they are those of Chebyshev interpolants; a curve gets Newton steps from a grid.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from zeroproof._checks import whole
from zeroproof._extras import require
from zeroproof.errors import ShapeError
from zeroproof.layers.basis import checked_domain
from zeroproof.projective.pair import Pair
from zeroproof.solve.forms import CoefficientForm
from zeroproof.solve.poles import RESOLUTION, TOLERANCE, PoleTable, pole_table

__all__ = ["interpolated", "interval_poles", "known", "pole_curve"]

_ROUNDING = 1e-14  # of the largest coefficient
_DIGITS = 8  # that an interpolant may lose away from its interval


def interpolated(model: Callable[[Tensor], Pair], domain: Sequence[float]) -> CoefficientForm:
    """Return Chebyshev interpolants of N and D on [low, high], long enough for both.

    They are doubled until their last coefficients are rounding, and cut there; 513 at most.

    Args:
        model: Takes `(n,)` in float64 and returns N and D, both `(n,)`.
        domain: (low, high), in the units of x.

    Raises:
        RangeError: `domain` is no interval.
        ShapeError: The model does not return one value per point.
    """
    low, high = checked_domain(domain)
    a = b = torch.zeros(1, dtype=torch.float64)
    for size in (17, 33, 65, 129, 257, 513):
        angle = (torch.arange(size, dtype=torch.float64) + 0.5) * torch.pi / size
        x = (low + high) / 2 + (high - low) / 2 * torch.cos(angle)
        with torch.no_grad():
            N, D = model(x)
        for part in (N, D):
            if part.shape != x.shape:
                raise ShapeError(
                    f"N and D must have one value per point, ({len(x)},), got {tuple(part.shape)}"
                )
        T = torch.cos(angle[:, None] * torch.arange(size)).to(N.dtype) * 2 / size
        T[:, 0] /= 2
        (a, fine), (b, also) = (_cut(T.mT @ part) for part in (N, D))
        if fine and also:
            break
    return CoefficientForm(a, b, "chebyshev", (low, high))


def _cut(c: Tensor) -> tuple[Tensor, bool]:
    """Return coefficients down to rounding, and tell whether there are enough of them."""
    kept = (c.abs() > _ROUNDING * c.abs().max()).nonzero()
    size = int(kept[-1]) + 1 if len(kept) else 1
    return c[:size], size < 0.8 * len(c)


def interval_poles(
    model: Callable[[Tensor], Pair],
    domain: Sequence[float],
    *,
    resolution: float = RESOLUTION,
    tolerance: float = TOLERANCE,
) -> PoleTable:
    """Find the poles of a model near [low, high]: random features, a network, anything with a D.

    They are those of the quotient of the Chebyshev interpolants of N and D: zeros of D are
    eigenvalues of its colleague matrix. Complex ones are listed where the interpolant is known to
    1e-8 still, inside an ellipse around the interval; a D with kinks has real ones alone.

    Args:
        model: Takes `(n,)` in float64 and returns N and D, both `(n,)`.
        domain: (low, high), in the units of x.
        resolution: In half widths; nearer zeros of D are one double pole.
        tolerance: A pole is spurious when its strength, over the median of |f| and the half width,
            does not exceed this.

    Raises:
        RangeError: `domain` is no interval, or a number is out of range.
        ShapeError: The model does not return one value per point.

    Examples:
        >>> from zeroproof.projective import Pair
        >>> table = interval_poles(lambda x: Pair(2 + x, torch.sin(x)), (-1, 1))
        >>> table.position.real.round(decimals=9) + 0.0, table.residue.real.round(decimals=9)
        (tensor([0.], dtype=torch.float64), tensor([2.], dtype=torch.float64))
    """
    form = interpolated(model, domain)
    table = pole_table(form, resolution=resolution, tolerance=tolerance)
    near = known(form, table.position)
    return PoleTable(*(part[near] for part in table[:5]))


def known(form: CoefficientForm, x: Tensor) -> Tensor:
    """Mark points where D is known to 1e-8: errors grow as the ellipse to its power."""
    low, high = form.domain
    u = (2 * x - low - high) / (high - low)
    root = (u * u - 1).sqrt()
    ellipse = torch.maximum((u + root).abs(), (u - root).abs())
    return (len(form.b) - 1) * ellipse.log() < _DIGITS * math.log(10)


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
