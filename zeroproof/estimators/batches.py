"""Fit rows that arrive in blocks: what to fit from a sample, the coefficients from all rows."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from zeroproof.errors import DataError, ShapeError
from zeroproof.estimators.closed_form import block, crosses
from zeroproof.estimators.fitted import Fitted
from zeroproof.estimators.model import ReadoutModel
from zeroproof.estimators.options import Rows, as_array
from zeroproof.solve import choose_rho, streamed_readout
from zeroproof.solve.search import ROUNDING
from zeroproof.solve.spectral import re_iterable
from zeroproof.solve.tall_qr import gathered

__all__ = ["Sample", "sampled", "solved_from"]

_SAMPLE = 6000  # rows that decide what to fit
_STEP = np.uint64(0x9E3779B97F4A7C15)
_MIXING = (
    (np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)),
    (np.uint64(27), np.uint64(0x94D049BB133111EB)),
)


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
    fitted: Fitted, batches: Iterable[tuple[Any, Any]], sample: Sample, missing: str = "bottom"
) -> Fitted:
    """Return the fit with its coefficients solved from all rows, on all processes.

    Args:
        fitted: A fit of the sample.
        batches: Pairs (X, y).
        sample: From `sampled`.
        missing: `"drop"` leaves rows with a nan in y out.
    """
    fit, (low, high) = fitted.fit, fitted.domain[:, 0].tolist()
    readout = fit.model.as_readout((low, high))
    if readout is None or fit.error < ROUNDING:  # the sample told everything
        return fitted
    a, b = _solved(fitted, readout, batches, sample, drop=missing == "drop")
    model = readout._replace(a=a, b=b)
    if fitted.affine:
        X = torch.from_numpy(sample.X[:, fitted.columns])
        if crosses(model, X):
            return fitted  # of the sample, whose D keeps its sign
        fitted = fitted._replace(sign=model.tuples(X).D[0].sign())
    return fitted._replace(fit=fit._replace(model=model))


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


def _solved(
    fitted: Fitted, readout: ReadoutModel, blocks: Iterable[Any], sample: Sample, *, drop: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    maps, power = (readout.H_N, readout.H_D), fitted.fit.power
    shared = readout.b.shape[1] == 1

    def rows(X: NDArray[np.float64], y: NDArray[Any]) -> Rows:
        y = y.reshape(len(y), -1)
        if drop:
            kept = ~np.isnan(y).any(1)
            X, y = X[kept], y[kept]
        targets = torch.from_numpy(np.array(y))
        infinite = torch.isinf(targets)
        targets = torch.where(infinite, targets, targets / fitted.thresholds.scale)
        columns = readout.inputs(torch.from_numpy(X[:, fitted.columns]))
        return Rows(columns, targets, torch.ones(len(X), dtype=torch.float64))

    H_N, H_D, Y_n, Y_d, weight = block(maps, rows(sample.X, sample.y), power, readout.target)
    half = len(H_N) // 8
    rho = choose_rho(
        H_N, Y_n, Y_d, slice(half, None), slice(0, half or None), H_D=H_D, weight=weight
    ).rho

    class Blocks:
        def __iter__(self) -> Iterator[Any]:
            for X, y in _pairs(blocks):
                yield block(maps, rows(X, y), power, readout.target)

    head = streamed_readout(Blocks(), rho=rho, shared_denominator=shared)
    return head.a.reshape(len(head.a), -1), head.b.reshape(len(head.b), -1)
