"""Functions of s = iω with real coefficients: their poles are real or come in pairs.

    H(s) = Σ r / (s - p) + Σ (a (s - c) + g) / ((s - c)² + h) + d + e s

The second sum holds pairs c ± i√h, or close real ones where h < 0: through a double pole, h = 0,
the function stays smooth. Against free complex coefficients their number is halved.
"""

from typing import Any, NamedTuple

import numpy as np
from scipy import linalg

__all__ = [
    "Poles",
    "System",
    "Systems",
    "columns",
    "covariance_root",
    "stacked",
    "state_space",
]

Array = Any  # of NumPy, real or complex: its types do not tell one from the other
_ROUNDING = 4 * float(np.finfo(float).eps)  # of a measured value
_DOUBLE = 1e-6  # of |c|: nearer poles are one double pole


class Poles(NamedTuple):
    """Zeros of D for F fits: real p, `(F, a)`, and factors (s - c)² + h, `(F, b)` each."""

    real: Array
    centre: Array
    square: Array

    @property
    def k(self) -> int:
        """Return their number."""
        return self.real.shape[1] + 2 * self.centre.shape[1]

    def at(self, index: Any) -> "Poles":
        """Return those of some fits."""
        return Poles(*(part[index] for part in self))

    def places(self) -> Array:
        """Return all poles, `(F, k)`; of a factor the upper one first."""
        gap = np.sqrt(-self.square.astype(complex))
        return np.concatenate([self.real, self.centre + gap, self.centre - gap], 1)


class System(NamedTuple):
    """A function of s = ix for each of m outputs, in the units of x and y."""

    poles: Poles  # of one fit
    c: Array  # (k + 1 or k + 2, m): r, a, g, d, and e if there is a linear term

    def __call__(self, x: Array) -> Array:
        """Return H(ix), `(n, m)`."""
        return columns(1j * x, self.poles, len(self.c) - self.poles.k)[0] @ self.c

    def slopes(self, x: Array) -> tuple[Array, Array]:
        """Return how H moves with (p, c, h), `(m, n, k)`, and with the other ones, `(n, …)`."""
        moves = _moves(1j * x, self.poles, self.c.T[None])[0]
        return moves, columns(1j * x, self.poles, len(self.c) - self.poles.k)[0]

    def table(self, output: int = 0) -> tuple[Array, Array, Array, Array]:
        """Return distinct poles, residues, strengths and multiplicities of one output."""
        found: Array = np.array(self._told(output)[0], complex).reshape(-1, 4)
        return *found.T[:3], found[:, 3].real.astype(int)

    def errors(self, root: Array, output: int = 0) -> tuple[Array, Array, Array]:
        r"""Return standard errors of poles and residues, and \|N(p)\| over its own.

        Args:
            root: Of the covariance, see `covariance_root`.
            output: Which output.
        """
        k, own = self.poles.k, len(self.c)
        L = np.concatenate([root[:k], root[k + output * own :][:own]])
        _, moves = self._told(output)
        rows = np.zeros((3 * len(moves), len(L)), complex)
        sizes = np.zeros(len(moves))
        for i, (of_place, of_residue, of_value, value) in enumerate(moves):
            for j, move in enumerate((of_place, of_residue, of_value)):
                for place, slope in move.items():
                    rows[3 * i + j, place] = slope
            sizes[i] = abs(value)
        place, residue, value = np.linalg.norm(rows @ L, axis=1).reshape(-1, 3).T
        return place, residue, sizes / np.maximum(value, 1e-300)

    def zeros(self, output: int = 0) -> Array:
        """Return the zeros of one output: u s = -d u - yᵀ x / e, s x = M x + v u has one each."""
        M, v, scale = state_space(self.poles)
        k, y = self.poles.k, self.c[:, output]
        own = y[:k] / scale
        A = np.block([[M, v[:, None]], [-own[None], -y[k : k + 1, None]]])
        B = np.diag(np.r_[np.ones(k), y[k + 1] if len(y) > k + 1 else 0.0])
        found = linalg.eigvals(A, B)
        return found[np.isfinite(found)]

    def _told(self, output: int) -> tuple[list[Any], list[Any]]:
        """Return (p, residue, strength, multiplicity), and the slopes of p, residue and N(p)."""
        a, b, k = self.poles.real.shape[1], self.poles.centre.shape[1], self.poles.k
        y, found, moves = self.c[:, output], [], []
        for i, p in enumerate(self.poles.real[0]):
            found.append((complex(p), complex(y[i]), complex(y[i]), 1))
            moves.append(({i: 1}, {k + i: 1}, {k + i: 1}, y[i]))
        for i, (c, h) in enumerate(zip(self.poles.centre[0], self.poles.square[0], strict=True)):
            at_c, at_h = a + i, a + b + i
            slope, value = y[at_c], y[at_h]
            if abs(h) <= (_DOUBLE * c) ** 2:
                found.append((complex(c), complex(slope), complex(value), 2))
                moves.append(({at_c: 1}, {k + at_c: 1}, {k + at_h: 1}, value))
                continue
            for gap in (np.sqrt(complex(-h)), -np.sqrt(complex(-h))):
                # p = c + gap has the residue (a gap + g) / (2 gap), and d gap = -dh / (2 gap)
                residue, turn = slope / 2 + value / (2 * gap), -1 / (2 * gap)
                found.append((c + gap, residue, residue, 1))
                moves.append((
                    {at_c: 1, at_h: turn},
                    {k + at_c: 0.5, k + at_h: 0.5 / gap, at_h: -value / (2 * gap**2) * turn},
                    {k + at_c: gap, k + at_h: 1, at_h: slope * turn},
                    slope * gap + value,
                ))  # fmt: skip
        return found, moves


