"""The rows of a run of the trainer: in memory, or streamed."""

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from zeroproof.cli.config_file import listed
from zeroproof.cli.rows import TableRows, check_answers, column_names, read_rows
from zeroproof.cli.sections import DataSection
from zeroproof.data import TableStream
from zeroproof.errors import DataError
from zeroproof.estimators.trained import RowBatches

__all__ = ["Loaded", "Spread", "load"]

_CHUNK = 65536  # rows read at a time
_SAMPLE = 4


class Spread(NamedTuple):
    """Where the rows of the training data lie, column by column of the features; float64."""

    rows: int
    mean: Tensor
    std: Tensor
    low: Tensor
    high: Tensor


class Loaded(NamedTuple):
    """Batches and what is known about them."""

    train: Iterable[tuple[Tensor, ...]]
    check: Iterable[tuple[Tensor, ...]] | None
    features: tuple[str, ...]
    targets: tuple[str, ...]
    sample: Tensor  # the inputs of a few rows
    spread: Spread
    rows: TableRows | None  # those of `data.train`, unless they are streamed
    held_out: Tensor | None  # which of them


def load(data: DataSection, target: str, features: str, *, dtype: torch.dtype, seed: int) -> Loaded:
    """Read or open the rows to train on and to validate on.

    Args:
        data: Which.
        target: Names of the targets, `a,b`.
        features: Names of the features; `""` for all other columns of a single CSV file.
        dtype: Of the inputs.
        seed: Of held-out rows, and of the order.

    Raises:
        DataError: They cannot be used, or all features are constant.
    """
    read = _streamed if data.stream else _in_memory
    loaded = read(data, target, features, dtype, seed)
    flat = (loaded.spread.low == loaded.spread.high).tolist()
    constant = [name for name, same in zip(loaded.features, flat, strict=True) if same]
    if len(constant) == len(flat):
        raise DataError(f"some feature must vary, got constant columns {', '.join(constant)}")
    if constant:
        warnings.warn(f"constant columns tell nothing: {', '.join(constant)}", stacklevel=2)
    return loaded


def _in_memory(
    data: DataSection, target: str, features: str, dtype: torch.dtype, seed: int
) -> Loaded:
    rows = _rows(data.train, target, features)
    held_out = torch.zeros(len(rows.X), dtype=torch.bool)
    order = torch.randperm(len(rows.X), generator=torch.Generator().manual_seed(seed))
    held_out[order[: min(round(data.held_out * len(order)), len(order) - 1)]] = True
    check = None
    if data.validation:
        others = _rows(data.validation, target, listed(rows.features))
        check = _batches(others.X, others.y, dtype, data.batch_size, None)
    elif held_out.any():
        check = _batches(rows.X[held_out], rows.y[held_out], dtype, data.batch_size, None)
    X, y = rows.X[~held_out], rows.y[~held_out]
    return Loaded(
        _batches(X, y, dtype, data.batch_size, seed),
        check,
        rows.features,
        rows.targets,
        X[:_SAMPLE].to(dtype),
        _spread([X]),
        rows,
        held_out,
    )


def _rows(source: str, target: str, features: str) -> TableRows:
    """Read all rows of a file or folder."""
    path = Path(source)
    if not path.is_dir() and path.suffix.lower() != ".parquet":
        rows = read_rows(source, target, features)
    else:
        names, targets = _names(source, target, features)
        parts = list(_stream(source, names, targets, torch.float64))
        X, y = (torch.cat(part) for part in zip(*parts, strict=True))
        rows = TableRows(X, y, names, targets)
    for name, column in zip(rows.targets, rows.y.T, strict=True):
        largest = column[column.isfinite()].abs().amax()
        if largest > torch.finfo(torch.float32).max:  # it would become infinite
            raise DataError(
                f"target {name!r} must not exceed 3.4e38 in size, got {float(largest):g}: "
                "change its unit"
            )
    return rows


def _names(source: str, target: str, features: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    targets = column_names(target, "--target")
    check_answers(targets)
    if not features:
        raise DataError(f"--features must name the columns to predict from, for {source}, got none")
    names = column_names(features, "--features")
    if set(names) & set(targets):
        raise DataError(f"--features must not name a target, got {features!r}")
    return names, targets


def _batches(
    X: Tensor, y: Tensor, dtype: torch.dtype, batch_size: int, seed: int | None
) -> RowBatches:
    return RowBatches(X.to(dtype), y.float(), batch_size=batch_size, seed=seed)


def _stream(
    source: str, features: tuple[str, ...], targets: tuple[str, ...], dtype: torch.dtype
) -> TableStream:
    return TableStream(
        source, features=features, targets=targets, batch_size=_CHUNK, shuffle=False, dtype=dtype
    )


def _streamed(
    data: DataSection, target: str, features: str, dtype: torch.dtype, seed: int
) -> Loaded:
    source = data.train
    names, targets = _names(source, target, features)
    columns = {"features": names, "targets": targets, "dtype": dtype}
    train = TableStream(
        source,
        **columns,
        batch_size=data.batch_size,
        seed=seed,
        buffer_rows=data.buffer_rows,
        num_workers=data.num_workers,
    )
    check = None
    if data.validation:
        check = TableStream(data.validation, **columns, batch_size=data.batch_size, shuffle=False)
    first, _ = next(iter(_stream(source, names, targets, dtype)))
    spread = _spread(X for X, _ in _stream(source, names, targets, torch.float64))
    return Loaded(train, check, names, targets, first[:_SAMPLE], spread, None, None)


def _spread(parts: Iterable[Tensor]) -> Spread:
    """Add up the moments of parts (T. F. Chan, G. H. Golub, R. J. LeVeque, 1979)."""
    total, mean, squares, low, high = 0, *(torch.zeros(()) for _ in range(4))
    for X in parts:
        rows, own = len(X), X.mean(0)
        apart = own - mean
        mean = mean + apart * (rows / (total + rows))
        squares = squares + (X - own).square().sum(0) + apart**2 * (total * rows / (total + rows))
        low = torch.minimum(low, X.amin(0)) if total else X.amin(0)
        high = torch.maximum(high, X.amax(0)) if total else X.amax(0)
        total += rows
    std = (squares / total).sqrt()
    return Spread(total, mean, torch.where(std > 0, std, 1), low, high)
