"""Fit rows that arrive in blocks: what to fit from a sample, the coefficients from all rows."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zeroproof.errors import DataError, ShapeError
from zeroproof.estimators.closed_form import crosses
from zeroproof.estimators.fitted import Fitted
from zeroproof.estimators.model import Model
from zeroproof.estimators.options import as_array
from zeroproof.estimators.uncertainty import NOISES
from zeroproof.solve.race import noise_size, typical_size
from zeroproof.solve.search import ROUNDING
from zeroproof.solve.spectral import re_iterable
from zeroproof.solve.tall_qr import TallQR, gathered, stacked

__all__ = ["Sample", "sampled", "solved_from"]

_SWEEPS = 4  # the last one only measures
_RESOLVED = 1e-12  # of the largest singular value: a smaller one is the gauge
_SAMPLE = 6000  # rows that decide what to fit
_STEP = np.uint64(0x9E3779B97F4A7C15)
_MIXING = (
    (np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)),
    (np.uint64(27), np.uint64(0x94D049BB133111EB)),
)


Size: TypeAlias = Callable[[NDArray[Any]], NDArray[Any]]  # of the errors of targets


class Sample(NamedTuple):
    """Rows, with random keys: the smallest are kept."""

    keys: NDArray[np.float64]
    X: NDArray[np.float64]
    y: NDArray[Any]


def sampled(batches: Iterable[tuple[Any, Any]]) -> Sample:
    """Return a random sample of the rows of all processes, the same on each.

    Raises:
        DataError: There is no row, or the blocks cannot be read twice.
        ShapeError: A block is no pair (X, y) of equally many rows.
    """
    own, error = None, None
    try:
        own = _drawn(re_iterable(batches))
    except Exception as raised:  # noted, so that no other process waits for ever
        error = raised
    parts = [part for part in gathered(own, error, distributed=True) if part is not None]
    if not parts:
        raise DataError("batches must hold at least one row, got none")
    return _merged(parts)


def solved_from(
    fitted: Fitted,
    batches: Iterable[tuple[Any, Any]],
    sample: Sample,
    missing: str = "bottom",
    weight_power: float = 0.0,
) -> Fitted:
    """Return the fit with coefficients and their covariance from all finite rows of all processes.

    Some Gauss-Newton steps on the squared error of y over its noise start from the fit of the
    sample: rows leave a triangular factor of their slopes, block by block. Forms that are held by
    poles or support points, and outputs that share a denominator, keep the fit of the sample.

    Args:
        fitted: A fit of the sample.
        batches: Pairs (X, y).
        sample: From `sampled`.
        missing: `"drop"` leaves rows with a nan in y out.
        weight_power: Of the objective, if the fit was polished to it.
    """
    fit, model = fitted.fit, fitted.fit.model
    if fit.error < ROUNDING or (model.outputs > 1 and model.denominators == 1):
        return fitted  # the sample told everything
    noises = [_noise(fitted, y) for y in sample.y.reshape(len(sample.y), -1).T]
    sizes = noises

    def factors_of(model: Model, sizes: list[Size]) -> list[tuple[Tensor, int]]:
        return [
            _factor(fitted, model, batches, j, size, drop=missing == "drop")
            for j, size in enumerate(sizes)
        ]

    if fit.polished:  # to an objective of its own, whatever the noise
        scale = fitted.thresholds.scale
        sizes = [lambda y: (1 + np.abs(y / scale) ** 2) ** (weight_power / 2)] * model.outputs
    best, least, spread = model, torch.inf, fitted.spread
    for _ in range(_SWEEPS):
        factors = factors_of(model, sizes)
        square = sum(float(R[:, -1].abs().square().sum()) for R, _ in factors)
        if not square < least:
            break
        solved = [_step(R, count) for R, count in factors]
        best, least = model, square
        spread = tuple(root for _, root in solved) if spread else ()
        for j, (step, _) in enumerate(solved):
            moved = model.moved(j, step)
            if moved is None:
                return fitted
            model = moved
    if fit.polished and spread:  # it is known as well as the noise allows
        spread = tuple(_step(R, count)[1] for R, count in factors_of(best, noises))
    if fitted.affine:
        X = torch.from_numpy(sample.X[:, fitted.columns])
        if crosses(best, X):
            return fitted  # of the sample, whose D keeps its sign
        fitted = fitted._replace(sign=best.tuples(X).D[0].sign())
    return fitted._replace(fit=fit._replace(model=best), spread=spread)


def _drawn(blocks: Iterable[Any]) -> Sample | None:
    """Return a random sample of the rows, with those where a column is smallest or largest."""
    sample = None
    for X, y in _pairs(blocks):
        more = Sample(_keys(X, y), X, y)
        sample = _merged([more] if sample is None else [sample, more])
    return sample


def _keys(X: NDArray[np.float64], y: NDArray[Any]) -> NDArray[np.float64]:
    """Return a number in [0, 1) for each row, drawn by a hash (splitmix64) of what it holds.

    Neither the order of rows nor the process that has them then changes the sample.
    """
    Y = y.reshape(len(y), -1) if y.dtype.kind in "biufc" else X[:, :0]
    numbers = np.concatenate([X, np.real(Y), np.imag(Y)], 1, dtype=np.float64) + 0.0  # -0.0 is 0
    state = np.zeros(len(X), np.uint64)
    for bits in np.ascontiguousarray(numbers.T).view(np.uint64):
        state = state + bits + _STEP
        for shift, factor in _MIXING:
            state = (state ^ (state >> shift)) * factor
        state ^= state >> np.uint64(31)
    return (state >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _merged(parts: list[Sample]) -> Sample:
    shapes = sorted({(part.X.shape[1:], part.y.shape[1:]) for part in parts})
    if len(shapes) > 1:
        raise ShapeError(
            "batches must all have the same columns, got rows (X, y) of shapes "
            + " and ".join(map(str, shapes))
        )
    keys, X, y = (np.concatenate(part) for part in zip(*parts, strict=True))
    order = keys.argsort(kind="stable")
    X = X[order]
    ends = np.unique(np.r_[X.argmin(0), X.argmax(0)])
    kept = np.r_[ends, np.setdiff1d(np.arange(len(X)), ends)][:_SAMPLE]
    return Sample(keys[order][kept], X[kept], y[order][kept])


def _pairs(blocks: Iterable[Any]) -> Iterator[tuple[NDArray[np.float64], NDArray[Any]]]:
    for part in blocks:
        try:
            X, y = (np.asarray(as_array(each)) for each in part)
        except (TypeError, ValueError) as error:
            raise ShapeError("batches must yield pairs (X, y) of arrays") from error
        if X.ndim != 2 or len(X) != len(y):
            raise ShapeError(f"a batch must be (n, d) and (n,) or (n, k), got {X.shape}, {y.shape}")
        if not np.isfinite(X).all():
            raise DataError("X must be finite, got inf or NaN in a batch")
        if len(X):
            yield X.astype(np.float64), y


def _step(R: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the step that a factor of (slopes, residual) asks for, and its covariance root."""
    slopes, size = R[:-1, :-1], torch.linalg.vector_norm(R[:-1, :-1], dim=0).clamp(1e-300)
    U, S, Vh = torch.linalg.svd(slopes / size)
    known = _RESOLVED * S[:1] < S
    root = Vh.mH[:, known] / S[known] / size[:, None]
    sigma = float(torch.linalg.vector_norm(R[:, -1])) / max(count - int(known.sum()), 1) ** 0.5
    return root @ (U.mH @ R[:-1, -1])[known], root * sigma


