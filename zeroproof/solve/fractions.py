"""Sums of many simple poles and a polynomial, by least squares in the poles themselves.

f(u) = Σ r_k / (u - p_k) + Σ a_j T_j(u). The coefficients of a denominator of degree 80 do not hold
its zeros in 16 digits, and support points hold them to some 1e-8; the poles are their own best
coordinates. For given poles r and a are linear (variable projection, Golub & Pereyra 1973), so that
Levenberg and Marquardt move the poles alone, a few steps from those of AAA. Of real targets complex
poles come in conjugate pairs, of which the upper one stands for both.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.polynomial import chebyshev

__all__ = ["Fractions", "fit_fractions", "fraction_values", "with_conjugates"]

Array = Any  # of NumPy, real or complex: its types do not tell one from the other
_EPS = float(np.finfo(float).eps)
_TRIES = 5  # of one step, each with ten times the damping


class Fractions(NamedTuple):
    """A fit."""

    poles: Array  # (K,), complex; real poles have imaginary part 0
    residues: Array  # (m, K)
    a: Array  # (m, d + 1)
    objective: float
    position_se: Array  # (K,), by the delta method; nan if not asked for
    significance: Array  # (K,), |residue| over its standard error; nan if not asked for


class _State(NamedTuple):
    p: Array
    Q: list[Array]  # of each output
    R: list[Array]
    c: Array  # (m, k)
    residual: Array  # (m, n), weighted
    objective: float


def with_conjugates(poles: Array, residues: Array) -> tuple[Array, Array]:
    """Return all poles and residues of a real function from the real ones and the upper ones."""
    upper = poles.imag > 0
    return (
        np.concatenate([poles, poles[upper].conj()]),
        np.concatenate([residues, residues[..., upper].conj()], -1),
    )


def fraction_values(poles: Array, residues: Array, a: Array, u: Array) -> Array:
    """Return answers, `(n, m)`; not finite at a pole. All poles are listed, conjugates too."""
    with np.errstate(all="ignore"):
        sums = (1 / (u[:, None] - poles)) @ residues.T
    return sums + chebyshev.chebval(u, a.T).T


class _Rows:
    """The rows of a fit, and the real numbers that stand for poles of either kind."""

    def __init__(self, u: Array, y: Array, w: Array, poles: Array, degree: int) -> None:
        self.u, self.y, self.w, self.real = u, y, w, not np.iscomplexobj(y)
        self.H = chebyshev.chebvander(u, degree) if degree >= 0 else np.empty((len(u), 0))
        self.line = poles.imag == 0 if self.real else np.zeros(len(poles), bool)
        self.width = len(poles) + (int((~self.line).sum()) if self.real else 0)

    def parts(self, columns: Array) -> Array:
        """Return the real columns of the poles: of an upper one those of Re r and of Im r."""
        if not self.real:
            return columns
        up = columns[:, ~self.line]
        return np.hstack([columns[:, self.line].real, 2 * up.real, -2 * up.imag])

    def joined(self, c: Array) -> Array:
        """Return one complex number for each pole, of the real ones that go with `parts`."""
        if not self.real:
            return c
        lines, ups = int(self.line.sum()), int((~self.line).sum())
        z = np.zeros((*c.shape[:-1], lines + ups), complex)
        z[..., self.line] = c[..., :lines]
        z[..., ~self.line] = c[..., lines : lines + ups] + 1j * c[..., lines + ups :]
        return z

    def state(self, p: Array) -> _State:
        """Solve for residues and polynomial."""
        with np.errstate(all="ignore"):
            B = np.hstack([self.parts(1 / (self.u[:, None] - p)), self.H])
        Qs, Rs, c, residual = [], [], [], []
        for y, w in zip(self.y, self.w, strict=True):
            A = np.where(w[:, None] > 0, w[:, None] * B, 0)
            if not np.isfinite(A).all():
                return _State(p, [], [], np.zeros(0), np.zeros(0), np.inf)
            Q, R = np.linalg.qr(A)
            z = Q.conj().T @ (w * y)
            Qs.append(Q)
            Rs.append(R)
            c.append(z)
            residual.append(Q @ z - w * y)
        r = np.array(residual)
        return _State(p, Qs, Rs, np.array(c), r, float((np.abs(r) ** 2).sum()))

    def slopes(self, s: _State, residues: Array) -> list[Array]:
        """Return the weighted slopes of each output by the poles."""
        with np.errstate(all="ignore"):
            G = 1 / (self.u[:, None] - s.p) ** 2
        return [
            np.where(w[:, None] > 0, w[:, None] * self.parts(r * G), 0)
            for r, w in zip(residues, self.w, strict=True)
        ]


def _solved(s: _State) -> Array:
    return np.array([np.linalg.lstsq(R, z)[0] for R, z in zip(s.R, s.c, strict=True)])


def _across(slopes: list[Array], s: _State) -> Array:
    """Return the part of the slopes that residues and polynomial cannot make up for."""
    return np.concatenate([P - Q @ (Q.conj().T @ P) for P, Q in zip(slopes, s.Q, strict=True)])


def fit_fractions(
    u: Array, y: Array, w: Array, poles: Array, degree: int, *, steps: int = 30, errors: bool = True
) -> Fractions:
    """Minimise the sum of |w (f - y)|² over poles, residues and the polynomial.

    Args:
        u: Points, `(n,)`, in about [-1, 1].
        y: Targets, `(m, n)`; all outputs share the poles.
        w: Square roots of the weights, `(m, n)`; 0 leaves an entry out.
        poles: Where to start; of real targets the real and the upper ones.
        degree: Of the polynomial; -1 for none.
        steps: At most.
        errors: Find standard errors too.
    """
    rows = _Rows(u, y, w, poles, degree)
    now, damping, width = rows.state(poles), 1e-6, rows.width
    least = 1e-32 * float((np.abs(w * y) ** 2).sum())
    for _ in range(steps if len(poles) else 0):
        if not np.isfinite(now.objective) or now.objective <= least:
            break
        J = _across(rows.slopes(now, rows.joined(_solved(now)[:, :width])), now)
        size = np.linalg.norm(J, axis=0) + 1e-300
        U, s, Vh = np.linalg.svd(J / size, full_matrices=False)
        slope, before = U.conj().T @ now.residual.ravel(), now.objective
        for _ in range(_TRIES):
            step = Vh.conj().T @ (s / (s**2 + (damping * s[0]) ** 2) * slope) / size
            trial = rows.state(now.p - rows.joined(step))
            if trial.objective < before:
                now, damping = trial, max(damping / 10, 1e-15)
                break
            damping *= 10
        if now.objective > before * (1 - 1e-6):
            break
    if not np.isfinite(now.objective):
        raise np.linalg.LinAlgError("a pole lies on a row")
    c = _solved(now)
    residues = rows.joined(c[:, :width])
    unknown = np.full(len(now.p), np.nan)
    if not errors:
        return Fractions(now.p, residues, c[:, width:], now.objective, unknown, unknown)
    position, clear = _errors(rows, now, residues, c[:, :width])
    return Fractions(now.p, residues, c[:, width:], now.objective, position, clear)


def _errors(rows: _Rows, now: _State, residues: Array, c: Array) -> tuple[Array, Array]:
    """Return standard errors of the poles, and how clear of 0 the residues are."""
    u, w = rows.u, rows.w
    slopes = rows.slopes(now, residues)
    # what rounding of u and of y alone does to the answers; a real pair has two columns
    with np.errstate(all="ignore"):
        slope = (rows.parts(1 / (u[:, None] - now.p) ** 2) @ c.T).T
    rounding = np.where(w > 0, 4 * _EPS * w * np.hypot(np.abs(rows.y), np.abs(u * slope)), 0)
    square = max(now.objective, float((rounding**2).sum()))
    free = sum(R.shape[1] for R in now.R) + rows.width
    sigma = np.sqrt(square / max(int((w > 0).sum()) - free, 1))
    _, s, Vh = np.linalg.svd(_across(slopes, now), full_matrices=False)
    root = Vh.conj().T / np.maximum(s, 1e-300)  # of the covariance of the poles
    se = np.abs(rows.joined(np.linalg.norm(root, axis=1))) * sigma
    clear = np.zeros(len(now.p))
    for P, Q, R, r in zip(slopes, now.Q, now.R, residues, strict=True):
        # the residues move by R⁻¹ of the noise of the rows and of what the poles take with them
        inverse = np.linalg.pinv(R)[: rows.width]
        spread = np.hypot(
            np.linalg.norm(inverse, axis=1),
            np.linalg.norm(inverse @ (Q.conj().T @ P) @ root, axis=1),
        )
        error = np.abs(rows.joined(spread)) * sigma
        clear = np.maximum(clear, np.abs(r) / np.maximum(error, 1e-300))
    return se, clear
