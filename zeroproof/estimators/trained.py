"""Fit a table by gradient training: the whole way from two tensors to a model that can be used."""

import math
import time
import warnings
from typing import NamedTuple

import torch
from torch import Tensor

from zeroproof._checks import in_range, one_of, ordered, positive, whole
from zeroproof.defaults import TAU_INFER, TAU_TRAIN
from zeroproof.errors import DataError, RangeError, ShapeError
from zeroproof.estimators.diagnosis import RowView, diagnose, view_rows
from zeroproof.estimators.frame import FramedTargets, frame_targets
from zeroproof.estimators.rows import row_loader
from zeroproof.estimators.thresholds import choose_thresholds
from zeroproof.export import Run
from zeroproof.layers.mlp import ProjectiveMLP
from zeroproof.losses import implicit_loss
from zeroproof.projective import Pair, denominator_score
from zeroproof.training import History, SCMTrainer, TrainingConfig

__all__ = ["FitOptions", "TrainedFit", "fit_table"]

_STEPS_PER_EPOCH = 25
_LARGEST = 1e30  # squares of framed numbers must stay in float32


class FitOptions(NamedTuple):
    """How a table is fitted; the defaults suit a few hundred to some ten thousand rows."""

    hidden: tuple[int, ...] = (64, 64)
    activation: str = "silu"
    shared_denominator: bool = True
    steps: int = 6000
    epochs: int | None = None  # passes over the data, instead of steps
    batch_size: int = 512
    learning_rate: float = 2e-2
    held_out: float = 0.2
    tau_infer: float | None = None
    tau_train: float | None = None
    seed: int = 0
    progress: bool = True


class TrainedFit(NamedTuple):
    """A fitted run, its history, what it says about every row, and which rows were held out."""

    run: Run
    history: History
    view: RowView
    held_out: Tensor
    seconds: float


class ChordalLoss:
    r"""Chordal implicit loss whose rows may be weighted as an absolute error would weight them.

    Formula: Σ w·E / ((N² + D²)(Y_n² + Y_d²)) / Σ w with w = (1 + y'²)^(2p). p = 1 turns it, near a
    good fit, into the squared error of y', the best choice for noise of one size; p = 0 is the
    chordal loss itself.
    """

    def __init__(self, power: int) -> None:
        self.power = power

    def __call__(self, outputs: tuple[Tensor, Tensor], targets: tuple[Tensor, Tensor]) -> Tensor:
        """Return the scalar loss of a batch."""
        weight = None
        if self.power:  # only with finite targets, whose Y_d is 1
            weight = (1 + targets[0].square()).square()
        return implicit_loss(*outputs, *targets, normalizer="chordal", weight=weight)


def fit_table(
    X: Tensor,
    y: Tensor,
    features: tuple[str, ...],
    targets: tuple[str, ...],
    options: FitOptions | None = None,
) -> TrainedFit:
    """Train a projective network on rows of numbers.

    Inputs are standardised, targets brought to their frame and lifted; a trunk with a projective
    head is trained on the chordal loss with Adam and a cosine schedule, under PROJECT; the epoch
    with the lowest held-out loss is kept; thresholds are read off the held-out rows. Topology:
    projective, +∞ and -∞ are one point. Same seed, same answer on the same machine and number of
    threads.

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
    """
    options = options or FitOptions()
    _check_options(options)
    _check_rows(X, y, features, targets)
    started = time.perf_counter()
    X = X.float()
    framed = frame_targets(y, targets)
    held_out = _held_out(len(X), options)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        model = _model(X[~held_out], y.shape[1], options)
        history = _train(model, X, framed, held_out, options)
    model.eval()
    with torch.no_grad():
        N, D = model(X)
    singular = ~torch.isfinite(y)
    config = choose_thresholds(
        denominator_score(N, D, "angle")[held_out].flatten(),
        singular[held_out].flatten(),
        options.tau_infer,
        options.tau_train,
    )
    view = view_rows(model, X)
    seconds = time.perf_counter() - started
    facts = {
        "rows": len(X),
        "held_out_rows": int(held_out.sum()),
        "diagnosis": diagnose(view, int(singular.any(1).sum()))._asdict(),
        "errors": _errors(Pair(N, D), framed, y, held_out),
        "options": options._asdict(),
        "topology": "projective",
        "seconds": round(seconds, 3),
    }
    run = Run(model, config, framed.frame, features, targets, facts)
    return TrainedFit(run, history, view, held_out, seconds)


