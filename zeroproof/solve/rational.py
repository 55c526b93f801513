"""Rational functions by least squares: many fits of the same rows at once, weighted differently.

N = H_N a and D = H_D b. For given b the best a is a linear least squares fit, so only b is searched
(see `zeroproof.solve.varpro`); b lives on the unit sphere, since (a, b) and (c a, c b) are one
function. Beside a double root the coefficients of D cancel to nothing, while (x - c)² - h does not:
`fit_factored` moves roots instead.
"""

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zeroproof._checks import positive, whole
from zeroproof.errors import DataError, RangeError, ShapeError
from zeroproof.layers.basis import chebyshev_basis
from zeroproof.projective.tuples import target_scale
from zeroproof.solve.forms import CoefficientForm, FactoredForm
from zeroproof.solve.spectral import listed
from zeroproof.solve.varpro import adjoint, linear, refined

__all__ = ["Fits", "fit_factored", "fit_rational", "least_squares"]

Array = NDArray[Any]
_STEPS = 12  # of every start of `least_squares`
_FINISHED, _LONG = 5, 200  # of them go on, for so many steps at most
_ENTRIES = 2**23  # of the features of starts that are tried at once
_CLOSE = 0.1  # of the domain: nearer real roots share a quadratic, since they may meet
_OF_ROOTS = 15  # steps


class Fits(NamedTuple):
    """Fits of one size, one for each weighting: N = H_N a, D = H_D b."""

    a: Array  # (F, k_N, m)
    b: Array  # (F, k_D)
    objective: Array  # (F,), the weighted sum of squares; inf where there is no fit


class _Ratio(NamedTuple):
    """N / D at points b."""

    H_N: Array  # (n, k_N)
    H_D: Array  # (n, k_D)

    def basis(self, b: Array) -> Array:
        """Return H_N / D."""
        return self.H_N / (b @ self.H_D.T)[..., None]

    def slopes(self, b: Array, a: Array) -> Array:
        """Return -y H_D / D for answers y; none along b, whose length is free."""
        D = (b @ self.H_D.T)[:, None]
        return -(a @ self.H_N.T / D**2)[..., None] * self.H_D

    def moved(self, b: Array, step: Array) -> Array:
        """Return b on the unit sphere."""
        b = b + step
        return b / np.linalg.norm(b, axis=1, keepdims=True)


