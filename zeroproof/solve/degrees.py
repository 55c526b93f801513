"""Degrees of N and D chosen on held-out rows."""

import torch
from torch import Tensor

from zeroproof._checks import whole
from zeroproof.layers.basis import chebyshev_basis
from zeroproof.projective.gauge import target_scale
from zeroproof.solve._linearized import linearized
from zeroproof.solve._table import Table, checked_table

__all__ = ["choose_degrees"]

FLOOR = 1e-31  # mean chordal², where rounding ends the search
ROUNDING = 3e-30  # errors below it are alike: rounding scatters them by decades
CLEAN = 1e-20  # below it errors scatter by factors
SLACK = 4.0  # then: within this factor of the best, fewer coefficients win
PATIENCE = 6  # degrees without a better one


def choose_degrees(
    x: Tensor,
    y: Tensor,
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
        x: Points, `(n,)`.
        y: Targets, `(n,)`; those that are not finite are left out.
        weight: Row weights, `(n,)`.
        largest: Highest degree to try.
        seed: Seed of the held-out rows.

    Raises:
        ShapeError: x is not `(n,)`, or y does not match it.
        DataError: x is not finite or constant, or no target is finite.

    Examples:
        >>> x = torch.linspace(-1, 1, 60, dtype=torch.float64)
        >>> choose_degrees(x, (1 + x) / (x * x + 2))
        (1, 2)
    """
    whole(largest, "largest")
    table = checked_table(x, y, weight)
    search = _Search(table, *split_rows(table, seed))
    largest = min(largest, (len(table.x.unique()) * 4 // 5 - 1) // 2)
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


def split_rows(table: Table, seed: int, share: int = 5) -> tuple[Tensor, Tensor]:
    """Return the rows to fit and one in `share` to hold out; the ends of the domain are fitted."""
    order = torch.randperm(len(table.x), generator=torch.Generator().manual_seed(seed))
    ends = torch.stack([table.x.real.argmin(), table.x.real.argmax()])
    order = order[~torch.isin(order, ends)]
    held = order[: max(1, len(table.x) // share)]
    return torch.cat([ends, order[len(held) :]]), held


class _Search:
    """Features of the highest degree so far, evaluated once."""

    def __init__(self, table: Table, train: Tensor, held: Tensor) -> None:
        self.table, self.train, self.held = table, train, held
        self.y = table.y / target_scale(table.y)
        self.H = chebyshev_basis(table.x, 1, domain=table.domain)

    def errors(self, p: int, q: int) -> Tensor:
        """Return the held-out chordal², weighted to mean, of the linearised fit of degrees p, q."""
        if max(p, q) >= self.H.shape[1]:
            self.H = chebyshev_basis(self.table.x, 2 * max(p, q), domain=self.table.domain)
        H_N, H_D, rows = self.H[:, : p + 1], self.H[:, : q + 1], self.train
        weight = self.table.weight[rows]
        y = self.y[:, None]
        a, b = linearized(H_N[rows], H_D[rows], y[rows], weight=weight, weight_power=0, sweeps=3)
        held, y = self.held, self.y[self.held]
        N, D = (H_N[held].to(a.dtype) @ a)[:, 0], H_D[held].to(b.dtype) @ b
        size = (N.abs().square() + D.abs().square()) * (1 + y.abs().square())
        chordal = (N - y * D).abs().square() / torch.where(size == 0, 1, size)
        w = self.table.weight[held]
        return chordal * w / w.mean()
