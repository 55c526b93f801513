"""The linearised fit of one variable, Sanathanan and Koerner (1963), and the rows it may use.

N is projected out of rows sorted by size: the one triangular factor of the spectral readout, which
blocks of rows need, costs up to ten times the accuracy at a double pole.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from zeroproof._checks import whole
from zeroproof.errors import DataError, RangeError, ShapeError
from zeroproof.solve.spectral import listed


def linearized(
    H_N: Tensor, H_D: Tensor, Y_n: Tensor, Y_d: Tensor, weight: Tensor, *, sweeps: int = 5
) -> tuple[Tensor, Tensor]:
    r"""Minimise Σ w t² \|Y_d H_N a - Y_n H_D b\|² over \|b\| = 1; outputs share D.

    H_N is `(n, k)`, H_D `(n, l)`, all else `(n, m)`; a comes back as `(k, m)`, b as `(l,)`. t
    becomes 1/\|(N, D)\| of the fit before: on tuples of unit size this is the chordal distance, and
    the sweep with the lowest is returned.
    """
    dtype = torch.promote_types(torch.promote_types(H_N.dtype, H_D.dtype), Y_n.dtype)
    H_N, H_D, Y_n, Y_d = (X.to(dtype) for X in (H_N, H_D, Y_n, Y_d))
    root = weight.sqrt()
    t, best = torch.ones_like(root), (torch.inf, H_N[:0].T, H_D[0])
    for _ in range(sweeps):
        row = root * t
        of_N, of_D = ((row * Y).T[..., None] * H for Y, H in ((Y_d, H_N), (Y_n, H_D)))  # (m, n, k)
        # rows in falling size: Householder's reflections then keep the small (Cox, Higham 1998)
        order = of_D.abs().amax(-1).argsort(-1, descending=True)[..., None]
        of_N, of_D = (torch.take_along_dim(X, order, dim=-2) for X in (of_N, of_D))
        Q, R = torch.linalg.qr(of_N)
        b = smallest_vector(outside(Q, of_D).flatten(0, 1))
        a = pseudo_solve(*torch.linalg.svd(R), Q.mH @ (of_D @ b)[..., None], len(root))[..., 0].T
        N, D = H_N @ a, (H_D @ b)[:, None]
        length = torch.hypot(N.abs(), D.abs())
        error = float((root * (Y_d * N - Y_n * D).abs() / length).square().sum())
        if error < best[0]:
            best = error, a, b
        t = length.median() / length
        if not bool(torch.isfinite(t).all()):
            break
    return best[1], best[2]


def outside(Q: Tensor, M: Tensor) -> Tensor:
    """Return (I - Q Qᴴ) M for orthonormal columns Q; twice is enough."""
    for _ in range(2):
        M = M - Q @ (Q.mH @ M)
    return M


def smallest_vector(A: Tensor) -> Tensor:
    """Return the last right singular vector of A."""
    return torch.linalg.svd(torch.linalg.qr(A, mode="r")[1])[2][-1].conj()


def pseudo_solve(U: Tensor, S: Tensor, Vh: Tensor, rhs: Tensor, rows: int) -> Tensor:
    """Return V S⁺ Uᴴ rhs; singular values below rounding count as 0."""
    floor = S[..., :1] * rows * torch.finfo(S.dtype).eps
    inverse = torch.where(floor < S, 1 / torch.where(floor < S, S, 1), 0)
    V = Vh[..., : S.shape[-1], :].mH  # more columns than rows: the rest are not reached
    return V @ (inverse[..., None] * (U.mH @ rhs))


class Table(NamedTuple):
    """Finite rows in float64 or complex128."""

    x: Tensor  # (n,)
    y: Tensor  # (n,) or (n, m)
    weight: Tensor  # (n,)
    domain: tuple[float, float]

    def at(self, rows: Tensor) -> "Table":
        """Return some of the rows, on the same domain."""
        return Table(self.x[rows], self.y[rows], self.weight[rows], self.domain)


def checked_table(x: Tensor, y: Tensor, weight: Tensor | None = None) -> Table:
    """Return the rows whose target is finite, in double precision."""
    if x.ndim != 1 or y.ndim not in {1, 2} or len(y) != len(x):
        raise ShapeError(
            f"x must be (n,) and y (n,) or (n, m), got {tuple(x.shape)} and {tuple(y.shape)}"
        )
    x, (kept, weight) = checked_points(x), counted(y, weight)
    return Table(x[kept], double(y[kept].detach()), weight, domain_of(x[kept]))


def checked_points(x: Tensor) -> Tensor:
    """Return x `(n,)`, finite, in double precision."""
    if x.ndim != 1:
        raise ShapeError(f"x must be (n,), got {tuple(x.shape)}")
    wrong = ~torch.isfinite(x)
    if bool(wrong.any()):
        raise DataError(f"x must be finite, got {x[wrong][0].item()} in {listed(wrong)}")
    return double(x.detach())


def domain_of(x: Tensor) -> tuple[float, float]:
    """Return (low, high) of points that are not all alike."""
    low, high = float(x.real.min()), float(x.real.max())
    if low == high:
        raise DataError(f"x must not be constant, got {low:g} in every row that counts")
    return low, high


def counted(y: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
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
