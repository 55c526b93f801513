"""Arrays, frames and tensors at the estimator's border."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zeroproof._checks import one_of
from zeroproof.errors import DataError, ShapeError
from zeroproof.estimators.candidates import Rows

__all__ = ["columns_to_keep", "read_targets", "read_weight", "rows_of"]

_LARGEST = 1e100  # squares must stay finite
_LISTED = 5


def as_array(x: Any) -> Any:
    """Return a tensor as an array; frames and arrays pass."""
    return x.detach().cpu().resolve_conj().numpy() if isinstance(x, Tensor) else x


def read_targets(y: Any, rows: int, missing: str) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return targets, `(n,)` or `(n, m)`, float64 or complex128, and which rows to keep.

    Raises:
        DataError: y is not numbers, or an output is ⊥ in every row.
        ShapeError: y has no row for each row of X.
    """
    one_of(missing, ("bottom", "drop"), "missing")
    if y is None:
        raise DataError("ProjectiveRegressor requires y to be passed, but the target y is None")
    y = np.asarray(as_array(y))
    if y.dtype == object or y.dtype.kind not in "biufc":
        try:
            y = y.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise DataError(f"y must hold numbers, got the dtype {y.dtype}") from error
    y = y.astype(np.complex128 if y.dtype.kind == "c" else np.float64)
    if y.ndim not in {1, 2} or 0 in y.shape[1:]:
        raise ShapeError(f"y must be (n,) or (n, k), got {y.shape}")
    if len(y) != rows:
        raise ShapeError(f"X and y must have equally many rows, got {rows} and {len(y)}")
    finite = np.isfinite(y)
    if (np.abs(y[finite]) > _LARGEST).any():
        raise DataError(f"y must stay below {_LARGEST:g} in size: change its unit")
    kept = ~np.isnan(y).reshape(rows, -1).any(1) if missing == "drop" else np.ones(rows, bool)
    if not finite.reshape(rows, -1)[kept].any(0).all():
        raise DataError(f"every output must have a finite target, got ⊥ in all {rows} rows")
    return y, kept


def read_weight(sample_weight: Any, rows: int) -> NDArray[np.float64]:
    """Return weights, 1 by default.

    Raises:
        ShapeError: There is not one for each row.
        DataError: One is negative or not finite, or all are 0.
    """
    if sample_weight is None:
        return np.ones(rows)
    weight = np.asarray(as_array(sample_weight), dtype=np.float64)
    if weight.ndim == 0:
        weight = np.full(rows, float(weight))
    if weight.shape != (rows,):
        raise ShapeError(f"sample_weight must be ({rows},), got {weight.shape}")
    if not (np.isfinite(weight) & (weight >= 0)).all() or not weight.any():
        raise DataError("sample_weight must be finite, not negative and not zero throughout")
    return weight


def columns_to_keep(X: NDArray[np.float64], names: Sequence[str] = ()) -> list[int]:
    """Return the columns that tell something; warn of those that are constant or twice there.

    Args:
        X: `(n, d)`.
        names: Of the columns, for messages; their places if there are none.

    Raises:
        DataError: A row is not finite, or no column varies.
    """
    bad = np.flatnonzero(~np.isfinite(X).all(1))
    if len(bad):
        listed = ", ".join(map(str, bad[:_LISTED])) + (" …" if len(bad) > _LISTED else "")
        raise DataError(f"X must be finite, got inf or NaN in row{'s' * (len(bad) > 1)} {listed}")
    if (np.abs(X) > _LARGEST).any():
        raise DataError(f"X must stay below {_LARGEST:g} in size: change its unit")
    varies = [j for j in range(X.shape[1]) if (X[:, j] != X[0, j]).any()]
    if not varies:
        few = "n_samples=1" if len(X) == 1 else f"{X.shape[1]} constant columns"
        raise DataError(f"X must have a column that varies, got {few}")
    first = {X[:, j].tobytes(): j for j in reversed(varies)}
    kept = sorted(first.values())
    if len(kept) < X.shape[1]:
        left = [names[j] if names else j for j in range(X.shape[1]) if j not in kept]
        warnings.warn(f"columns {left} are constant or duplicates and tell nothing", stacklevel=4)
    return kept


def rows_of(X: NDArray[Any], y: NDArray[Any], weight: NDArray[np.float64], scale: float) -> Rows:
    """Return rows in float64, y over its scale, as columns."""
    targets = torch.from_numpy(np.array(y.reshape(len(y), -1)))
    infinite = torch.isinf(targets)
    scaled = torch.where(infinite, targets, targets / scale)
    return Rows(torch.from_numpy(np.array(X)), scaled, torch.from_numpy(weight))
