"""Zeros of a polynomial or of a barycentric sum, as eigenvalues."""

import torch
from torch import Tensor

from zeroproof._checks import one_of
from zeroproof.layers.basis import BASES, checked_domain

__all__ = ["barycentric_zeros", "polynomial_zeros"]


def polynomial_zeros(
    coefficients: Tensor, basis: str = "chebyshev", domain: tuple[float, float] = (-1.0, 1.0)
) -> Tensor:
    """Return all zeros of Σ c_k B_k(x), repeated by multiplicity, in the units of x.

    They are the eigenvalues of the colleague matrix of Good (1961) for Chebyshev polynomials and of
    the companion matrix for monomials. Leading coefficients below rounding are dropped: their zeros
    lie at infinity for every purpose.

    Args:
        coefficients: c, `(degree + 1,)`, ascending, real or complex.
        basis: `"chebyshev"` or `"monomial"`.
        domain: (low, high) of the Chebyshev polynomials.

    Returns:
        complex128, `(degree,)` at most; conjugate pairs are exact for real coefficients.

    Raises:
        RangeError: An unknown basis, or `domain` is no interval.

    Examples:
        >>> polynomial_zeros(torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)).abs()
        tensor([0., 0.], dtype=torch.float64)
    """
    one_of(basis, BASES, "basis")
    low, high = checked_domain(domain)
    c = coefficients.detach()
    c = c.to(torch.complex128 if c.is_complex() else torch.float64)
    size = c.abs()
    kept = (size > size.max() * torch.finfo(torch.float64).eps / 4).nonzero()
    degree = int(kept[-1]) if len(kept) else 0
    c = c[: degree + 1]
    if degree == 0:
        return torch.zeros(0, dtype=torch.complex128)
    matrix = _companion(c) if basis == "monomial" else _colleague(c)
    t = torch.linalg.eigvals(matrix)
    return t if basis == "monomial" else (low + high) / 2 + (high - low) / 2 * t


def _companion(c: Tensor) -> Tensor:
    matrix = torch.diag(torch.ones(len(c) - 2, dtype=c.dtype), 1)
    matrix[-1] = -c[:-1] / c[-1]
    return matrix


def _colleague(c: Tensor) -> Tensor:
    d = len(c) - 1
    half = torch.full((d - 1,), 0.5, dtype=c.dtype)
    matrix = torch.diag(half, 1) + torch.diag(half, -1)
    if d > 1:
        matrix[0, 1] = 1
        matrix[-1] = matrix[-1] - c[:-1] / (2 * c[-1])
    else:
        matrix[0, 0] = -c[0] / c[1]
    return matrix


def barycentric_zeros(points: Tensor, weights: Tensor) -> Tensor:
    """Return the zeros of Σ w_j / (x - z_j), at most m - 1 of them.

    With v_j = 1 / (λ - z_j) a zero λ means w·v = 0 and (z_j - λ) v_j alike for all j: an eigenvalue
    of the pencil between the two complements, of ordinary size. It is shifted to a point that is no
    zero and inverted, since zeros at infinity are allowed; those beyond 10⁶ widths count as such.

    Args:
        points: z, `(m,)`, real or complex.
        weights: w, `(m,)`; for the zeros of f pass w_j f_j.

    Returns:
        complex128, repeated by multiplicity.

    Examples:
        >>> z, w = torch.tensor([0.0, 2.0], dtype=torch.float64), torch.ones(2, dtype=torch.float64)
        >>> barycentric_zeros(z, w).real.round(decimals=12)
        tensor([1.], dtype=torch.float64)
    """
    dtype = torch.promote_types(points.dtype, weights.dtype)
    z, w = points.detach().to(dtype), weights.detach().to(dtype)
    if len(z) < 2:
        return torch.zeros(0, dtype=torch.complex128)
    right = torch.linalg.qr(w.conj()[:, None], mode="complete")[0][:, 1:]
    left = torch.linalg.qr(torch.ones_like(w)[:, None], mode="complete")[0][:, 1:].mH
    shift = _far_from_zeros(z, w)
    shifted = left @ ((z - shift)[:, None] * right)
    nu = torch.linalg.eigvals(torch.linalg.solve(shifted, left @ right))
    far = nu.abs() * (z - shift).abs().max() < 1e-6
    return shift + 1 / nu[~far]


def _far_from_zeros(z: Tensor, w: Tensor) -> Tensor:
    low, high = z.real.min(), z.real.max()
    guess = low + (high - low) * torch.linspace(-0.1, 1.1, 25, dtype=z.real.dtype)
    terms = w / (guess[:, None].to(z.dtype) - z + 1e-9 * (high - low))
    clear = terms.sum(1).abs() / terms.abs().sum(1)
    return guess[clear.argmax()].to(z.dtype)
