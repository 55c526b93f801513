"""Fit a table by gradient training: the whole way from two tensors to a model that can be used.

Targets are brought to a frame of medians, which a pole cannot move; two networks of one size are
trained, one that may have poles and a plain one, D = 1; thresholds are read off held-out rows.
"""

import math
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor, nn

from zeroproof.errors import DataError, ShapeError, TrainingError
from zeroproof.estimators.diagnosis import RowView, diagnose, errors_of, view_rows
from zeroproof.estimators.options import (
    FitOptions,
    check_options,
    read_groups,
    read_weight,
)
from zeroproof.inference import choose_thresholds
from zeroproof.inference.run import Run, TargetFrame
from zeroproof.layers.mlp import ProjectiveMLP
from zeroproof.losses import implicit_loss
from zeroproof.projective import Pair, denominator_score
from zeroproof.solve.race import whole_groups
from zeroproof.training import History, SCMTrainer, TrainingConfig

__all__ = [
    "ChordalLoss",
    "FitOptions",
    "FramedTargets",
    "RowBatches",
    "TrainedCandidate",
    "TrainedFit",
    "check_options",
    "choose",
    "fit_table",
    "frame_targets",
    "squared_loss",
    "standardise_targets",
    "train_candidates",
]

_SMALL_STEP = 2**17  # rows times width
_LARGEST = 1e30  # squares of framed numbers must stay in float32
_STEPS_PER_EPOCH = 25
_EARNED = 0.9  # with light tails poles have to earn their place, by 10 % of the error;
_LOST = 1.2  # with heavy ones they keep it unless they cost more than 20 %
_EXPLAINS = 0.5  # share of the variance left over below which a model says something
_LIGHT_TAIL = 20.0  # median deviations; beyond it a squared error would see the largest rows alone


class TrainedFit(NamedTuple):
    """A fitted run, its history, what it says about every row, and which rows were held out."""

    run: Run
    history: History
    view: RowView
    held_out: Tensor
    seconds: float


class FramedTargets(NamedTuple):
    """Targets in their frame, and whether they look like those of an ordinary function."""

    y: Tensor  # `(rows, k)`
    frame: TargetFrame
    light_tailed: bool  # all finite, and none further than 20 median deviations from the centre


class TrainedCandidate(NamedTuple):
    """A trained network, the frame it was trained in, and how well it does on the check rows."""

    model: ProjectiveMLP
    frame: TargetFrame
    history: History
    unexplained: float  # root of the mean, over targets, of squared error / variance; ∞: no number