class Systems(NamedTuple):
    """The model of `zeroproof.solve.varpro`: points are (p, c, h), rows real over imaginary parts.

    Steps are in log(-p), log(-c) and h, so that poles over eight decades are equally well scaled.
    """

    s: Array  # (n,)
    simple: int  # real poles
    tail: int  # 1 for d, 2 for d and e

    def poles(self, theta: Array) -> Poles:
        """Return the poles of points, `(F, k)`."""
        pairs = (theta.shape[1] - self.simple) // 2
        return Poles(*np.split(theta, [self.simple, self.simple + pairs], axis=1))

    def basis(self, theta: Array) -> Array:
        """Return the columns of r, a, g, d and e."""
        poles = self.poles(theta)
        B = stacked(columns(self.s, poles, self.tail), 1)
        B[(-poles.square >= poles.centre**2).any(1)] = np.nan  # one pole on either side
        return B

    def slopes(self, theta: Array, c: Array) -> Array:
        """Return the slopes by the steps."""
        poles = self.poles(theta)
        logs = np.concatenate([poles.real, poles.centre, np.ones_like(poles.square)], 1)
        return stacked(_moves(self.s, poles, c) * logs[:, None, None], 2)

    def moved(self, theta: Array, step: Array) -> Array:
        """Return the points after steps; one in a logarithm is cut at 2."""
        logs = theta.shape[1] - self.poles(theta).square.shape[1]
        new = theta[:, :logs] * np.exp(np.clip(step[:, :logs], -2, 2))
        return np.concatenate([new, theta[:, logs:] + step[:, logs:]], 1)


def stacked(z: Array, axis: int = -1) -> Array:
    """Return real parts over imaginary ones."""
    return np.concatenate([z.real, z.imag], axis)


def _factors(s: Array, poles: Poles) -> Array:
    """Return 1 / ((s - c)² + h), `(F, n, b)`, exact beside a sharp resonance."""
    gap = np.sqrt(-poles.square.astype(complex))[:, None]
    z = s[:, None]
    return 1 / ((z - (poles.centre[:, None] + gap)) * (z - (poles.centre[:, None] - gap)))


def columns(s: Array, poles: Poles, tail: int) -> Array:
    """Return the columns of r, a, g, d and e, `(F, n, k + tail)`."""
    D = _factors(s, poles)
    rest = np.broadcast_to(s[:, None] ** np.arange(tail), (len(D), len(s), tail))
    simple = 1 / (s[:, None] - poles.real[:, None])
    return np.concatenate([simple, (s[:, None] - poles.centre[:, None]) * D, D, rest], -1)


def _moves(s: Array, poles: Poles, y: Array) -> Array:
    """Return the slopes of H by p, c and h, `(F, m, n, k)`, for coefficients `(F, m, …)`."""
    a, b = poles.real.shape[1], poles.centre.shape[1]
    z, D = s[:, None], _factors(s, poles)[:, None]
    z_c = z - poles.centre[:, None, None]
    simple = y[:, :, None, :a] / ((z - poles.real[:, None]) ** 2)[:, None]
    slope, value = y[:, :, None, a : a + b], y[:, :, None, a + b : a + 2 * b]
    part = (slope * z_c + value) * D
    return np.concatenate([simple, (2 * z_c * part - slope) * D, -part * D], -1)


def state_space(poles: Poles) -> tuple[Array, Array, Array]:
    """Return M, v and scales with Σ y φ(s) = (y / scale)ᵀ (s - M)⁻¹ v, φ the basis, of one fit.

    Of a factor, (s - M)⁻¹ (1, 0) = (s - c, scale) / D; the scale keeps both entries of one size.
    """
    a, b = poles.real.shape[1], poles.centre.shape[1]
    c, h = poles.centre[0], poles.square[0]
    size = np.sqrt(np.abs(h)) + 1e-3 * np.abs(c) + 1e-300
    M, at = np.diag(np.r_[poles.real[0], c, c]), a + np.arange(b)
    M[at, at + b], M[at + b, at] = -h / size, size
    return M, np.r_[np.ones(a + b), np.zeros(b)], np.r_[np.ones(a + b), size]


def covariance_root(system: System, x: Array, y: Array, w: Array) -> Array:
    """Return a root L of the covariance L Lᵀ of (p, c, h) and the other coefficients by output.

    The residual variance is never below that of rounding; what rows do not determine has errors
    without bound.

    Args:
        system: The function.
        x: Frequencies, `(n,)`.
        y: Signals, `(n, m)`.
        w: Square roots of weights, `(n, m)`; real and imaginary part count as two rows.
    """
    moves, own = system.slopes(x)
    m, k, width = len(moves), system.poles.k, own.shape[1]
    J = np.zeros((m, 2 * len(x), k + m * width))
    for j in range(m):
        J[j, :, :k] = stacked(moves[j] * w[:, j, None], 0)
        J[j, :, k + j * width : k + (j + 1) * width] = stacked(own * w[:, j, None], 0)
    J = J.reshape(-1, J.shape[-1])
    size = np.linalg.norm(J, axis=0)
    size[size == 0] = 1
    _, sv, Vh = np.linalg.svd(np.linalg.qr(J / size, mode="r"))
    sv = np.maximum(sv, 1e-15 * sv[0])
    moved = np.abs(system(x * (1 + 1e-7)) - system(x)) * 1e7
    floor = _ROUNDING * (np.abs(y) + moved)
    square = float(((np.abs(system(x) - y) ** 2 + floor**2) * w**2).sum())
    sigma = np.sqrt(square / max(len(J) - len(size), 1))
    return Vh.T / sv / size[:, None] * sigma
