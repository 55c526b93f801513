"""The barycentric form, refitted on support points of our choice."""

import torch
from torch import Tensor

from zeroproof._checks import whole
from zeroproof.errors import RangeError
from zeroproof.projective.gauge import target_scale
from zeroproof.solve._table import Table, checked_table
from zeroproof.solve.forms import BarycentricForm, predict

__all__ = ["fit_barycentric"]


def fit_barycentric(
    x: Tensor,
    y: Tensor,
    poles: Tensor,
    size: int,
    *,
    weight: Tensor | None = None,
    weight_power: float = 1.0,
    sweeps: int = 3,
) -> BarycentricForm:
    r"""Fit N / D in barycentric form through samples beside the poles.

    The support is the sample nearest each real pole in the range of x, then Leja points: each
    sample that is farthest, in the product of distances, from those taken. The weights are the last
    right singular vector of the Loewner matrix (f_i - f_j)/(x_i - z_j), its rows scaled so that
    their squares are relative errors (power 1) or chordal ones (power 0). AAA (Nakatsukasa, Sète,
    Trefethen 2018) chooses the support greedily instead.

    Args:
        x: Points, `(n,)`, distinct or not.
        y: Targets, `(n,)`, real or complex; those that are not finite are left out.
        poles: Approximate poles, complex, `(q,)`.
        size: Number of support points; both degrees are one less.
        weight: Row weights, `(n,)`.
        weight_power: 0 for the chordal distance, 1 for relative errors.
        sweeps: Reweightings of the rows.

    Raises:
        ShapeError: x is not `(n,)`, or y does not match it.
        DataError: x is not finite or constant, or no target is finite.
        RangeError: Fewer than two distinct rows for each support point.

    Examples:
        >>> x = torch.linspace(-1, 1, 51, dtype=torch.float64)
        >>> form = fit_barycentric(x, 1 / (x - 0.123), torch.tensor([0.123 + 0j]), 2)
        >>> from zeroproof.solve.poles import poles
        >>> round(float(poles(form).real), 12)
        0.123
    """
    whole(size, "size", low=1)
    whole(sweeps, "sweeps", low=1)
    table = checked_table(x, y, weight)
    distinct = len(table.x.unique())
    if 2 * size > distinct + 1:
        raise RangeError(
            f"size must not exceed half the distinct finite rows, {distinct}, got {size}"
        )
    chosen = _support(table, poles, size)
    return refit_weights(
        table.x[chosen], table.y[chosen], table, weight_power=weight_power, sweeps=sweeps
    )


def refit_weights(
    z: Tensor, f: Tensor, table: Table, *, weight_power: float = 1.0, sweeps: int = 3
) -> BarycentricForm:
    """Find the weights of given support points and values."""
    others = ~torch.isin(table.x, z)
    x, y, w = table.x[others], table.y[others], table.weight[others]
    C = 1 / (x[:, None] - z)
    level = (y / target_scale(table.y)).abs().clamp(min=1)
    row = w.sqrt() * level ** (weight_power - 2)
    t = torch.ones_like(row)
    best = (torch.inf, BarycentricForm(z, f, torch.ones_like(f)))
    for _ in range(sweeps):
        form = BarycentricForm(z, f, _smallest((row * t)[:, None] * (y[:, None] - f) * C))
        error = (row * (predict(form, x) - y).abs()).square().sum()
        error = float(torch.where(torch.isfinite(error), error, torch.finfo(error.dtype).max))
        best = min(best, (error, form), key=lambda pair: pair[0])
        D = (C * form.weights).sum(1).abs()
        t = torch.where(D == 0, 1, 1 / torch.where(D == 0, 1, D))
        t = t / t.median()
    return best[1]


def _support(table: Table, poles: Tensor, size: int) -> Tensor:
    """Return the rows of the support points."""
    low, high = table.domain
    x, scale = table.x, 4 / (high - low)  # the capacity of an interval is a quarter of its length
    real = poles[(poles.imag.abs() < 1e-6 * (high - low))].real
    real = real[(real >= low) & (real <= high)]
    taken = [int((x - pole).abs().argmin()) for pole in real]
    taken = list(dict.fromkeys(taken))[:size]
    if not taken:
        taken = [int(x.real.argmin())]
    gap = (scale * (x[:, None] - x[taken])).abs()
    log = gap.log().sum(1)
    while len(taken) < size:
        taken.append(int(log.argmax()))
        log = log + (scale * (x - x[taken[-1]])).abs().log()
    return torch.tensor(taken)


def _smallest(A: Tensor) -> Tensor:
    """Return the last right singular vector of A, with columns of A of length 1 on the way."""
    length = torch.linalg.vector_norm(A, dim=0)
    length = torch.where(length == 0, 1, length)
    order = A.abs().amax(1).argsort(descending=True)
    R = torch.linalg.qr((A / length)[order], mode="r")[1]
    w = torch.linalg.svd(R, full_matrices=True)[2][-1].conj() / length
    return w / torch.linalg.vector_norm(w)
