"""Where a model of two inputs has its poles: the zero level set of D."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from zeroproof._checks import whole
from zeroproof._extras import require
from zeroproof.errors import ShapeError
from zeroproof.layers.basis import checked_domain

__all__ = ["pole_curve"]


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
    value, slope = _with_gradient(D, x)
    for _ in range(steps):
        scaled = slope * width
        length = scaled.square().sum(1, keepdim=True)
        step = width * scaled * value[:, None] / torch.where(length == 0, 1, length)
        moved = x - step
        ahead, turned = _with_gradient(D, moved)
        better = ahead.abs() < value.abs()
        x, slope = (torch.where(better[:, None], b, a) for a, b in ((x, moved), (slope, turned)))
        value = torch.where(better, ahead, value)
    return x


def _with_gradient(D: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        value = D(x)
        return value.detach(), torch.autograd.grad(value.sum(), x)[0]
