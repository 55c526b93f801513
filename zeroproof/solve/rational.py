"""Rational functions by least squares: many fits of the same rows at once, weighted differently.

N = H_N a and D = H_D b. For given b the best a is a linear least squares fit, so only b is searched
(see `zeroproof.solve.varpro`); b lives on the unit sphere, since (a, b) and (c a, c b) are one
function.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from zeroproof.solve.varpro import adjoint, linear, refined

__all__ = ["Fits", "fit_rational"]

Array = NDArray[Any]


class Fits(NamedTuple):
    """Fits of one size, one for each weighting: N = H_N a, D = H_D b."""

    a: Array  # (F, k_N, m)
    b: Array  # (F, k_D)
    objective: Array  # (F,), the weighted sum of squares; inf where there is no fit


class _Quotient(NamedTuple):
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
        steps: Of Levenberg and Marquardt, at most.
        resolved: Relative decrease of the objective at which a fit has ended.
    """
    model, F, q = _Quotient(H_N, H_D), len(w), H_D.shape[1]
    starts = [_linearized(model, y, w)] if cold or warm is None else []
    if warm is not None:
        starts.append(np.broadcast_to(warm / np.linalg.norm(warm, axis=1, keepdims=True), (F, q)))
    b = np.concatenate(starts).astype(np.result_type(H_N, H_D, y))
    steps = steps if q > 1 else 0
    b, at = refined(model, y, np.tile(w, (len(starts), 1, 1)), b, steps=steps, resolved=resolved)
    best = at.objective.reshape(-1, F).argmin(0) * F + np.arange(F)
    return Fits(np.moveaxis(at.c[best], 1, 2), b[best], at.objective[best])


def _linearized(model: _Quotient, y: Array, w: Array, sweeps: int = 6) -> Array:
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
