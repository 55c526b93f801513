"""Degrees of N and D chosen on held-out rows: every pair from one factorisation."""

from typing import NamedTuple

import torch
from torch import Tensor

from zeroproof._checks import whole
from zeroproof.errors import DataError, ShapeError
from zeroproof.layers.basis import chebyshev_basis
from zeroproof.projective.angle import chordal_distance
from zeroproof.solve._algebra import smallest_singular_vector
from zeroproof.solve._factors import Problem, Task, read
from zeroproof.solve._rows import Block, RowIndex, Rows, checked_spec, slices

__all__ = ["DegreeTable", "readout_degrees"]

_FLOOR = 1e-31  # mean chordal² that rounding cannot improve on
_SLACK = 4.0


class DegreeTable(NamedTuple):
    """Degrees chosen on held-out rows.

    Attributes:
        degrees: (p, q), of N and D: the fewest coefficients whose error is within a factor of 4
            of the best, or below 1e-31.
        error: Their weighted mean squared chordal distance on the held-out rows.
        errors: That of all pairs, `(largest + 1, largest + 1)`; inf where the rows are too few.
        domain: (low, high) of the Chebyshev basis, in the units of x.
    """

    degrees: tuple[int, int]
    error: float
    errors: Tensor
    domain: tuple[float, float]


@torch.no_grad()
def readout_degrees(
    x: Tensor,
    Y_n: Tensor,
    Y_d: Tensor,
    train: RowIndex,
    held: RowIndex,
    *,
    weight: Tensor | None = None,
    largest: int = 20,
) -> DegreeTable:
    """Choose the degrees of N and D in a Chebyshev basis by the error on held-out rows.

    All pairs are fitted from the columns of one triangular factor, first with all rows alike, then
    with the weights 1/‖(N, D)‖ of the best pair. Fit them with `spectral_readout(T_p(x), Y_n, Y_d,
    H_D=T_q(x), rho=1e-32)`, or with the ρ of `choose_rho` if the targets are noisy.

    Args:
        x: Points, `(n,)`, real.
        Y_n: Numerators of the targets, `(n,)` or `(n, m)`: m outputs share D and p.
        Y_d: Denominators of the targets, the same shape or `(n, 1)`.
        train: Rows to fit: a slice, a boolean mask or indices.
        held: Rows to choose on.
        weight: Row weights, `(n,)`.
        largest: Highest degree of either.

    Raises:
        ShapeError: x is not `(n,)`, or the targets do not match it.
        DataError: x is constant, something is not finite, or there is no held-out row.
        RangeError: A negative weight, or `largest` is not a whole number of at least 0.

    Examples:
        >>> x = torch.linspace(-1, 1, 200, dtype=torch.float64)
        >>> split = torch.arange(200) % 5 > 0
        >>> readout_degrees(x, torch.ones_like(x), x - 0.137, split, ~split, largest=5).degrees
        (0, 1)
    """
    whole(largest, "largest")
    domain = _domain(x)
    T = chebyshev_basis(x.detach().double(), largest, domain=domain)
    block = Block(T, None, Y_n, Y_d, weight)
    checked_spec(block)
    test = [rows for _, rows in slices([block.cut(held)], torch.float64, check=True)]
    if sum(float(rows.weight.sum()) for rows in test) == 0:
        raise DataError("held must pick a row with weight above 0, got none")
    task, problems = Task(torch.float64, distributed=False, shared=True), None
    errors, chosen = torch.empty(0), (0, 0)
    for _ in range(2):
        spec, (totals,) = read([block.cut(train)], problems, task)
        fits = _Fits(torch.stack(totals.residual), largest + 1, rows=totals.scores.rows)
        errors = _errors(test, fits)
        chosen = _preferred(errors)
        problems = [Problem(list(range(spec.outputs)), fits.pair(*chosen))]
    return DegreeTable(chosen, errors[chosen].item(), errors, domain)


def _domain(x: Tensor) -> tuple[float, float]:
    if x.ndim != 1 or x.is_complex():
        raise ShapeError(f"x must be real and (rows,), got {tuple(x.shape)}")
    if not torch.isfinite(x).all() or not len(x) or x.amin() == x.amax():
        raise DataError("x must be finite and not constant")
    return x.amin().item(), x.amax().item()


class _Fits:
    """Linearised fits of all degrees, from the factor of the highest."""

    def __init__(self, R: Tensor, width: int, *, rows: int) -> None:
        self.R, self.width, self.rows = R, width, rows

    def determined(self, p: int, q: int) -> bool:
        m = len(self.R)
        return m * (p + 1) + q + 1 <= m * self.rows

    def pair(self, p: int, q: int) -> tuple[Tensor, Tensor]:
        """Return (a, b), `(width, m)` and `(width, 1)`, padded with zeros."""
        m, below = len(self.R), self.width - 1
        of_N, of_D = self.R[:, :, : p + 1], self.R[:, :, self.width : self.width + q + 1]
        A = torch.cat([torch.block_diag(*of_N), of_D.flatten(0, 1)], 1)
        z = smallest_singular_vector(A)
        a = z[: m * (p + 1)].reshape(m, p + 1).T
        b = z[m * (p + 1) :, None]
        pad = torch.nn.functional.pad
        return pad(a, (0, 0, 0, below - p)), pad(b, (0, 0, 0, below - q))


def _errors(test: list[Rows], fits: _Fits) -> Tensor:
    errors = torch.full((fits.width, fits.width), torch.inf, dtype=torch.float64)
    weights = sum(float(rows.weight.sum()) for rows in test)
    for p in range(fits.width):
        fitted = [q for q in range(fits.width) if fits.determined(p, q)]
        if not fitted:
            continue
        a, b = (torch.stack(z) for z in zip(*(fits.pair(p, q) for q in fitted), strict=True))
        total = torch.zeros(len(fitted), dtype=torch.float64)
        for rows in test:
            N, D = rows.H_N @ a, rows.H_N @ b
            Y_n, Y_d = rows.Y_n.expand_as(N), rows.Y_d.expand_as(N)
            squares = chordal_distance(N, D, Y_n, Y_d).square()
            total += (rows.weight * squares).sum((1, 2)).cpu()
        errors[p, fitted] = total / weights
    return errors


def _preferred(errors: Tensor) -> tuple[int, int]:
    enough = max(_SLACK * errors.min().item(), _FLOOR)
    pairs = [(p, q) for p, q in torch.nonzero(errors <= enough).tolist()]
    if not pairs:
        raise DataError("train must pick at least two rows, got fewer")
    return min(pairs, key=lambda pair: (sum(pair), errors[pair].item()))
