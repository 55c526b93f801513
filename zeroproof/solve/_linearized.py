"""The linearised fit that starts every iteration here: Sanathanan and Koerner (1963)."""

import torch
from torch import Tensor

from zeroproof.solve._table import double


def projected(A: Tensor, M: Tensor) -> Tensor:
    """Return (I - Q Qᴴ) M for an orthonormal basis Q of the columns of A; twice is enough."""
    Q = torch.linalg.qr(A)[0]
    M = M - Q @ (Q.mH @ M)
    return M - Q @ (Q.mH @ M)


def linearized(
    H_N: Tensor, H_D: Tensor, y: Tensor, *, weight: Tensor, weight_power: float, sweeps: int = 5
) -> tuple[Tensor, Tensor]:
    r"""Minimise Σ w t² \|H_N a - y H_D b\|² (1 + \|y\|²)^(power - 1) over \|b\| = 1.

    t becomes 1/\|(N, D)\| of the fit before. Outputs share D: b is the last right singular vector
    of what H_N cannot explain of y H_D.

    Args:
        H_N: Features of N, `(n, k)`.
        H_D: Features of D, `(n, l)`.
        y: Targets divided by their scale, `(n, m)`, finite.
        weight: Row weights, `(n,)`.
        weight_power: 0 for the chordal distance, 1 for relative errors.
        sweeps: Reweightings; the one with the lowest weighted chordal error is returned.

    Returns:
        (a, b), `(k, m)` and `(l,)`.
    """
    dtype = torch.promote_types(torch.promote_types(H_N.dtype, H_D.dtype), y.dtype)
    H_N, H_D, y = H_N.to(dtype), H_D.to(dtype), y.to(dtype)
    size = 1 + y.abs().square()
    row = (weight[:, None] * size ** (weight_power - 1)).sqrt()
    t, best = torch.ones_like(row), (torch.inf, H_N[:0].T, H_D[0])
    for _ in range(sweeps):
        w = (row * t).T[..., None]  # (m, n, 1)
        A, M = w * H_N, w * y.T[..., None] * H_D
        # rows in falling size: Householder's reflections then keep the small (Cox, Higham 1998)
        order = M.abs().amax(-1).argsort(-1, descending=True)[..., None]
        A, M = (torch.take_along_dim(X, order, dim=-2) for X in (A, M))
        R = torch.linalg.qr(projected(A, M).flatten(0, 1), mode="r")[1]
        b = torch.linalg.svd(R)[2][-1].conj()
        a = solve_rows(A, M @ b).T
        N, D = H_N @ a, (H_D @ b)[:, None]
        length = torch.hypot(N.abs(), D.abs())
        error = float((row * (N - y * D).abs() / length).square().sum())
        if error < best[0]:
            best = error, a, b
        t = length.median() / length
        if not bool(torch.isfinite(t).all()):
            break
    return best[1], best[2]


def solve_rows(A: Tensor, target: Tensor) -> Tensor:
    """Least squares A a = target, `(m, n, k)` and `(m, n)`; directions A does not have stay 0."""
    Q, R = torch.linalg.qr(A)
    U, S, Vh = torch.linalg.svd(R)
    return pseudo_solve(U, S, Vh, (Q.mH @ target[..., None]), A.shape[-2])[..., 0]


def pseudo_solve(U: Tensor, S: Tensor, Vh: Tensor, rhs: Tensor, rows: int) -> Tensor:
    """Return V S⁺ Uᴴ rhs; singular values below rounding count as 0."""
    floor = S[..., :1] * rows * torch.finfo(S.dtype).eps
    inverse = torch.where(floor < S, 1 / torch.where(floor < S, S, 1), 0)
    return Vh.mH @ (inverse[..., None] * (U.mH @ rhs))


def as_columns(y: Tensor) -> Tensor:
    """Return y as `(n, m)` in double precision."""
    return double(y) if y.ndim == 2 else double(y)[:, None]
