"""Degrees of N and D chosen on held-out rows."""

import torch
from torch import Tensor

from zeroproof._checks import whole
from zeroproof.errors import DataError
from zeroproof.layers.basis import chebyshev_basis
from zeroproof.projective.angle import chordal_distance
from zeroproof.solve.linearized import linearized
from zeroproof.solve.spectral import Block, Rows, unit_rows
from zeroproof.solve.table import checked_points, domain_of

__all__ = ["choose_degrees"]

FLOOR = 1e-31  # mean chordal², where rounding ends the search
ROUNDING = 3e-30  # errors below it are alike: rounding scatters them by decades
CLEAN = 1e-20  # below it errors scatter by factors
SLACK = 4.0  # then: within this factor of the best, fewer coefficients win
PATIENCE = 6  # degrees without a better one


@torch.no_grad()
def choose_degrees(
    x: Tensor,
    Y_n: Tensor,
    Y_d: Tensor,
    *,
    weight: Tensor | None = None,
    largest: int = 40,
    seed: int = 0,
) -> tuple[int, int]:
    """Return (p, q): equal degrees first, until the held-out error stops falling, then each alone.

    The error is the mean square chordal distance of linearised fits on a fifth of the rows, drawn
    at random. The search ends at 1e-31, not before: next to the poles of tan, stopping at 1e-17
    costs a factor of 500. The smallest degrees that are not worse than the best are taken: within
    one standard error of it on the same rows, or on clean data within a factor of four.

    Args:
        x: Points, `(n,)`, real.
        Y_n: Numerators of the targets, `(n,)`, or `(n, m)`: outputs share D and p. Lifted as for
            `spectral_readout`.
        Y_d: Denominators of the targets, the same shape or `(n, 1)`.
        weight: Row weights, `(n,)`.
        largest: Highest degree to try.
        seed: Seed of the held-out rows.

    Raises:
        ShapeError: x is not `(n,)`, or the targets or weights do not match it.
        DataError: Something is not finite, x is constant, or no row counts.
        RangeError: A negative weight, or `largest` is not a whole number of at least 0.

    Examples:
        >>> x = torch.linspace(-1, 1, 60, dtype=torch.float64)
        >>> choose_degrees(x, 1 + x, x * x + 2)
        (1, 2)
    """
    whole(largest, "largest")
    x = checked_points(x)
    rows = unit_rows(Block(x[:, None], None, Y_n, Y_d, weight))
    counted = rows.weight.sum(1) > 0
    if not bool(counted.any()):
        raise DataError("a row with weight above 0 and a target other than ⟨0, 0⟩ is needed")
    search = _Search(x[counted], Rows(*(part[counted] for part in rows)), seed)
    largest = min(largest, (len(search.x.unique()) * 4 // 5 - 1) // 2)
    tried: list[Tensor] = []
    for d in range(largest + 1):
        tried.append(search.errors(d, d))
        means = [float(errors.mean()) for errors in tried]
        stale = d - min(range(d + 1), key=means.__getitem__)
        if means[-1] <= FLOOR or stale >= PATIENCE:
            break
    best = min(tried, key=lambda errors: float(errors.mean()))
    p = q = next(d for d, errors in enumerate(tried) if _as_good(errors, best))
    while p and _as_good(search.errors(p - 1, q), best):
        p -= 1
    while q and _as_good(search.errors(p, q - 1), best):
        q -= 1
    return p, q


def _as_good(errors: Tensor, best: Tensor) -> bool:
    """Tell whether held-out errors are no worse than the best, row by row."""
    mean, least = float(errors.mean()), float(best.mean())
    if least <= CLEAN:
        return mean <= max(ROUNDING, SLACK * least)
    worse = errors - best
    return mean - least <= float(worse.std(correction=0)) / len(worse) ** 0.5


def split_rows(x: Tensor, seed: int, share: int = 5) -> tuple[Tensor, Tensor]:
    """Return the rows to fit and one in `share` to hold out; the ends of the domain are fitted."""
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    ends = torch.stack([x.real.argmin(), x.real.argmax()])
    order = order[~torch.isin(order, ends)]
    if not len(order):
        return ends, ends  # two rows: none can be spared
    held = order[: max(1, len(x) // share)]
    return torch.cat([ends, order[len(held) :]]), held


class _Search:
    """Features of the highest degree so far, evaluated once."""

    def __init__(self, x: Tensor, rows: Rows, seed: int) -> None:
        self.x, self.domain = x, domain_of(x)
        self.targets, self.split = rows[2:], split_rows(x, seed)
        self.H = chebyshev_basis(x, 1, domain=self.domain)

    def errors(self, p: int, q: int) -> Tensor:
        """Return the held-out chordal², weighted to mean, of the linearised fit of degrees p, q."""
        if max(p, q) >= self.H.shape[1]:
            self.H = chebyshev_basis(self.x, 2 * max(p, q), domain=self.domain)
        (H, *targets), (test, Y_n, Y_d, w) = (
            (self.H[at], *(part[at] for part in self.targets)) for at in self.split
        )
        a, b = linearized(H[:, : p + 1], H[:, : q + 1], *targets, sweeps=3)
        N, D = test[:, : p + 1].to(a.dtype) @ a, test[:, : q + 1].to(a.dtype) @ b[:, None]
        return (chordal_distance(N, D, Y_n, Y_d).square() * w / w.mean()).mean(1)