def _check_options(options: FitOptions) -> None:
    whole(options.batch_size, "batch_size", low=1)
    whole(options.steps, "steps", low=1)
    if options.epochs is not None:
        whole(options.epochs, "epochs", low=1)
    positive(options.learning_rate, "learning_rate")
    one_of(options.shared_denominator, (True, False), "shared_denominator")
    if not 0 < options.held_out < 1:
        raise RangeError(f"held_out must lie in (0, 1), got {options.held_out!r}")
    for value, parameter in ((options.tau_infer, TAU_INFER), (options.tau_train, TAU_TRAIN)):
        if value is not None:
            in_range(value, parameter)
    if options.tau_infer is not None and options.tau_train is not None:
        ordered(options.tau_infer, options.tau_train, "tau_infer", "tau_train")


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
    if max(float(x.abs().max()) for x in (X, y.nan_to_num(0, 0, 0))) > _LARGEST:
        raise DataError(
            f"numbers must not exceed {_LARGEST:g} in size: change the unit of the column"
        )
    constant = [name for name, x in zip(features, X.T, strict=True) if (x == x[0]).all()]
    if len(constant) == len(features):
        raise DataError(f"some feature must vary, got constant columns {', '.join(constant)}")
    if constant:
        warnings.warn(f"constant columns tell nothing: {', '.join(constant)}", stacklevel=3)


def _held_out(rows: int, options: FitOptions) -> Tensor:
    """Choose held-out rows; of fewer than 10 none can be spared, and all serve both purposes."""
    if rows < 10:
        return torch.zeros(rows, dtype=torch.bool)
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(options.seed))
    held_out = torch.zeros(rows, dtype=torch.bool)
    held_out[order[: max(1, round(options.held_out * rows))]] = True
    return held_out


def _model(X: Tensor, outputs: int, options: FitOptions) -> ProjectiveMLP:
    model = ProjectiveMLP(
        X.shape[1],
        outputs,
        hidden=options.hidden,
        activation=options.activation,
        shared_denominator=options.shared_denominator,
    )
    std = X.std(0, correction=0)
    model.x_mean.copy_(X.mean(0))
    model.x_std.copy_(torch.where(std > 0, std, 1))
    return model


def _train(
    model: ProjectiveMLP, X: Tensor, framed: FramedTargets, held_out: Tensor, options: FitOptions
) -> History:
    y = framed.y.float()
    batch_size = min(options.batch_size, max(1, int((~held_out).sum())))
    per_pass = math.ceil(int((~held_out).sum()) / batch_size)
    steps = options.epochs * per_pass if options.epochs else options.steps
    passes = math.ceil(min(_STEPS_PER_EPOCH, steps) / per_pass)
    train = row_loader(
        X[~held_out], y[~held_out], batch_size=batch_size, seed=options.seed, passes=passes
    )
    check = row_loader(X[held_out], y[held_out], batch_size=4096) if held_out.any() else None
    optimizer = torch.optim.Adam(model.parameters(), lr=options.learning_rate, fused=True)
    trainer = SCMTrainer(
        model=model,
        optimizer=optimizer,
        loss_fn=ChordalLoss(power=1 if framed.light_tailed else 0),
        train_loader=train,
        val_loader=check,
        scheduler=torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps),
        config=TrainingConfig(
            max_epochs=math.ceil(steps / len(train)),
            max_steps=steps,
            coverage_threshold=0.0,
            score="angle",
            keep_best=True,
            scheduler_cadence="step",
            device="cpu",
            progress=options.progress,
        ),
    )
    return trainer.fit()


def _errors(pair: Pair, framed: FramedTargets, y: Tensor, held_out: Tensor) -> dict[str, float]:
    """RMS and median relative error of plain quotients on finite targets, in the units of y."""
    center = torch.tensor(framed.frame.center, dtype=torch.float64)
    scale = torch.tensor(framed.frame.scale, dtype=torch.float64)
    predicted = center + scale * (pair.N.double() / pair.D.double())
    found: dict[str, float] = {}
    for name, rows in (("all", torch.ones_like(held_out)), ("held_out", held_out)):
        use = torch.isfinite(y) & torch.isfinite(predicted) & rows[:, None]
        if use.any():
            difference = (predicted - y)[use].abs()
            found[f"{name}_rms"] = float(difference.square().mean().sqrt())
            relative = difference / y[use].abs().clamp_min(1e-12 * float(scale.min()))
            found[f"{name}_median_relative"] = float(relative.median())
    return found
