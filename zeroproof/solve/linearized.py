"""The linearised fit of one variable, Sanathanan and Koerner (1963), and the rows it may use.

N is projected out of rows sorted by size: the one triangular factor of the spectral readout, which
blocks of rows need, costs up to ten times the accuracy at a double pole.
"""

import torch
from torch import Tensor


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
