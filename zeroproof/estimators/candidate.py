"""Two networks of one size for one table: one that may have poles, and a plain one, with D = 1."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from zeroproof.estimators.frame import FramedTargets, standardise_targets
from zeroproof.estimators.objective import ChordalLoss, squared_loss
from zeroproof.estimators.options import FitOptions
from zeroproof.estimators.rows import RowBatches
from zeroproof.export import TargetFrame
from zeroproof.layers.mlp import ProjectiveMLP
from zeroproof.training import History, SCMTrainer, TrainingConfig

__all__ = ["Candidate", "choose", "train_candidates"]

_STEPS_PER_EPOCH = 25
_EARNED = 0.9  # with light tails poles have to earn their place, by 10 % of the error;
_LOST = 1.2  # with heavy ones they keep it unless they cost more than 20 %
_EXPLAINS = 0.5  # share of the variance left over below which a model says something


class Candidate(NamedTuple):
    """A trained network, the frame it was trained in, and how well it does on the check rows."""

    model: ProjectiveMLP
    frame: TargetFrame
    history: History
    unexplained: float  # root of the mean, over targets, of squared error / variance; ∞: no number


def train_candidates(
    X: Tensor, y: Tensor, framed: FramedTargets, held_out: Tensor, options: FitOptions
) -> dict[str, Candidate]:
    """Train `"projective"`, and `"plain"` too where all targets are finite; seeds torch.

    The projective network minimises the chordal loss, weighted as an absolute error where targets
    have light tails; the plain one, whose denominators stay 1, the squared error.

    Args:
        X: Inputs, `(rows, features)`, float64.
        y: Targets, `(rows, k)`, float64.
        framed: The same targets in their frame.
        held_out: Rows not to be trained on.
        options: See `FitOptions`.
    """
    torch.manual_seed(options.seed)
    model = _model(X[~held_out], y.shape[1], options)
    loss_fn = ChordalLoss(power=1 if framed.light_tailed else 0)
    candidates = {"projective": _trained(model, X, y, framed, loss_fn, held_out, options)}
    if torch.isfinite(y).all():
        torch.manual_seed(options.seed)
        model = _model(X[~held_out], y.shape[1], options)
        nn.init.zeros_(model.head.denominator.weight)
        model.head.denominator.requires_grad_(requires_grad=False)
        standard = standardise_targets(y)
        candidates["plain"] = _trained(model, X, y, standard, squared_loss, held_out, options)
    return candidates


def choose(candidates: dict[str, Candidate], *, light_tailed: bool) -> str:
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
) -> Candidate:
    history = _train(model, X, framed.y.float(), loss_fn, held_out, options)
    model.eval()
    check = held_out if held_out.any() else ~held_out
    return Candidate(model, framed.frame, history, _unexplained(model, X, framed, y, check))


def _train(
    model: ProjectiveMLP,
    X: Tensor,
    y: Tensor,
    loss_fn: Callable[..., Tensor],
    held_out: Tensor,
    options: FitOptions,
) -> History:
    rows = int((~held_out).sum())
    batch_size = min(options.batch_size, rows)
    steps = math.ceil(options.epochs * rows / batch_size) if options.epochs else options.steps
    passes = math.ceil(min(_STEPS_PER_EPOCH, steps) * batch_size / rows)
    train = RowBatches(
        X[~held_out], y[~held_out], batch_size=batch_size, seed=options.seed, passes=passes
    )
    check = RowBatches(X[held_out], y[held_out], batch_size=4096) if held_out.any() else None
    learned = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(learned, lr=options.learning_rate, fused=True)
    trainer = SCMTrainer(
        model=model,
        optimizer=optimizer,
        loss_fn=loss_fn,
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


@torch.no_grad()
def _unexplained(
    model: ProjectiveMLP, X: Tensor, framed: FramedTargets, y: Tensor, check: Tensor
) -> float:
    if not torch.isfinite(y).all():
        return math.inf  # and no other candidate to compare with
    N, D = model(X[check])
    scale = torch.tensor(framed.frame.scale, dtype=torch.float64)
    error = (N.double() / D.double() - framed.y[check]) * scale
    variance = y.var(0, correction=0)
    share = error.square().mean(0) / torch.where(variance > 0, variance, 1)
    root = float(share.mean().sqrt())
    return math.inf if math.isnan(root) else root