def fit_table(
    X: Tensor,
    y: Tensor,
    features: tuple[str, ...],
    targets: tuple[str, ...],
    options: FitOptions | None = None,
    *,
    weight: Tensor | None = None,
    groups: Any = None,
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
        weight: How much each row counts in the loss, `(rows,)`, at least 0; for known standard
            errors σ of y: 1 / σ².
        groups: Labels, `(rows,)`, numbers or text; held-out rows are then whole groups.

    Raises:
        ShapeError: X, y, names, weight and groups do not belong together.
        DataError: Rows or columns that cannot be used: none, not finite, all constant, all ⊥; a
            weight that cannot be; fewer than two groups.
        RangeError: An option is outside what it may be.
        TrainingError: Training diverged.
    """
    options = options or FitOptions()
    check_options(options)
    _check_rows(X, y, features, targets)
    started, X, y = time.perf_counter(), X.double(), y.double()
    if weight is not None:
        weight = torch.from_numpy(read_weight(weight, len(X)))
    group = None
    if groups is not None:
        group = read_groups(groups, np.ones(len(X), bool), y.numpy())
    held_out = _held_out(len(X), options, group)
    if weight is not None:
        held_out &= weight > 0
    framed = frame_targets(y, targets)
    with torch.random.fork_rng(devices=[]), _threads(options):
        candidates = train_candidates(X, y, framed, held_out, options, weight)
    kept = choose(candidates, light_tailed=framed.light_tailed)
    model, frame, history, _ = candidates[kept]
    N, D = (part.detach() for part in model(X))
    if not (torch.isfinite(N) & torch.isfinite(D)).all():
        raise TrainingError(
            "training must end with finite tuples, but diverged: lower learning_rate, "
            f"got {options.learning_rate:g}"
        )
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
        "groups": 0 if group is None else len(np.unique(group)),
        "kept": kept,
        "unexplained": {
            name: one.unexplained if math.isfinite(one.unexplained) else None
            for name, one in candidates.items()
        },
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


def _held_out(rows: int, options: FitOptions, group: NDArray[Any] | None) -> Tensor:
    """Choose held-out rows; of fewer than 10 none can be spared, and all serve both purposes."""
    if rows < 10:
        return torch.zeros(rows, dtype=torch.bool)
    if group is not None:
        return torch.from_numpy(whole_groups(group, options.held_out, options.seed))
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(options.seed))
    held_out = torch.zeros(rows, dtype=torch.bool)
    held_out[order[: min(max(1, round(options.held_out * rows)), rows - 1)]] = True
    return held_out


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


def train_candidates(
    X: Tensor,
    y: Tensor,
    framed: FramedTargets,
    held_out: Tensor,
    options: FitOptions,
    weight: Tensor | None = None,
) -> dict[str, TrainedCandidate]:
    """Train `"projective"`, and `"plain"` too where all targets are finite; seeds torch.

    The projective network minimises the chordal loss, weighted as an absolute error where targets
    have light tails; the plain one, whose denominators stay 1, the squared error.

    Args:
        X: Inputs, `(rows, features)`, float64.
        y: Targets, `(rows, k)`, float64.
        framed: The same targets in their frame.
        held_out: Rows not to be trained on.
        options: See `FitOptions`.
        weight: How much each row counts, `(rows,)`.
    """
    torch.manual_seed(options.seed)
    model = _model(X[~held_out], y.shape[1], options)
    loss_fn = ChordalLoss(power=1 if framed.light_tailed else 0)
    candidates = {"projective": _trained(model, X, y, framed, loss_fn, held_out, options, weight)}
    if torch.isfinite(y).all():
        torch.manual_seed(options.seed)
        model = _model(X[~held_out], y.shape[1], options)
        nn.init.zeros_(model.head.denominator.weight)
        model.head.denominator.requires_grad_(requires_grad=False)
        standard = standardise_targets(y)
        candidates["plain"] = _trained(
            model, X, y, standard, squared_loss, held_out, options, weight
        )
    return candidates


def choose(candidates: dict[str, TrainedCandidate], *, light_tailed: bool) -> str:
    """Return which candidate to keep.

    Where targets have light tails, the plain one, unless poles bring a clear gain. Where tails are
    heavy, the projective one, unless the plain one is clearly better and also explains the data:
    the rows next to a pole make up most of the error then, and luck rules them.
    """
    if "plain" not in candidates:
        return "projective"
    plain, projective = (candidates[name].unexplained for name in ("plain", "projective"))
    if light_tailed:
        return "plain" if _EARNED * plain <= projective else "projective"
    return "plain" if plain**2 < _EXPLAINS and _LOST * plain < projective else "projective"


def _model(X: Tensor, outputs: int, options: FitOptions) -> ProjectiveMLP:
    model = ProjectiveMLP(
        X.shape[1],
        outputs,
        hidden=options.hidden,
        activation=options.activation,
        shared_denominator=options.shared_denominator,
    )
    # in float64: the digits of a time stamp must survive until its mean is taken off
    std = X.std(0, correction=0)
    model.x_mean, model.x_std = X.mean(0), torch.where(std > 0, std, 1)
    return model


def _trained(
    model: ProjectiveMLP,
    X: Tensor,
    y: Tensor,
    framed: FramedTargets,
    loss_fn: Callable[..., Tensor],
    held_out: Tensor,
    options: FitOptions,
    weight: Tensor | None,
) -> TrainedCandidate:
    rows = int((~held_out).sum())
    batch_size = min(options.batch_size, rows)
    steps = math.ceil(options.epochs * rows / batch_size) if options.epochs else options.steps
    passes = math.ceil(min(_STEPS_PER_EPOCH, steps) * batch_size / rows)
    columns, names = [X, framed.y.float()], ()
    if weight is not None:
        columns, names = [*columns, weight.float()], ("x", "y", "weight")
    train, val = ([each[at] for each in columns] for at in (~held_out, held_out))
    loader = RowBatches(
        *train, batch_size=batch_size, seed=options.seed, passes=passes, names=names
    )
    learned = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(learned, lr=options.learning_rate, fused=True)
    trainer = SCMTrainer(
        model=model,
        optimizer=optimizer,
        loss_fn=loss_fn,
        train_loader=loader,
        val_loader=RowBatches(*val, batch_size=4096, names=names) if held_out.any() else None,
        scheduler=torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps),
        config=TrainingConfig(
            max_epochs=math.ceil(steps / len(loader)),
            max_steps=steps,
            coverage_threshold=0.0,
            score="angle",
            target_scale=1.0,  # they are framed already
            readout=None,
            calibrate=False,
            keep_best=True,
            scheduler_cadence="step",
            device="cpu",
            progress=options.progress,
        ),
    )
    history = trainer.fit()
    model.eval()
    check = held_out if held_out.any() else ~held_out
    left = _unexplained(model, X, framed, y, check, weight)
    return TrainedCandidate(model, framed.frame, history, left)


@torch.no_grad()
def _unexplained(
    model: ProjectiveMLP,
    X: Tensor,
    framed: FramedTargets,
    y: Tensor,
    check: Tensor,
    weight: Tensor | None,
) -> float:
    if not torch.isfinite(y).all():
        return math.inf  # and no other candidate to compare with
    N, D = model(X[check])
    scale = torch.tensor(framed.frame.scale, dtype=torch.float64)
    error = (N.double() / D.double() - framed.y[check]) * scale
    variance, w = y.var(0, correction=0), None if weight is None else weight[check].numpy()
    square = torch.from_numpy(np.average(error.square().numpy(), axis=0, weights=w))
    share = square / torch.where(variance > 0, variance, 1)
    root = float(share.mean().sqrt())
    return math.inf if math.isnan(root) else root


def frame_targets(y: Tensor, names: tuple[str, ...]) -> FramedTargets:
    r"""Bring each column to y' = (y - c) / s, c the median and s the median \|y - c\| of finite y.

    A shift and a scale are projective maps that fix ∞, so ⊥ and ±inf stay what they are. Where s is
    0, the mean deviation takes its place, or 1.

    Raises:
        DataError: A column holds no finite target.
    """
    centers, scales = [], []
    for column, name in zip(y.T, names, strict=True):
        finite = column[torch.isfinite(column)]
        if not len(finite):
            raise DataError(
                f"target {name!r} must have a finite value in some row, got ⊥ in all {len(y)}"
            )
        center = finite.median()
        deviation = (finite - center).abs()
        scale = deviation.median() if deviation.median() > 0 else deviation.mean()
        centers.append(float(center))
        scales.append(float(scale) if scale > 0 else 1.0)
    return _framed(y, TargetFrame(tuple(centers), tuple(scales)))


def standardise_targets(y: Tensor) -> FramedTargets:
    """Bring each column to y' = (y - c) / s, c the mean and s the standard deviation (or 1).

    The frame of a plain network; all targets must be finite.
    """
    scale = y.std(0, correction=0)
    scale = torch.where(scale > 0, scale, 1)
    return _framed(y, TargetFrame(tuple(y.mean(0).tolist()), tuple(scale.tolist())))


def _framed(y: Tensor, frame: TargetFrame) -> FramedTargets:
    center, scale = (torch.tensor(part, dtype=y.dtype) for part in frame)
    framed = (y - center) / scale
    light = bool(torch.isfinite(framed).all() and (framed.abs() <= _LIGHT_TAIL).all())
    return FramedTargets(framed, frame, light)


class ChordalLoss:
    r"""Chordal implicit loss whose rows may be weighted as an absolute error would weight them.

    Formula: Σ w·E / ((N² + D²)(Y_n² + Y_d²)) / Σ w with w = (1 + y'²)^(2p). p = 1 turns it, near a
    good fit, into the squared error of y', the best choice for noise of one size; p = 0 is the
    chordal loss itself. Above 0, all targets must be finite.
    """

    def __init__(self, power: float) -> None:
        self.power = power

    def __call__(
        self,
        outputs: tuple[Tensor, Tensor],
        targets: tuple[Tensor, Tensor],
        weight: Tensor | None = None,
    ) -> Tensor:
        """Return the scalar loss of a batch; rows count by `weight`, `(n, 1)`, too."""
        if self.power:  # Y_d is 1
            own = (1 + targets[0].square()).pow(2 * self.power)
            weight = own if weight is None else own * weight
        return implicit_loss(*outputs, *targets, normalizer="chordal", weight=weight)


def squared_loss(
    outputs: tuple[Tensor, Tensor], targets: tuple[Tensor, Tensor], weight: Tensor | None = None
) -> Tensor:
    """Return the weighted mean of (N - D·y')²: for D = 1 the squared error of a plain network."""
    (N, D), (Y_n, _) = outputs, targets
    square = (N - D * Y_n).square()
    if weight is None:
        return square.mean()
    return (weight * square).mean() / weight.mean().clamp(min=1e-30)  # of no weight: 0


class RowBatches:
    """Batches of aligned tensors, anew in every epoch.

    A `DataLoader` passes every index through Python, which costs a tenth of a small step.

    Args:
        columns: Tensors of equal length.
        batch_size: Rows per batch; batches run on from one pass into the next.
        seed: Shuffles every pass anew, from a generator of its own; `None` keeps the order.
        passes: How often an epoch goes through the rows; an epoch of a single batch would spend
            more time on bookkeeping than on training.
        names: Of the columns, if a batch is to be a dict.
    """

    def __init__(
        self,
        *columns: Tensor,
        batch_size: int,
        seed: int | None = None,
        passes: int = 1,
        names: tuple[str, ...] = (),
    ) -> None:
        self._columns, self._batch_size, self._passes = columns, batch_size, passes
        self._names = names
        self._generator = None if seed is None else Generator().manual_seed(seed)

    def __len__(self) -> int:
        return math.ceil(len(self._columns[0]) * self._passes / self._batch_size)

    def __iter__(self) -> Iterator[Any]:
        rows = len(self._columns[0])
        order = torch.cat([self._pass(rows) for _ in range(self._passes)])
        for index in order.split(self._batch_size):
            batch = tuple(column[index] for column in self._columns)
            yield dict(zip(self._names, batch, strict=True)) if self._names else batch

    def _pass(self, rows: int) -> Tensor:
        if self._generator is None:
            return torch.arange(rows)
        return torch.randperm(rows, generator=self._generator)
