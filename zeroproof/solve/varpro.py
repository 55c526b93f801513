"""Variable projection: least squares with answers Φ(θ) c, for many weightings of the same rows.

For a given point θ the best coefficients c are a linear fit, so that only θ is searched (Golub &
Pereyra, SIAM J. Numer. Anal. 10:413, 1973). With Q an orthonormal basis of the columns of W Φ, W
the roots of the weights, the residual is r = (QQᴴ - 1) W y, and its slopes by θ are

    J = (1 - QQᴴ) W (∂Φ/∂θ) c + a term in proportion to r,

of which Kaufman (BIT 15:49, 1975) leaves the second out: steps are as good and cost half as much.
The damping is that of Levenberg and Marquardt. A fold of a cross validation is the same problem
with weights of 0 in its rows: all folds are solved together, as one batch of small matrices.
"""

from typing import Any, NamedTuple, Protocol

import numpy as np

__all__ = ["Model", "State", "adjoint", "linear", "refined"]

Array = Any  # of NumPy, real or complex: its types do not tell one from the other
_TINY = float(np.finfo(float).tiny)
_SHORT = 1e-14  # of a column's length: less than that beside the others is rounding
_FIRST, _LEAST = 1e-6, 1e-8  # damping, over the largest singular value
_CLEAN = 1e-32  # of the squared targets: a smaller decrease is rounding


class Model(Protocol):
    """What is fitted. A point of which an entry is not finite in a row that counts has no fit."""

    def basis(self, theta: Array, /) -> Array:
        """Return the columns Φ that c multiplies, `(F, n, k)`, at points `(F, …)`."""
        ...

    def slopes(self, theta: Array, c: Array, /) -> Array:
        """Return the slopes of Φ c by the step, `(F, m, n, q)`, for coefficients `(F, m, k)`."""
        ...

    def moved(self, theta: Array, step: Array, /) -> Array:
        """Return the points after steps, `(F, q)`."""
        ...


class State(NamedTuple):
    """The linear fits at F points, of m outputs each."""

    Q: Array  # (F, m, n, k), orthonormal columns; all zeros in place of what the basis lacks
    c: Array  # (F, m, k); where the basis leaves a choice, the shortest, over columns of length 1
    residual: Array  # (F, m, n), weighted
    objective: Array  # (F,), the sum of squares; inf where there is no fit


def adjoint(x: Array) -> Array:
    """Return the conjugate transpose of a stack of matrices."""
    return np.swapaxes(x, -1, -2).conj()


def linear(model: Model, y: Array, w: Array, theta: Array) -> State:
    """Solve for c at given points.

    Args:
        model: What is fitted.
        y: Targets, `(m, n)`, finite.
        w: Square roots of the weights, `(F, m, n)`; a row with 0 may lie on a pole.
        theta: Points, `(F, …)`.
    """
    with np.errstate(all="ignore"):
        A = w[..., None] * model.basis(theta)[:, None]
    A[w == 0] = 0  # 0 times inf is nan
    bad: Array = ~np.isfinite(A).all((1, 2, 3))
    A[bad] = 0
    Q, R = np.linalg.qr(A)
    z = w * y
    b = _times(adjoint(Q), z)
    # columns may be of very different sizes, which QR bears; but of a column that the others hold
    # it makes a direction out of rounding, which is no part of the basis
    size = np.linalg.norm(R, axis=-2) + _TINY
    diagonal = np.abs(np.diagonal(R, axis1=-2, axis2=-1))
    short = (diagonal <= _SHORT * size[..., : diagonal.shape[-1]]).any((1, 2))
    short |= R.shape[-1] > R.shape[-2]
    c = np.zeros(size.shape, b.dtype)
    c[~short] = np.linalg.solve(R[~short], b[~short, ..., None])[..., 0] if not short.all() else 0
    if short.any():
        U, s, Vh = np.linalg.svd(R[short] / size[short][..., None, :], full_matrices=False)
        kept = s > _SHORT * s[..., :1]
        Q[short] = Q[short] @ (U * kept[..., None, :])
        b[short] = _times(adjoint(U), b[short]) * kept
        c[short] = _times(adjoint(Vh), b[short] / np.where(kept, s, 1)) / size[short]
    residual = _times(Q, b) - z
    square = (np.abs(residual) ** 2).sum((1, 2))
    return State(Q, c, residual, np.where(bad | np.isnan(square), np.inf, square))


def refined(
    model: Model,
    y: Array,
    w: Array,
    theta: Array,
    *,
    steps: int,
    resolved: float = 1e-9,
) -> tuple[Array, State]:
    """Minimise the sum of |w (Φ c - y)|² over c and the points; fits that ended drop out.

    Args:
        model: What is fitted.
        y: See `linear`.
        w: See `linear`.
        theta: Where to start; a start without a fit stays as it is.
        steps: At most.
        resolved: Relative decrease of the objective at which a fit has ended. Above 0 it is also
            given up where it would crawl, as with too many coefficients; 0 goes on to the end.
    """
    theta, now = theta.copy(), linear(model, y, w, theta)
    tries = 20 if resolved == 0 else 5
    damping, floor = np.full(len(w), _FIRST), _CLEAN * (np.abs(w * y) ** 2).sum((1, 2))
    live = np.isfinite(now.objective) & (theta.shape[1] > 0)
    for _ in range(steps):
        at = np.flatnonzero(live)
        if not len(at):
            break
        with np.errstate(all="ignore"):
            J = w[at][..., None] * model.slopes(theta[at], now.c[at])
        J[w[at] == 0] = 0
        J[~np.isfinite(J).all((1, 2, 3))] = 0  # no step: the fit ends
        # Kaufman: what c cannot make up for
        J -= now.Q[at] @ (adjoint(now.Q[at]) @ J)
        q = J.shape[-1]
        J = np.concatenate([J, now.residual[at][..., None]], -1).reshape(len(at), -1, q + 1)
        if J.shape[1] > q + 1:  # the triangular factor of (J, r) has all that is needed
            J = np.asarray(np.linalg.qr(J, mode="r"))
        # columns of length 1, so that the damping means the same for all of them; a direction that
        # answers do not depend on, as the length of a homogeneous θ, has the step 0
        size = np.linalg.norm(J[..., :q], axis=1) + _TINY
        U, s, Vh = np.linalg.svd(J[..., :q] / size[:, None], full_matrices=False)
        slope = _times(adjoint(U), J[..., q])
        before, k = now.objective[at], np.arange(len(at))
        for _ in range(tries):
            i = at[k]
            gain = s[k] / (s[k] ** 2 + (damping[i, None] * s[k, :1]) ** 2 + _TINY)
            step = _times(adjoint(Vh[k]), gain * slope[k]) / size[k]
            trial = model.moved(theta[i], -step)
            new = linear(model, y, w[i], trial)
            better = new.objective < now.objective[i]
            damping[i] = np.where(better, np.maximum(damping[i] / 10, _LEAST), damping[i] * 10)
            for part, value in zip((theta, *now), (trial, *new), strict=True):
                part[i[better]] = value[better]
            k = k[~better]
            if not len(k):
                break
        live[at] = before - now.objective[at] > resolved * before + floor[at]
    return theta, now


def _times(A: Array, x: Array) -> Array:
    return (A @ x[..., None])[..., 0]
