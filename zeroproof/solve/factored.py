"""Rational functions with the roots of D as unknowns, in factors that stay smooth where roots meet.

Beside a double root the coefficients of D cancel to nothing, while (x - c)² - h does not.
"""

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from zeroproof._checks import positive
from zeroproof.layers.basis import chebyshev_basis
from zeroproof.projective.gauge import target_scale
from zeroproof.solve.forms import FactoredForm
from zeroproof.solve.rational import checked_degrees, checked_table
from zeroproof.solve.varpro import linear, refined

__all__ = ["fit_factored"]

Array = Any  # of NumPy, real or complex: its types do not tell one from the other
_CLOSE = 0.1  # of the domain: nearer real roots share a quadratic, since they may meet
_STEPS = 15


def fit_factored(
    x: Tensor,
    y: Tensor,
    roots: Tensor,
    degree: int,
    *,
    weight: Tensor | None = None,
    weight_power: float = 1.0,
    scale: float | None = None,
) -> FactoredForm:
    r"""Fit N / D with D = Π (x - root), moving the roots from where they are given.

    Minimises Σ w \|N/D - y\|² / (1 + \|y/s\|²)^(2 - power): power 1 counts relative errors where
    \|y\| exceeds s. N is eliminated linearly. A real pole cannot pass a row, where the residual is
    infinite: start nearer than the rows are spaced, as a linearised fit is, or off the real line.

    Args:
        x: Points, `(n,)`.
        y: Targets, `(n,)`, real or complex; those that are not finite are left out.
        roots: Where D starts to vanish, complex `(q,)`; conjugate pairs complete for real targets.
        degree: Degree of N.
        weight: Row weights, `(n,)`.
        weight_power: 0 for the chordal distance, 1 for relative errors.
        scale: s, in the units of y; the median of \|y\| by default.

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
    table = checked_table(x, y, weight)
    checked_degrees((degree, len(roots)), table.x)
    s = target_scale(table.y) if scale is None else positive(scale, "scale")
    root = (table.weight * (1 + (table.y / s).abs().square()) ** (weight_power - 2)).sqrt()
    real = not (table.y.is_complex() or table.x.is_complex())
    c, h, r = _paired(roots.to(torch.complex128), table.domain, real=real)
    H = chebyshev_basis(table.x, degree, domain=table.domain).to(c.dtype)
    model = _Factors(table.x, H.numpy(), len(c), table.domain)
    targets, w = table.y.to(c.dtype).numpy()[None], root.numpy()[None, None]
    theta = torch.cat([c, r, h, 0 * c, 0 * r]).numpy()[None]
    if linear(model, targets, w, theta).objective == np.inf:  # a root on a row: move it off
        theta[:, len(c) + len(r) + len(h) :] += 1e-9 * (table.domain[1] - table.domain[0])
    theta, at = refined(model, targets, w, theta, steps=_STEPS, resolved=0.0)
    return replace(model.form(theta), a=torch.from_numpy(at.c[0, 0]))


def _paired(
    roots: Tensor, domain: tuple[float, float], *, real: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """Group roots into quadratics (x - c)² - h and single roots.

    Conjugate roots (complete when `real`) and close ones become c ± √h, the others stay.
    """
    near = _CLOSE * (domain[1] - domain[0])
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


class _Factors(NamedTuple):
    """The model of `zeroproof.solve.varpro`. There is one point: c, r, h and the rest of (c, r).

    Clean data know a root beyond its last bit; what that bit cuts off of the steps is the rest.
    """

    x: Tensor
    H: Array  # of N, (n, k)
    pairs: int
    domain: tuple[float, float]

    def form(self, theta: Array) -> FactoredForm:
        """Return D with N still empty."""
        roots = (theta.shape[1] - self.pairs) // 2
        at = [self.pairs, roots - self.pairs, self.pairs, roots]
        c, r, h, rest = torch.from_numpy(theta[0]).split(at)
        return FactoredForm(c[:0], c, h, r, rest, self.domain)

    def basis(self, theta: Array) -> Array:
        """Return the features of N over D."""
        form = self.form(theta)
        return (self.H / form.denominator(self.x).numpy()[:, None])[None]

    def slopes(self, theta: Array, c: Array) -> Array:
        """Return the slopes by c, r and h: those of log D times the answers."""
        form = self.form(theta)
        by_c, by_r = form.gaps(self.x)
        quadratic = by_c.square() - form.h
        slopes = torch.cat([2 * by_c / quadratic, 1 / by_r, 1 / quadratic], 1).numpy()
        return (self.basis(theta) @ c[0].T) * slopes[None, None]

    def moved(self, theta: Array, step: Array) -> Array:
        """Return the sum."""
        roots = step.shape[1] - self.pairs
        old, h, rest = np.split(theta, [roots, roots + self.pairs], axis=1)
        move = rest + step[:, :roots]
        new = old + move
        return np.concatenate([new, h + step[:, roots:], move - (new - old)], 1)
