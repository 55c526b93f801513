"""Rational functions by least squares: many fits of the same rows at once, weighted differently.

N = H_N a and D = H_D b. For given b the best a is a linear least squares fit, so only b is searched
(variable projection, Golub & Pereyra 1973, with Kaufman's Jacobian); b lives on the unit sphere,
since (a, b) and (c a, c b) are one function. A fold of a cross validation is the same problem with
weights of 0 in its rows: all folds are solved together, as one batch of small matrices.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Fits", "adjoint", "fit_rational"]

Array = NDArray[Any]
_TINY = float(np.finfo(float).tiny)
_TRIES = 5  # of one step, each with ten times the damping


class Fits(NamedTuple):
    """Fits of one size, one for each weighting: N = H_N a, D = H_D b."""

    a: Array  # (F, k_N, m)
    b: Array  # (F, k_D)
    objective: Array  # (F,), the weighted sum of squares; inf where there is no fit


class _State(NamedTuple):
    D: Array  # (F, n)
    Q: Array  # (F, m, n, k_N), orthonormal columns of w H_N / D
    R: Array
    c: Array  # (F, m, k_N)
    fit: Array  # (F, m, n), the weighted answers
    residual: Array
    objective: Array  # (F,)


def adjoint(x: Array) -> Array:
    """Return the conjugate transpose of a stack of matrices."""
    return np.swapaxes(x, -1, -2).conj()


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
    if H_D.shape[1] == 1:
        b = np.ones((len(w), 1), y.dtype)
        return _finished(b, _state(H_N, H_D, y, w, b))
    starts = [_linearized(H_N, H_D, y, w)] if cold or warm is None else []
    if warm is not None:
        starts.append(np.broadcast_to(warm, (len(w), H_D.shape[1])).copy())
    ends = [_finished(*_refined(H_N, H_D, y, w, b, steps, resolved)) for b in starts]
    if len(ends) == 1:
        return ends[0]
    second = ends[1].objective < ends[0].objective
    return Fits(
        *(
            np.where(second.reshape((-1,) + (1,) * (one.ndim - 1)), two, one)
            for one, two in zip(*ends, strict=True)
        )
    )


def _state(H_N: Array, H_D: Array, y: Array, w: Array, b: Array) -> _State:
    """Solve for a, given b."""
    # rows without weight may lie on a zero of D
    D = np.where(w.max(1) > 0, b @ H_D.T, 1.0)
    bad = ~np.isfinite(D).all(1) | (np.abs(D).min(1) <= 1e-300)
    D[bad] = 1.0
    with np.errstate(all="ignore"):
        A = (w / D[:, None])[..., None] * H_N
    bad |= ~np.isfinite(A).all((1, 2, 3))
    A[bad] = H_N
    Q, R = np.linalg.qr(A)
    z = w * y
    c = (adjoint(Q) @ z[..., None])[..., 0]
    fit = (Q @ c[..., None])[..., 0]
    residual = fit - z
    square = (np.abs(residual) ** 2).sum((1, 2))
    return _State(D, Q, R, c, fit, residual, np.where(bad, np.inf, square))


def _linearized(H_N: Array, H_D: Array, y: Array, w: Array, sweeps: int = 6) -> Array:
    """Return b of the best of some Sanathanan-Koerner sweeps: |w t (N - y D)|² with t = 1 / |D|."""
    F, m, n = w.shape
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
        objective = _state(H_N, H_D, y, w, b).objective
        better = objective < least
        best = np.where(better[:, None], b, best)
        least = np.where(better, objective, least)
        D = np.abs(b @ H_D.T)
        t = 1 / np.maximum(D, 1e-14 * D.max(1, keepdims=True) + 1e-300)
        t = t / np.median(t, 1, keepdims=True)
    return best


def _refined(
    H_N: Array, H_D: Array, y: Array, w: Array, b: Array, steps: int, resolved: float
) -> tuple[Array, _State]:
    """Levenberg-Marquardt in b; fits that have ended drop out of the batch."""
    q = H_D.shape[1]
    b = b / np.linalg.norm(b, axis=1, keepdims=True)
    state = _state(H_N, H_D, y, w, b)
    damping, live = np.full(len(b), 1e-6), np.isfinite(state.objective)
    floor = 1e-32 * (np.abs(w * y) ** 2).sum((1, 2))
    for _ in range(steps):
        at = np.flatnonzero(live)
        if not len(at):
            break
        J: Array = -(state.fit[at] / state.D[at, None])[..., None] * H_D
        J = J - state.Q[at] @ (adjoint(state.Q[at]) @ J)
        J = np.concatenate([J, state.residual[at][..., None]], -1).reshape(len(at), -1, q + 1)
        if J.shape[1] > q + 1:
            J = np.asarray(np.linalg.qr(J, mode="r"))
        # J b = 0: the length of b is a direction that the singular values leave alone
        U, s, Vh = np.linalg.svd(J[..., :q], full_matrices=False)
        slope = (adjoint(U) @ J[..., q:])[..., 0]
        pending, ended = np.ones(len(at), bool), np.ones(len(at), bool)
        for _ in range(_TRIES):
            k = np.flatnonzero(pending)
            if not len(k):
                break
            i = at[k]
            gain = s[k] / (s[k] ** 2 + (damping[i] * s[k, 0])[:, None] ** 2 + _TINY)
            trial = b[i] - (adjoint(Vh[k]) @ (gain * slope[k])[..., None])[..., 0]
            trial = trial / np.linalg.norm(trial, axis=1, keepdims=True)
            new = _state(H_N, H_D, y, w[i], trial)
            ok = new.objective < state.objective[i]
            damping[i] = np.where(ok, np.maximum(damping[i] / 10, 1e-15), damping[i] * 10)
            k, i = k[ok], i[ok]
            fall = state.objective[i] - new.objective[ok]
            ended[k] = (fall < resolved * state.objective[i]) | (new.objective[ok] <= floor[i])
            b[i] = trial[ok]
            for part, value in zip(state, new, strict=True):
                part[i] = value[ok]
            pending[k] = False
        live[at] = ~ended
    return b, state


def _finished(b: Array, state: _State) -> Fits:
    R = state.R.copy()
    diagonal = np.abs(np.diagonal(R, axis1=-2, axis2=-1))
    least = 1e-18 * diagonal.max(-1) + 1e-300  # keeps a matrix without full rank solvable
    at = np.arange(R.shape[-1])
    R[..., at, at] += np.where(diagonal < least[..., None], least[..., None], 0)
    a = np.linalg.solve(R, state.c[..., None])[..., 0]
    return Fits(np.moveaxis(a, 1, 2), b, state.objective)
