"""The combined loss by native kernels: from tensors to arrays and back."""

import math
from typing import Any

import numpy as np
from torch import Tensor

from zeroproof.native import _loss_kernels as kernels
from zeroproof.native._loss_parts import Options, Slopes
from zeroproof.native.door import array, empty, in_parts

__all__ = ["gradients", "sums"]

Tuples = tuple[Tensor, Tensor, Tensor, Tensor]
_FITS = {"none": -1, "detached": 0, "attached": 1, "chordal": 2, "oriented": 3}


def _options(recipe: Any) -> Options:
    return Options(
        fit=_FITS[recipe.normalizer],
        angle_score=recipe.score == "angle",
        angle_sign=recipe.sign_variant == "angle",
        relative=recipe.relative,
        margin=recipe.margin,
        sign=recipe.sign,
        coverage=recipe.coverage,
        gamma=float(recipe.gamma),
        tau=float(recipe.tau),
        scale=float(recipe.scale),
        temperature=float(recipe.temperature),
        # targets are compared with it in their own type
        tau_sing=float(np.float32(recipe.tau_sing)),
    )


class _Rows:
    """Tuples as arrays, cut at rows."""

    def __init__(self, tuples: Tuples, mask: Tensor | None, weight: Tensor | None) -> None:
        shape = tuples[0].shape
        self.width = shape[-1] if len(shape) > 1 else 1
        self.count = math.prod(shape)
        known = None if mask is None else mask.to(tuples[0].dtype)
        self._arrays = [None if x is None else array(x) for x in (*tuples, known, weight)]

    def cut(self, start: int, stop: int) -> list[Any]:
        return [None if x is None else self.part(x, start, stop) for x in self._arrays]

    def part(self, x: Any, start: int, stop: int) -> Any:
        """Return entries from `start` to `stop`, or the rows to which they belong."""
        step = 1 if x.size == self.count else self.width
        return x[start // step : stop // step]


def sums(
    tuples: Tuples, mask: Tensor | None, recipe: Any, weight: Tensor | None = None
) -> list[float]:
    """Return sum and weight of the losses of fit, margin, sign and coverage; 0 where one is off.

    Args:
        tuples: N, D, Y_n, Y_d of float32; N and Y_n `(*batch, k)`, the others so or `(*batch, 1)`.
        mask: True where the sign of the target is known, the shape of N or `(*batch, 1)`.
        recipe: What to compute, a `losses._chunks.Recipe`.
        weight: Of the losses of fit, margin and sign, float64, at least 0, shaped as `mask`.
    """
    rows, options = _Rows(tuples, mask, weight), _options(recipe)

    def run(start: int, stop: int) -> Any:
        totals = np.zeros(8)
        kernels.sums(*rows.cut(start, stop), rows.width, options, totals)
        return totals

    return np.sum(in_parts(run, rows.count, rows.width), axis=0).tolist()


def gradients(
    tuples: Tuples,
    mask: Tensor | None,
    recipe: Any,
    slopes: tuple[float, ...],
    masked: bool,
    weight: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return dL/dN and dL/dD.

    Args:
        tuples: As in `sums`.
        mask: As in `sums`.
        recipe: As in `sums`.
        slopes: dL / d(loss of one entry) of fit, margin, sign and coverage, and the policy's bound.
        masked: Whether the policy masks gradients at ⊥.
        weight: As in `sums`.
    """
    rows, options = _Rows(tuples, mask, weight), _options(recipe)
    found = [empty(x.shape, x.dtype) for x in tuples[:2]]
    g_N, g_D = (x.numpy().reshape(-1) for x in found)
    fit, margin, sign, coverage, bound = map(float, slopes)
    asked = Slopes(fit, margin, sign, coverage, bound, masked)

    def run(start: int, stop: int) -> None:
        out = (rows.part(x, start, stop) for x in (g_N, g_D))
        kernels.gradients(*rows.cut(start, stop), rows.width, options, asked, *out)

    in_parts(run, rows.count, rows.width)
    return found[0], found[1]
