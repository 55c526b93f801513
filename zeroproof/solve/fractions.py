"""Sums of many simple poles and a polynomial, by least squares in the poles themselves.

f(u) = Σ r_k / (u - p_k) + Σ a_j T_j(u). The coefficients of a denominator of degree 80 do not hold
its zeros in 16 digits, and support points hold them to some 1e-8; the poles are their own best
coordinates. For given poles r and a are linear (see `zeroproof.solve.varpro`), so that the poles
alone are moved, a few steps from those of AAA. Of real targets complex poles come in conjugate
pairs, of which the upper one stands for both.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.polynomial import chebyshev

from zeroproof.solve.varpro import adjoint, refined

__all__ = ["Fractions", "fit_fractions", "fraction_values", "move_fractions", "with_conjugates"]

Array = Any  # of NumPy, real or complex: its types do not tell one from the other
_EPS = float(np.finfo(float).eps)
_RESOLVED = 1e-6  # decrease of the sum of squares below which a fit has ended


class Fractions(NamedTuple):
    """A fit."""

    poles: Array  # (K,), complex; real poles have imaginary part 0
    residues: Array  # (m, K)
    a: Array  # (m, d + 1)
    objective: float
    position_se: Array  # (K,), by the delta method
    significance: Array  # (K,), |residue| over its standard error


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


class _Sum:
    """The model. Of real targets a point is real: real poles, Re p and Im p of the upper ones."""

    def __init__(self, u: Array, real: bool, poles: Array, degree: int) -> None:
        self.u, self.real = u, real
        self.H = chebyshev.chebvander(u, degree) if degree >= 0 else np.empty((len(u), 0))
        self.line = poles.imag == 0
        self.width = len(poles) + (int((~self.line).sum()) if real else 0)

    def apart(self, z: Array) -> Array:
        """Return the numbers that stand for one complex number of each pole: places, residues."""
        up = z[..., ~self.line]
        return np.concatenate([z[..., self.line].real, up.real, up.imag], -1) if self.real else z

    def joined(self, c: Array) -> Array:
        """Return the complex numbers that are taken `apart`."""
        if not self.real:
            return c
        lines, ups = int(self.line.sum()), int((~self.line).sum())
        z = np.zeros((*c.shape[:-1], lines + ups), complex)
        z[..., self.line] = c[..., :lines]
        z[..., ~self.line] = c[..., lines : lines + ups] + 1j * c[..., lines + ups :]
        return z

    def parts(self, columns: Array) -> Array:
        """Return real columns: of an upper pole those of Re r and of Im r."""
        if not self.real:
            return columns
        up = columns[..., ~self.line]
        return np.concatenate([columns[..., self.line].real, 2 * up.real, -2 * up.imag], -1)

    def basis(self, theta: Array) -> Array:
        """Return the columns of residues and polynomial."""
        columns = self.parts(1 / (self.u[:, None] - self.joined(theta)[:, None]))
        return np.concatenate([columns, np.broadcast_to(self.H, (len(theta), *self.H.shape))], -1)

    def slopes(self, theta: Array, c: Array) -> Array:
        """Return the slopes by the poles, r / (u - p)²."""
        r = self.joined(c[..., : self.width])[:, :, None]
        return self.parts(r / ((self.u[:, None] - self.joined(theta)[:, None]) ** 2)[:, None])

    def moved(self, theta: Array, step: Array) -> Array:
        """Return the sum."""
        return theta + step


def move_fractions(
    u: Array, y: Array, w: Array, poles: Array, degree: int, *, steps: int
) -> tuple[Array, Array, Array, Array]:
    """Minimise the sum of |w (f - y)|² for each weighting.

    Args:
        u: Points, `(n,)`, in about [-1, 1].
        y: Targets, `(m, n)`; all outputs share the poles.
        w: Square roots of the weights, `(F, m, n)`; 0 leaves an entry out.
        poles: Where all start, `(K,)`; of real targets the real and the upper ones.
        degree: Of the polynomial; -1 for none.
        steps: At most.

    Returns:
        Poles `(F, K)`, residues `(F, m, K)`, a `(F, m, degree + 1)` and the sums of squares.

    Raises:
        numpy.linalg.LinAlgError: A pole lies on a row.
    """
    model = _Sum(u, not np.iscomplexobj(y), poles, degree)
    theta = np.repeat(model.apart(poles)[None], len(w), 0)
    theta, at = refined(model, y, w, theta, steps=steps, resolved=_RESOLVED)
    if not np.isfinite(at.objective).all():
        raise np.linalg.LinAlgError("a pole lies on a row")
    p, r = model.joined(theta), model.joined(at.c[..., : model.width])
    below = model.real & (p.imag < 0)  # an upper pole that has crossed the line: its conjugate
    p, r = np.where(below, p.conj(), p), np.where(below[:, None], r.conj(), r)
    return p, r, at.c[..., model.width :], at.objective


def fit_fractions(
    u: Array, y: Array, w: Array, poles: Array, degree: int, *, steps: int = 30
) -> Fractions:
    """Return one fit with its standard errors.

    Args:
        u: See `move_fractions`, as for every argument not listed here.
        y: See `move_fractions`.
        w: Square roots of the weights, `(m, n)`.
        poles: See `move_fractions`.
        degree: See `move_fractions`.
        steps: See `move_fractions`.
    """
    parts = move_fractions(u, y, w[None], poles, degree, steps=steps)
    p, r, a, objective = (part[0] for part in parts)
    model = _Sum(u, not np.iscomplexobj(y), p, degree)
    theta, c = model.apart(p)[None], np.concatenate([model.apart(r), a], -1)
    with np.errstate(all="ignore"):
        A = w[..., None] * model.basis(theta)
        P = w[..., None] * model.slopes(theta, c[None])[0]
        slope = c[:, : model.width] @ model.parts(1 / (u[:, None] - p) ** 2).T
        # what rounding of u and of y alone does to the answers
        rounding = 4 * _EPS * w * np.hypot(np.abs(y), np.abs(u * slope))
    A[w == 0], P[w == 0], rounding[w == 0] = 0, 0, 0
    free = c.size + model.width
    square = max(float(objective), float((rounding**2).sum()))
    sigma = np.sqrt(square / max(int((w > 0).sum()) - free, 1))
    Q, R = np.linalg.qr(A)
    shared = adjoint(Q) @ P
    across = (P - Q @ shared).reshape(-1, model.width)  # what r and a cannot make up for
    _, s, Vh = np.linalg.svd(np.linalg.qr(across, mode="r"), full_matrices=False)
    root = Vh.conj().T / np.maximum(s, 1e-300)  # of the covariance of the poles
    se = np.abs(model.joined(np.linalg.norm(root, axis=1))) * sigma
    # the residues move by R⁻¹ of the noise of the rows and of what the poles take with them
    inverse = np.linalg.pinv(R)[:, : model.width]
    spread = np.linalg.norm(np.concatenate([inverse, inverse @ shared @ root], -1), axis=-1)
    error = np.abs(model.joined(spread)) * sigma
    clear = (np.abs(r) / np.maximum(error, 1e-300)).max(0)
    return Fractions(p, r, a, float(objective), se, clear)
