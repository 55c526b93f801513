"""A closed-form fit ready to answer: model, thresholds, columns and orientation."""

import warnings
from typing import NamedTuple

import torch
from torch import Tensor

from zeroproof.estimators.closed_form import ClosedForm
from zeroproof.estimators.model import tuples
from zeroproof.estimators.regions import disagreement
from zeroproof.inference import InferenceConfig, StrictResult
from zeroproof.inference.strict import decided
from zeroproof.projective.pair import Pair

__all__ = ["Fitted", "oriented_tuples", "strict", "warn_outside"]


class Fitted(NamedTuple):
    """All that is needed to answer rows.

    Attributes:
        fit: The model and what it was chosen from.
        thresholds: With the angle score and the scale of y.
        columns: Which columns of X are used, by place.
        names: Their names.
        domain: Their smallest and largest values, `(2, columns)`, float64.
        affine: Do +∞ and -∞ differ? Then D <= 0 is ⊥.
        sign: ±1 for each D, so that D > 0 on the data if the topology is affine.
        flat: Were the targets `(n,)`?
        seen: Names of all columns of X, or their number if they had none.
    """

    fit: ClosedForm
    thresholds: InferenceConfig
    columns: tuple[int, ...]
    names: tuple[str, ...]
    domain: Tensor
    affine: bool
    sign: Tensor
    flat: bool
    seen: tuple[str, ...] | int


def oriented_tuples(fitted: Fitted, X: Tensor) -> Pair:
    """Return ⟨N, D⟩ in the units of y; rows of X that are not finite give tuples that are not."""
    finite = torch.isfinite(X).all(1, keepdim=True)
    N, D = tuples(fitted.fit.model, torch.where(finite, X, torch.nan))
    return Pair(torch.where(finite, N, torch.nan) * fitted.sign, D * fitted.sign)


def strict(fitted: Fitted, X: Tensor) -> StrictResult:
    """Return answers with masks, `(n, k)`, for rows of the columns that are used."""
    N, D = oriented_tuples(fitted, X)
    beyond = (D <= 0).expand_as(N) if fitted.affine else None
    return decided(N, D, fitted.thresholds, bottom=beyond)


def warn_outside(fitted: Fitted, X: Tensor, stacklevel: int = 2) -> None:
    """Warn of rows outside the data on which admissible fits disagree."""
    low, high = fitted.domain
    beyond = ((low > X) | (high < X)).any(1) & torch.isfinite(X).all(1)
    apart = disagreement(fitted.fit, X[beyond], fitted.thresholds.scale)
    count = int((apart > 0).sum())
    if count:
        warnings.warn(
            f"{count} rows lie outside the data, where fits that serve the data equally well "
            f"differ by up to {float(apart.max()):.2g} of the answer",
            stacklevel=stacklevel,
        )
