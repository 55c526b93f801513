"""The barycentric form, fitted on support points of our choice; from scipy's AAA and back."""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from zeroproof._extras import require
from zeroproof.errors import ShapeError
from zeroproof.projective.gauge import target_scale
from zeroproof.solve.forms import BarycentricForm, predict
from zeroproof.solve.linearized import smallest_vector
from zeroproof.solve.table import Table, double

__all__ = ["Barycentric", "from_aaa", "to_aaa"]

SWEEPS = 3  # reweightings of the rows


def fit_barycentric(
    table: Table, poles: Tensor, size: int, *, weight_power: float = 1.0
) -> BarycentricForm:
    r"""Fit N / D in barycentric form through `size` samples beside the poles, complex `(q,)`.

    The support is the sample nearest each real pole in the range of x, then Leja points: each
    sample that is farthest, in the product of distances, from those taken. AAA (Nakatsukasa, Sète,
    Trefethen 2018) chooses the support greedily instead. At least 2 size - 1 rows are distinct.
    """
    at = _support(table, poles, size)
    return refit_weights(table.x[at], table.y[at], table, weight_power=weight_power)


def refit_weights(
    z: Tensor, f: Tensor, table: Table, *, weight_power: float = 1.0
) -> BarycentricForm:
    """Find the weights of given support points z and values f.

    They are the last right singular vector of the Loewner matrix (f_i - f_j)/(x_i - z_j), its rows
    scaled so that their squares are relative errors (power 1) or chordal ones (power 0).
    """
    others = ~torch.isin(table.x, z)
    x, y, w = table.x[others], table.y[others], table.weight[others]
    C = 1 / (x[:, None] - z)
    level = (y / target_scale(table.y)).abs().clamp(min=1)
    row = w.sqrt() * level ** (weight_power - 2)
    t = torch.ones_like(row)
    best = (torch.inf, BarycentricForm(z, f, torch.ones_like(f)))
    for _ in range(SWEEPS):
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
    beside = dict.fromkeys(int((x - pole).abs().argmin()) for pole in real)
    taken = list(beside)[:size] or [int(x.real.argmin())]
    log = (scale * (x[:, None] - x[taken])).abs().log().sum(1)
    while len(taken) < size:
        taken.append(int(log.argmax()))
        log = log + (scale * (x - x[taken[-1]])).abs().log()
    return torch.tensor(taken)


def _smallest(A: Tensor) -> Tensor:
    """Return the last right singular vector of A, with columns of A of length 1 on the way."""
    length = torch.linalg.vector_norm(A, dim=0)
    length = torch.where(length == 0, 1, length)
    order = A.abs().amax(1).argsort(descending=True)
    w = smallest_vector((A / length)[order]) / length
    return w / torch.linalg.vector_norm(w)


class Barycentric(Protocol):
    """What `scipy.interpolate.AAA` and its like offer, as NumPy arrays of equal length."""

    weights: Any

    @property
    def support_points(self) -> Any:
        """Where the interpolant takes the values given."""

    @property
    def support_values(self) -> Any:
        """Those values."""


def from_aaa(aaa: Barycentric) -> BarycentricForm:
    """Take over the support points, values and weights of an AAA approximation.

    Raises:
        ShapeError: They are not three vectors of one length.

    Examples:
        >>> import numpy as np
        >>> from scipy.interpolate import AAA
        >>> x = np.linspace(-1, 1, 50)
        >>> form = from_aaa(AAA(x, 1 / (x - 2)))
        >>> len(form.points)
        2
    """
    z, f, w = (
        torch.as_tensor(part).clone()
        for part in (aaa.support_points, aaa.support_values, aaa.weights)
    )
    if z.ndim != 1 or z.shape != f.shape or z.shape != w.shape:
        shapes = ", ".join(str(tuple(part.shape)) for part in (z, f, w))
        raise ShapeError(f"points, values and weights must be (m,) each, got {shapes}")
    return BarycentricForm(double(z), double(f), double(w))


def to_aaa(form: BarycentricForm) -> Callable[[Any], Any]:
    """Return the form as a `scipy.interpolate.AAA`, which evaluates and has `poles()` and the rest.

    scipy has no public way to build one, so this one is made on the support points alone and given
    the weights. Its `clean_up()` would need the data and cannot be used.

    Raises:
        MissingExtraError: scipy 1.15 or later is not installed.

    Examples:
        >>> import numpy as np
        >>> z = torch.tensor([0.0, 2.0], dtype=torch.float64)
        >>> bridge = to_aaa(BarycentricForm(z, z + 1, torch.ones(2, dtype=torch.float64)))
        >>> bridge.poles().real
        array([1.])
    """
    kind = require("scipy.interpolate", extra="sklearn").AAA
    z, f, w = (part.detach().cpu().numpy() for part in form)
    bridge = kind.__new__(kind)
    state = {"_support_points": z, "_support_values": f, "weights": w, "_shape": (), "_axis": 0}
    for name, value in (state | dict.fromkeys(("_poles", "_residues", "_roots"))).items():
        setattr(bridge, name, value)
    return bridge
