"""Fit a table by gradient training: the whole way from two tensors to a model that can be used."""

import math
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from zeroproof.errors import DataError, ShapeError, TrainingError
from zeroproof.estimators.candidate import Candidate, choose, train_candidates
from zeroproof.estimators.diagnosis import RowView, diagnose, errors_of, view_rows
from zeroproof.estimators.frame import frame_targets
from zeroproof.estimators.options import FitOptions, check_options
from zeroproof.estimators.thresholds import choose_thresholds
from zeroproof.export import Run, TargetFrame
from zeroproof.layers.mlp import ProjectiveMLP
from zeroproof.projective import Pair, denominator_score
from zeroproof.training import History

__all__ = ["FitOptions", "TrainedFit", "fit_table"]

_SMALL_STEP = 2**17  # rows times width
_LARGEST = 1e30  # squares of framed numbers must stay in float32


class TrainedFit(NamedTuple):
    """A fitted run, its history, what it says about every row, and which rows were held out."""

    run: Run
    history: History
    view: RowView
    held_out: Tensor
    seconds: float


def fit_table(
    X: Tensor,
    y: Tensor,
    features: tuple[str, ...],
    targets: tuple[str, ...],
    options: FitOptions | None = None,
) -> TrainedFit:
    """Train a projective network on rows of numbers.

    Inputs are standardised, targets brought to their frame and lifted; a trunk with a projective
    head learns the chordal loss with Adam and a cosine schedule, under PROJECT; the epoch with the
    lowest held-out loss is kept; thresholds are read off all rows. Where all targets are finite, a
    plain network of the same size, D = 1, is trained too, and kept unless poles bring a clear gain.
    Topology: projective, +∞ and -∞ are one point. Same seed, same answer on the same machine and
    number of threads.

    Args:
        X: `(rows, len(features))`, finite.
        y: `(rows, len(targets))`; `inf`, `-inf` and `nan` are singular targets.
        features: Names of the columns of X.
        targets: Names of the columns of y.
        options: See `FitOptions`.

    Raises:
        ShapeError: X, y and names do not belong together.
        DataError: Rows or columns that cannot be used: none, not finite, all constant, all ⊥.
        RangeError: An option is outside what it may be.
        TrainingError: Training diverged.
    """
    options = options or FitOptions()
    check_options(options)
    _check_rows(X, y, features, targets)
    started, X, y = time.perf_counter(), X.double(), y.double()
    held_out = _held_out(len(X), options)
    candidates, kept = _trained(X, y, targets, held_out, options)
    model, frame, history, _ = candidates[kept]
    N, D = _tuples(model, X, options)
    singular = ~torch.isfinite(y)
    # off all rows: few are singular, and what the data label ⊥ shall be ⊥, held out or not
    config = choose_thresholds(
        denominator_score(N, D, "angle").flatten(),
        singular.flatten(),
        options.tau_infer,
        options.tau_train,
    )
    view = view_rows(model, X)
    facts = {
        "rows": len(X),
        "held_out_rows": int(held_out.sum()),
        "kept": kept,
        "unexplained": {name: _finite(one.unexplained) for name, one in candidates.items()},
        "diagnosis": diagnose(view, int(singular.any(1).sum()))._asdict(),
        "errors": _errors(Pair(N, D), frame, y, held_out),
        "options": options._asdict(),
        "topology": "projective",
        "domain": [X.amin(0).tolist(), X.amax(0).tolist()],
    }
    seconds = time.perf_counter() - started
    facts["seconds"] = round(seconds, 3)
    run = Run(model, config, frame, features, targets, facts)
    return TrainedFit(run, history, view, held_out, seconds)


def _tuples(model: ProjectiveMLP, X: Tensor, options: FitOptions) -> Pair:
    """Return what the model says about all rows.

    Raises:
        TrainingError: It is not finite.
    """
    N, D = (part.detach() for part in model(X))
    if not (torch.isfinite(N) & torch.isfinite(D)).all():
        raise TrainingError(
            "training must end with finite tuples, but diverged: lower learning_rate, "
            f"got {options.learning_rate:g}"
        )
    return Pair(N, D)


def _check_rows(X: Tensor, y: Tensor, features: tuple[str, ...], targets: tuple[str, ...]) -> None:
    if X.shape != (len(y), len(features)) or y.shape != (len(X), len(targets)):
        raise ShapeError(
            f"X and y must be (rows, {len(features)}) and (rows, {len(targets)}), "
            f"got {tuple(X.shape)} and {tuple(y.shape)}"
        )
    if not X.numel() or not y.numel():
        raise DataError(
            "a fit needs a row, a feature and a target, "
            f"got {len(X)} rows, {len(features)} features and {len(targets)} targets"
        )
    bad = torch.nonzero(~torch.isfinite(X).all(1)).flatten().tolist()
    if bad:
        raise DataError(f"inputs must be finite, got inf or nan in rows {bad[:5]} (counted from 0)")
    for name, x in zip((*features, *targets), torch.cat([X, y], 1).T, strict=True):
        size, row = x.nan_to_num(0, 0, 0).abs().max(0)
        if size > _LARGEST:
            raise DataError(
                f"column {name!r} must not exceed {_LARGEST:g} in size, got {float(x[row]):g} in "
                f"row {int(row)} (counted from 0): change its unit"
            )
    constant = [name for name, x in zip(features, X.T, strict=True) if (x == x[0]).all()]
    if len(constant) == len(features):
        raise DataError(f"some feature must vary, got constant columns {', '.join(constant)}")
    if constant:
        warnings.warn(f"constant columns tell nothing: {', '.join(constant)}", stacklevel=3)


def _trained(
    X: Tensor, y: Tensor, targets: tuple[str, ...], held_out: Tensor, options: FitOptions
) -> tuple[dict[str, Candidate], str]:
    framed = frame_targets(y, targets)
    with torch.random.fork_rng(devices=[]), _threads(options):
        candidates = train_candidates(X, y, framed, held_out, options)
    return candidates, choose(candidates, light_tailed=framed.light_tailed)


@contextmanager
def _threads(options: FitOptions) -> Iterator[None]:
    """Use one thread for small steps: others cost more than they bring, a lot on a busy machine."""
    before = torch.get_num_threads()
    small = options.batch_size * max(options.hidden, default=1) <= _SMALL_STEP
    torch.set_num_threads(1 if small else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _held_out(rows: int, options: FitOptions) -> Tensor:
    """Choose held-out rows; of fewer than 10 none can be spared, and all serve both purposes."""
    if rows < 10:
        return torch.zeros(rows, dtype=torch.bool)
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(options.seed))
    held_out = torch.zeros(rows, dtype=torch.bool)
    held_out[order[: min(max(1, round(options.held_out * rows)), rows - 1)]] = True
    return held_out


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _errors(pair: Pair, frame: TargetFrame, y: Tensor, held_out: Tensor) -> dict[str, float]:
    """RMS and median relative error of plain quotients on finite targets, in the units of y."""
    center, scale = (torch.tensor(part, dtype=torch.float64) for part in frame)
    predicted = center + scale * (pair.N.double() / pair.D.double())
    found: dict[str, float] = {}
    for name, rows in (("all", torch.ones_like(held_out)), ("held_out", held_out)):
        sizes = errors_of(predicted[rows], y[rows], 1e-12 * scale.min())
        if sizes:
            found[f"{name}_rms"], found[f"{name}_median_relative"] = sizes
    return found
