"""Points where a function of a few inputs diverges: the centres of 1/r potentials."""

import warnings
from typing import Any

import torch
from torch import Tensor

from zeroproof._extras import require
from zeroproof.projective.angle import norm
from zeroproof.solve.noise import row_weight
from zeroproof.solve.recipe import lift
from zeroproof.solve.spectral import spectral_readout

__all__ = ["distances", "find_centres"]

_SHARE, _FEWEST = 0.01, 24  # of the rows, those with the largest targets
_REACH = 0.15  # of a column's range: rows of one centre lie within it
_MOST = 4
_LARGE = 5.0  # times the median, for something that may diverge
_RHO = 1e-24


def distances(X: Tensor, centres: Tensor) -> Tensor:
    """Return the columns of X and the distance of each row to each centre, `(n, d + c)`.

    Args:
        X: Rows, `(n, d)`.
        centres: Points, `(c, d)`.
    """
    gaps = X[:, None, :] - centres.to(X)
    return torch.cat([X, torch.linalg.vector_norm(gaps, dim=2)], 1)


def find_centres(X: Tensor, y: Tensor) -> Tensor:
    """Find isolated points at which y diverges as 1/r, to rounding on clean data.

    Rows with the largest targets are grouped; a group that is small in every column has its centre
    where a parabola through 1/y² vanishes. Gauss-Newton steps then move all centres so that a
    rational function of degree 2 in the distances fits best (variable projection).

    Args:
        X: Rows, `(n, d)`, d at least 2, finite.
        y: Targets over their scale, `(n,)`, real; rows that are not finite are left out.

    Returns:
        Points, `(c, d)`; none where large targets lie along a curve or in more than four places, or
        where one place has too few of the largest, as beside a much stronger one.
    """
    fine = torch.isfinite(y)
    X, y = X[fine], y[fine]
    groups = _groups(X, y) if len(X) else []
    if not groups:
        return X[:0]
    centres = torch.stack([_vertex(X[rows], y[rows]) for rows in groups])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of readouts on the way
        return _refined(centres, X, y)


def _groups(X: Tensor, y: Tensor) -> list[Tensor]:
    count = max(_FEWEST, int(_SHARE * len(y)))
    left = y.abs().argsort(descending=True)[:count]
    reach = _REACH * (X.amax(0) - X.amin(0))
    groups = []
    while len(left):
        near = ((X[left] - X[left[0]]).abs() <= reach).all(1)
        groups.append(left[near])
        left = left[~near]
        if len(groups) > _MOST:
            return []
    enough, large = 2 * X.shape[1] + 2, _LARGE * y.abs().median()
    fine = (len(group) >= enough and y[group[0]].abs() > large for group in groups)
    return groups if all(fine) else []


def _vertex(X: Tensor, y: Tensor) -> Tensor:
    """Return c of the best α|x - c|² + β for 1/y²."""
    columns = torch.cat([X.square().sum(1, keepdim=True), X, torch.ones_like(X[:, :1])], 1)
    weight = y.abs()[:, None]
    target = weight / y.square()[:, None]
    fit = torch.linalg.lstsq(weight * columns, target).solution[:, 0]
    return -fit[1:-1] / (2 * fit[0])


def _refined(centres: Tensor, X: Tensor, y: Tensor) -> Tensor:
    Y = lift("y", y)
    weight = row_weight(y, 1)
    shape = centres.shape

    def residual(flat: Any) -> Any:
        c = torch.from_numpy(flat).reshape(shape)
        r = distances(X, c)[:, X.shape[1] :]
        pairs = [r[:, i] * r[:, j] for i in range(len(c)) for j in range(i + 1)]
        H = torch.stack([torch.ones_like(y), *r.T, *pairs], 1)
        fit = spectral_readout(H, *Y, weight=weight, rho=_RHO, sweeps=3)
        N, D = H @ fit.a, H @ fit.b
        return ((Y.D * N - Y.N * D) / (norm(N, D) * norm(*Y)) * weight.sqrt()).numpy()

    solve = require("scipy.optimize", extra="sklearn").least_squares
    found = solve(residual, centres.flatten().numpy(), xtol=1e-15, ftol=1e-15, gtol=1e-15)
    return torch.from_numpy(found.x).reshape(shape)
