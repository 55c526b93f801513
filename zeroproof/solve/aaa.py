"""From scipy's AAA and back."""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from zeroproof._extras import require
from zeroproof.errors import ShapeError
from zeroproof.solve.forms import BarycentricForm

__all__ = ["Barycentric", "from_aaa", "to_aaa"]


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
    return BarycentricForm(_double(z), _double(f), _double(w))


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


def _double(x: Tensor) -> Tensor:
    return x.to(torch.complex128 if x.is_complex() else torch.float64)