def fit_rational(
    H_N: Array,
    H_D: Array,
    y: Array,
    w: Array,
    *,
    warm: Array | None = None,
    cold: bool = True,
    steps: int = 30,
    resolved: float = 1e-9,
) -> Fits:
    """Minimise the sum of |w (H_N a / (H_D b) - y)|² for each weighting.

    Args:
        H_N: Features of N, `(n, k_N)`, real or complex.
        H_D: Features of D, `(n, k_D)`.
        y: Targets, `(m, n)`, finite.
        w: Square roots of the weights, `(F, m, n)`; 0 leaves an entry out.
        warm: Where to start too, `(1, k_D)` or `(F, k_D)`.
        cold: Start from linearised fits; the better end of both starts is kept.
        steps: At most.
        resolved: See `zeroproof.solve.varpro.refined`.
    """
    model, F, q = _Ratio(H_N, H_D), len(w), H_D.shape[1]
    starts = [_linearized(model, y, w)] if cold or warm is None else []
    if warm is not None:
        starts.append(np.broadcast_to(warm / np.linalg.norm(warm, axis=1, keepdims=True), (F, q)))
    b = np.concatenate(starts).astype(np.result_type(H_N, H_D, y))
    steps = steps if q > 1 else 0
    b, at = refined(model, y, np.tile(w, (len(starts), 1, 1)), b, steps=steps, resolved=resolved)
    best = at.objective.reshape(len(starts), F).argmin(0) * F + np.arange(F)
    return Fits(np.moveaxis(at.c[best], 1, 2), b[best], at.objective[best])


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
) -> tuple[CoefficientForm, float]:
    r"""Fit a rational function of one variable and given degrees, without start values.

    Minimises Σ w \|N/D - y\|² / (1 + \|y/s\|²)^power. The starts are linearised fits, each with
    other random row weights; all make a few steps, the best few go on to the end.

    Args:
        x: Points, `(n,)`.
        y: Targets, `(n,)`, real or complex; those that are not finite are left out.
        degrees: (p, q) of N and D.
        weight: w, `(n,)`; 1 by default.
        weight_power: 0 for plain least squares, 1 for relative errors where \|y\| exceeds s.
        scale: s, in the units of y; the median of \|y\| by default.
        starts: How many, at least 1; the first has even weights.
        seed: Of the random weights: the same seed gives the same answer.

    Returns:
        The form, on Chebyshev polynomials scaled to the range of x, and the sum that was minimised.

    Raises:
        ShapeError: x is not `(n,)`, or y and weight do not match it.
        DataError: x is not finite or constant, or no target is finite.
        RangeError: The degrees have more unknowns than there are distinct finite rows, an option is
            out of range, or D is 0 in a row of every start.

    Examples:
        >>> x = torch.linspace(0, 1, 20, dtype=torch.float64)
        >>> form, objective = least_squares(x, (1 + x) / (2 - x), (1, 1), starts=2)
        >>> objective < 1e-28
        True
    """
    if y.ndim != 1:
        raise ShapeError(f"y must be (n,), got {tuple(y.shape)}")
    whole(starts, "starts", low=1)
    if not 0 <= weight_power < np.inf:
        raise RangeError(f"weight_power must be at least 0, got {weight_power!r}")
    table = checked_table(x, y, weight)
    p, q = checked_degrees(degrees, table.x)
    s = target_scale(table.y) if scale is None else positive(scale, "scale")
    H_N, H_D = (chebyshev_basis(table.x, d, domain=table.domain).numpy() for d in (p, q))
    model, targets = _Ratio(H_N, H_D), table.y.numpy()[None]
    size = np.hypot(1, np.abs(targets[0]) / s)
    w = (np.sqrt(table.weight.numpy()) / size**weight_power)[None, None]
    spread = np.random.default_rng(seed).standard_normal((starts, len(size)))
    spread[0] = 0
    # weights of chordal and of absolute errors by turns: which starts lead to the end depends on y
    power = 2 * (1 - np.arange(starts) % 2)
    drawn = w * (np.exp(spread) / size ** power[:, None])[:, None]
    begun = []
    for some in np.array_split(drawn, min(starts, 1 + drawn.size * (p + q + 2) // _ENTRIES)):
        b = _linearized(model, targets, some, sweeps=4)
        many = np.repeat(w, len(b), 0)
        b, at = refined(model, targets, many, b, steps=_STEPS, resolved=0.0)
        begun += zip(at.objective, b, strict=True)
    begun.sort(key=lambda pair: pair[0])
    ends = [
        refined(model, targets, w, b[None], steps=_LONG, resolved=0.0) for _, b in begun[:_FINISHED]
    ]
    best, at = min(ends, key=lambda end: end[1].objective[0])
    objective = float(at.objective[0])
    if not objective < np.inf:
        raise RangeError(f"no start has D other than 0 in every row, got {starts} starts")
    a, b = torch.from_numpy(at.c[0, 0]), torch.from_numpy(best[0])
    return CoefficientForm(a, b, "chebyshev", table.domain), objective


def _linearized(model: _Ratio, y: Array, w: Array, sweeps: int = 6) -> Array:
    """Return b of the best of some Sanathanan-Koerner sweeps: |w t (N - y D)|² with t = 1 / |D|."""
    (F, m, n), (H_N, H_D) = w.shape, model
    t, best, least = np.ones((F, n)), np.zeros((F, H_D.shape[1]), y.dtype), np.full(F, np.inf)
    best[:, 0] = 1
    for _ in range(sweeps):
        wt = w * t[:, None]
        Q = np.linalg.qr(wt[..., None] * H_N)[0]
        B = -(wt * y)[..., None] * H_D
        for _ in range(2):  # once leaves rounding errors of the size of B behind
            B = B - Q @ (adjoint(Q) @ B)
        B = B.reshape(F, m * n, -1)
        if B.shape[1] > B.shape[2]:
            B = np.linalg.qr(B, mode="r")
        b = np.linalg.svd(B)[2][:, -1].conj()
        objective = linear(model, y, w, b).objective
        better = objective < least
        best = np.where(better[:, None], b, best)
        least = np.where(better, objective, least)
        D = np.abs(b @ H_D.T)
        t = 1 / np.maximum(D, 1e-14 * D.max(1, keepdims=True) + 1e-300)
        t = t / np.median(t, 1, keepdims=True)
    return best


class FiniteRows(NamedTuple):
    """Finite rows in float64 or complex128."""

    x: Tensor  # (n,)
    y: Tensor  # (n,) or (n, m)
    weight: Tensor  # (n,)
    domain: tuple[float, float]


def checked_table(x: Tensor, y: Tensor, weight: Tensor | None = None) -> FiniteRows:
    """Return the rows whose target is finite, in double precision."""
    if x.ndim != 1 or y.ndim not in {1, 2} or len(y) != len(x):
        raise ShapeError(
            f"x must be (n,) and y (n,) or (n, m), got {tuple(x.shape)} and {tuple(y.shape)}"
        )
    wrong = ~torch.isfinite(x)
    if bool(wrong.any()):
        raise DataError(f"x must be finite, got {x[wrong][0].item()} in {listed(wrong)}")
    kept, weight = _counted(y, weight)
    x, y = (double(part[kept].detach()) for part in (x, y))
    low, high = float(x.real.min()), float(x.real.max())
    if low == high:
        raise DataError(f"x must not be constant, got {low:g} in every row that counts")
    return FiniteRows(x, y, weight, (low, high))


def _counted(y: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the mask of the rows that are finite and of weight above 0, and their weights."""
    if weight is None:
        weight = torch.ones(len(y), dtype=torch.float64)
    if weight.shape != (len(y),):
        raise ShapeError(f"weight must be ({len(y)},), one per row, got {tuple(weight.shape)}")
    if not bool((torch.isfinite(weight) & (weight >= 0)).all()):
        raise DataError(f"weight must be finite and at least 0, got {weight.min().item():g}")
    finite = torch.isfinite(y).reshape(len(y), -1).all(1)
    kept = finite & (weight > 0)
    if not bool(finite.any()):
        raise DataError(f"at least one target must be finite, got {len(y)} rows of ⊥")
    if not bool(kept.any()):
        raise DataError("a row with a finite target must have a weight above 0, got none")
    return kept, weight[kept].detach().to(torch.float64)


def checked_degrees(degrees: tuple[int, int], x: Tensor) -> tuple[int, int]:
    """Return (p, q) if the rows can tell p + q + 1 unknowns."""
    p, q = (whole(d, "degrees") for d in degrees)
    distinct = len(x.unique())
    if p + q + 1 > distinct:
        raise RangeError(
            f"degrees ({p}, {q}) have {p + q + 1} unknowns and must not exceed "
            f"the distinct finite rows, got {distinct}"
        )
    return p, q


def double(x: Tensor) -> Tensor:
    """Return x in float64, or complex128."""
    return x.to(torch.complex128 if x.is_complex() else torch.float64)


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
    theta, at = refined(model, targets, w, theta, steps=_OF_ROOTS, resolved=0.0)
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
