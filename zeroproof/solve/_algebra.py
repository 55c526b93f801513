"""The small algebra of the spectral readout: from triangular factors to the best (a, b)."""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from zeroproof.solve._factors import Factors

_STEPS = 6  # of inverse iteration for each ρ of a path, warm from the one before


def best_pair(factors: Factors, rho: float) -> tuple[Tensor, Tensor]:
    """Return (a, b) minimising (‖A z‖² + ρ‖z‖²) / ‖M z‖², in a fixed gauge.

    With T the triangular factor of [A; √ρ I] the answer is T⁻¹v, v the leading right singular
    vector of M T⁻¹. The inverse of M is never formed: M is numerically singular for any rich set
    of features.
    """
    T = _augmented(factors, resolved(factors, rho))
    M = _normaliser(factors)
    at = T.shape[1] - M.shape[1]  # M is 0 before: so is v, and the rest is back substitution
    S = torch.linalg.solve_triangular(T[at:, at:], M, upper=True, left=False)
    v = torch.linalg.svd(S).Vh[0].conj()
    v = torch.cat([v.new_zeros(at), v])[:, None]
    return _split(factors, torch.linalg.solve_triangular(T, v, upper=True)[:, 0])


def path_pairs(factors: Factors, rhos: Sequence[float]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (a, b) for each ρ, given largest first, after one singular value decomposition.

    With A = U diag(g) Vᴴ and f² = 1/(g² + ρ), u ← f² (MV)ᴴ(MV) u is inverse iteration on the same
    quotient for every ρ; each starts from the answer before, the first from `best_pair`.
    """
    a, b = best_pair(factors, rhos[0])
    g, Vh = torch.linalg.svd(joint(factors.R, len(factors.R_N)))[1:]
    M = _normaliser(factors)
    M = M @ Vh.mH[-M.shape[1] :]
    u = Vh @ torch.cat([a.T.flatten(), b.flatten()])
    for rho in rhos:
        f2 = 1 / (g.square() + resolved(factors, rho))
        for _ in range(_STEPS):
            u = f2 * (M.mH @ (M @ u))
            u = u / torch.linalg.vector_norm(M @ u)
        yield _split(factors, Vh.mH @ u)


def _normaliser(factors: Factors) -> Tensor:
    """Return what acts on the last entries of z, so that z = 0 is no answer.

    One output: the mean square of (N, D), which treats y and 1/y alike. Several that share D: the
    mean square of D alone, or else the best answer to rows that do not fit is to serve one output
    with D = 0 and leave ⟨0, 0⟩ to the others.
    """
    if len(factors.R) > 1:
        return factors.R_D
    return torch.block_diag(factors.R_N, factors.R_D)


def joint(R: Tensor, k_N: int) -> Tensor:
    """Return the factor of the rows of all outputs: their a_j have nothing in common but b."""
    return _arrow(R[:, :k_N], torch.linalg.qr(R[:, k_N:, k_N:].flatten(0, 1), mode="r").R)


def _arrow(tops: Tensor, corner: Tensor) -> Tensor:
    m, k_N = tops.shape[:2]
    above = torch.cat([torch.block_diag(*tops[:, :, :k_N]), tops[:, :, k_N:].flatten(0, 1)], 1)
    return torch.cat([above, torch.cat([corner.new_zeros(len(corner), m * k_N), corner], 1)])


def resolved(factors: Factors, rho: float) -> float:
    """Return ρ, or the smallest that the precision of the factors resolves if that is larger."""
    R = factors.R
    return max(rho, (torch.finfo(R.dtype).eps * R.abs().max().item()) ** 2)


def condition(factors: Factors) -> float:
    """Return the larger condition number of H_N and H_D."""
    found = [torch.linalg.svdvals(R) for R in (factors.R_N, factors.R_D)]
    return max((g[0] / g[-1]).item() if g[-1] > 0 else math.inf for g in found)


def _augmented(factors: Factors, rho: float) -> Tensor:
    R, k_N = factors.R, len(factors.R_N)
    m, k = R.shape[0], R.shape[-1]
    root = math.sqrt(rho) * torch.eye(k, dtype=R.dtype, device=R.device)
    # √ρ b appears once, not once for each output
    above = torch.linalg.qr(torch.cat([R, root[:k_N].expand(m, -1, -1)], 1), mode="r").R
    corner = torch.cat([*above[:, k_N:, k_N:], root[k_N:, k_N:]])
    T = _arrow(above[:, :k_N], torch.linalg.qr(corner, mode="r").R)
    _raise_pivots(T, math.sqrt(rho))
    return T


def _raise_pivots(T: Tensor, floor: float) -> None:
    """Replace pivots that rounding made far smaller than they can be, in place."""
    diagonal = T.diagonal()
    diagonal.copy_(torch.where(diagonal.abs() < floor / 2, floor, diagonal))


def _split(factors: Factors, z: Tensor) -> tuple[Tensor, Tensor]:
    """Cut z into a, `(k_N, m)`, and b, `(k_D, 1)`: mean square of (N, D) 1, leading b positive."""
    m, k_N = len(factors.R), len(factors.R_N)
    squares = torch.linalg.vector_norm(factors.R_N @ z[: m * k_N].reshape(m, k_N).T).square() / m
    squares = squares + torch.linalg.vector_norm(factors.R_D @ z[m * k_N :]).square()
    z = z / squares.sqrt()
    b = z[m * k_N :]
    leading = b[b.abs().argmax()]
    z = z * (leading.conj() / leading.abs()) if leading != 0 else z
    return z[: m * k_N].reshape(m, k_N).T, z[m * k_N :, None]