def _noise(fitted: Fitted, y: NDArray[Any]) -> Size:
    """Return how large the noise of targets is that the fit was weighed for."""
    kind, typical = NOISES[fitted.fit.power], typical_size(y[np.isfinite(y)])
    return lambda y: noise_size(y, kind, typical)


def _factor(
    fitted: Fitted, model: Model, blocks: Iterable[Any], output: int, size: Size, *, drop: bool
) -> tuple[Tensor, int]:
    """Return the factor of the weighted (slopes, residual) of finite rows, and their number."""
    qr, count, error = None, 0, None
    try:
        for X, targets in _pairs(blocks):
            Y = targets.reshape(len(targets), -1)
            kept = np.isfinite(Y[:, output])
            if drop:
                kept &= ~np.isnan(Y).any(1)
            y = torch.from_numpy(np.array(Y[kept, output]))
            rows = torch.from_numpy(np.array(X[kept][:, list(fitted.columns)]))
            answer, G = model.slopes(rows, output)
            root = torch.from_numpy(1 / size(y.numpy()))
            rows = torch.cat([G, (y - answer)[:, None]], 1) * root[:, None]
            rows = rows[torch.isfinite(rows).all(1)]
            qr = qr or TallQR(rows.shape[1], like=rows)
            qr.add(rows)
            count += len(rows)
    except Exception as raised:  # noted, so that no other process waits for ever
        error = raised
    own = None if qr is None else (qr.factor(), count)
    parts = [part for part in gathered(own, error, distributed=True) if part is not None]
    return stacked([R for R, _ in parts]), sum(number for _, number in parts)
