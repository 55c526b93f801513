"""Polynomial bases: monomials, and Chebyshev polynomials scaled to an interval."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

import zeroproof.layers.rational_formulas as F  # noqa: N812 - as torch names its own
from zeroproof._checks import one_of, whole, widen
from zeroproof.errors import RangeError

__all__ = [
    "BASES",
    "chebyshev_basis",
    "checked_domain",
    "derivative",
    "identity_coefficients",
    "in_basis",
    "monomial_basis",
    "polynomial",
    "polynomial_reach",
    "reach_bounds",
    "span",
    "unit",
]

BASES = ("monomial", "chebyshev")
_UNIT = (-1.0, 1.0)


def monomial_basis(x: Tensor, degree: int) -> Tensor:
    """Evaluate 1, x, x², …, xᵈ.

    Args:
        x: Points, `(*batch,)`, real or complex; half precision is computed in float32.
        degree: d, at least 0.

    Returns:
        `(*batch, degree + 1)`.

    Raises:
        RangeError: `degree` is not a whole number of at least 0.

    Examples:
        >>> monomial_basis(torch.tensor([2.0]), 3)
        tensor([[1., 2., 4., 8.]])
    """
    whole(degree, "degree")
    x = widen(x)
    columns = [torch.ones_like(x)]
    for _ in range(degree):
        columns.append(columns[-1] * x)
    return torch.stack(columns, dim=-1)


def chebyshev_basis(x: Tensor, degree: int, *, domain: Sequence[float] = _UNIT) -> Tensor:
    """Evaluate the Chebyshev polynomials T_0 … T_d of t = (2x - low - high) / (high - low).

    They stay in [-1, 1] on the domain, which keeps fits of high degree well conditioned. Evaluated
    by T_{k+1} = 2t·T_k - T_{k-1}, which is stable there.

    Args:
        x: Points, `(*batch,)`, real or complex; half precision is computed in float32.
        degree: d, at least 0.
        domain: (low, high), in the units of x.

    Returns:
        `(*batch, degree + 1)`.

    Raises:
        RangeError: `degree` is not a whole number of at least 0, or `domain` no interval.

    Examples:
        >>> chebyshev_basis(torch.tensor([0.0, 5.0, 10.0]), 2, domain=(0, 10))
        tensor([[ 1., -1.,  1.],
                [ 1.,  0., -1.],
                [ 1.,  1.,  1.]])
    """
    whole(degree, "degree")
    t = unit(widen(x), checked_domain(domain))
    columns = [torch.ones_like(t), t]
    for _ in range(degree - 1):
        columns.append(F.next_row(columns[-1], columns[-2], t, False, True))
    return torch.stack(columns[: degree + 1], dim=-1)


def checked_domain(domain: Sequence[float]) -> tuple[float, float]:
    """Return (low, high) as floats if it is an interval.

    Raises:
        RangeError: It is not two finite numbers in rising order.
    """
    try:
        low, high = (float(end) for end in domain)
    except (TypeError, ValueError) as error:
        raise RangeError(f"domain must be (low, high), got {domain!r}") from error
    if not (low < high and math.isfinite(high - low)):
        raise RangeError(f"domain must be (low, high) with low < high, got {domain!r}")
    return low, high


def unit(x: Tensor, domain: tuple[float, float]) -> Tensor:
    """Return t, which is -1 and 1 at the ends of the domain."""
    low, high = domain
    return x if domain == _UNIT else (x - (low + high) / 2) / ((high - low) / 2)


def polynomial(
    x: Tensor, coefficients: Tensor, basis: str, domain: tuple[float, float] = _UNIT
) -> Tensor:
    """Evaluate Σ c_k B_k(x) by Horner's or Clenshaw's rule.

    Args:
        x: Points, broadcastable with one row of coefficients.
        coefficients: c, `(degree + 1, *)`, in ascending order.
        basis: `"monomial"` or `"chebyshev"`.
        domain: (low, high) of the Chebyshev polynomials.
    """
    t = x if one_of(basis, BASES, "basis") == "monomial" else unit(x, domain)
    total = F.value(t, coefficients.unbind(), basis == "chebyshev")
    return total if len(coefficients) > 1 else total + torch.zeros_like(t)


def polynomial_reach(
    x: Tensor, coefficients: Tensor, basis: str, domain: tuple[float, float] = _UNIT
) -> Tensor:
    r"""Tell where a polynomial cannot overflow, without evaluating it; false where x is not finite.

    The terms are at most \|c_k\| uᵏ with u = \|x\|, or u = 2\|t\| + 1 for Chebyshev polynomials;
    each may take an equal share of the largest float.
    """
    return span(x.detach(), basis, domain) <= reach_bounds(coefficients).amin(0)


def span(x: Tensor, basis: str, domain: tuple[float, float]) -> Tensor:
    r"""Return u = \|x\|, or u = 2\|t\| + 1, of which the size of a polynomial is bounded."""
    return x.abs() if basis == "monomial" else 2 * unit(x, domain).abs() + 1


def reach_bounds(coefficients: Tensor) -> Tensor:
    r"""Return `(degree + 1, *)`, whose smallest entry u may not exceed; \|c_k\| stands in row k."""
    c = coefficients.detach().abs()
    largest = torch.finfo(c.dtype).max
    constant = torch.where(c[:1] <= largest / 2, torch.full_like(c[:1], largest), -1)
    if len(c) == 1:
        return constant
    k = torch.arange(1, len(c), dtype=c.dtype, device=c.device)
    k = k.reshape(-1, *[1] * (c.ndim - 1))
    # one bit below the limit, for rounding; the roots go first, since their quotient overflows
    # only where every x is within reach
    share = torch.full_like(k, largest / (2 * len(c))).pow(1 / k)
    return torch.cat([constant, (share / c[1:].pow(1 / k)).clamp(max=largest)])


def derivative(coefficients: Tensor, basis: str, domain: tuple[float, float] = _UNIT) -> Tensor:
    """Return the coefficients of dp/dx in the same basis, `(max(degree, 1), *)`."""
    rows = torch.stack(F.slope(coefficients.unbind(), basis == "chebyshev"))
    low, high = domain
    return rows if basis == "monomial" or domain == _UNIT else rows * (2 / (high - low))


def in_basis(
    coefficients: Sequence[complex], basis: str, domain: tuple[float, float]
) -> list[complex]:
    """Return the coefficients of a polynomial given in monomials, in ascending order."""
    if basis == "monomial":
        return list(coefficients)
    low, high = domain
    # on Chebyshev points the system is as well conditioned as it can be
    # and on the host, since numbers come back, whatever the default device
    k = torch.arange(len(coefficients), dtype=torch.float64, device="cpu")
    t = torch.cos(math.pi * (k + 0.5) / len(coefficients))
    c = torch.as_tensor(coefficients, device="cpu")
    c = c.to(torch.complex128 if c.is_complex() else torch.float64)
    values = polynomial((low + high) / 2 + (high - low) / 2 * t, c, "monomial")
    rows = chebyshev_basis(t, len(coefficients) - 1).to(values.dtype)
    return torch.linalg.solve(rows, values).tolist()


def identity_coefficients(degree: int, basis: str, domain: tuple[float, float]) -> list[float]:
    """Return the coefficients of the polynomial x, in ascending order; `degree` is at least 1."""
    low, high = domain
    first = [0.0, 1.0] if basis == "monomial" else [(low + high) / 2, (high - low) / 2]
    return first + [0.0] * (degree - 1)
