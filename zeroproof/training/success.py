"""What a trained model is worth on labelled rows: its unit, its thresholds, what it catches."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from zeroproof._extras import require
from zeroproof.autodiff.rewind import in_mode
from zeroproof.errors import DataError
from zeroproof.inference import InferenceConfig, calibrated, strict_inference
from zeroproof.layers.head import ProjectiveHead
from zeroproof.projective.angle import chordal_distance, denominator_score, norm
from zeroproof.projective.gauge import target_scale
from zeroproof.scm import SCM
from zeroproof.training._calling import as_pair
from zeroproof.training._head import features, heads_of
from zeroproof.training._loaders import Batch, widened
from zeroproof.training._random import random_state, set_random_state
from zeroproof.training._source import Source
from zeroproof.training._states import plain
from zeroproof.training.targets import lift_targets

__all__ = [
    "Share",
    "Success",
    "answers",
    "closing_head",
    "doubts",
    "judged",
    "peeked",
    "undisturbed",
]

_SCALE_ROWS = 2**13  # the median is good to one per cent
_ROWS = 2**20  # that are read to choose thresholds
_CAUGHT = 0.9  # of the labels; fewer are worth a warning
_FAR = 0.1  # angle score; D that is nowhere smaller has no zero to speak of
_SKILL = 0.1
_CONSTANT = 1e-6  # mean squared chordal distance; targets that spread less are one number


class Share(NamedTuple):
    """A share of entries, and how sure it is.

    Attributes:
        share: In [0, 1].
        low: Lower end of its 95 % interval (E. B. Wilson, J. Am. Stat. Assoc. 22:209, 1927).
        high: Upper end.
        rows: Entries (row by output) that it rests on.
    """

    share: float
    low: float
    high: float
    rows: int

    @classmethod
    def of(cls, count: int, rows: int) -> "Share | None":
        """Return `count` of `rows`; `None` of no row.

        Examples:
            >>> Share.of(50, 100)
            Share(share=0.5, low=0.4038..., high=0.5961..., rows=100)
        """
        if rows == 0:
            return None
        z2, p = 1.959964**2, count / rows
        middle = (p + z2 / (2 * rows)) / (1 + z2 / rows)
        half = math.sqrt(z2 * (p * (1 - p) + z2 / (4 * rows)) / rows) / (1 + z2 / rows)
        return cls(p, max(0.0, middle - half), min(1.0, middle + half), rows)


class Success(NamedTuple):
    """What `SCMTrainer.calibrate` found.

    Attributes:
        config: Thresholds to deploy the model with.
        caught: Share of the entries labelled ±inf or ⊥ that are answered ⊥ with them.
        lost: Share of the entries with finite labels that are answered ⊥.
        skill: 1 - mean squared chordal distance / that of the best constant answer; 1 is perfect,
            0 no better than a constant. `None` where a constant is right.
        chosen: Whether thresholds were chosen here; if not they are those of the `TrainingConfig`.
    """

    config: InferenceConfig
    caught: Share | None
    lost: Share | None
    skill: float | None
    chosen: bool


@contextmanager
def undisturbed(source: Source) -> Iterator[None]:
    """Read a loader and leave everything as it was: random states, samplers, its place."""
    state, place = random_state(), source.state()
    try:
        yield
    finally:
        source.restore(place)
        set_random_state(state)


def peeked(source: Source, accelerator: Any, *, scaled: bool) -> tuple[Batch, float]:
    r"""Return the first batch, and the median of \|y\| over the finite targets of the first rows.

    To be called within `undisturbed`, so that the run sees the batches it would have seen. All
    processes get the number of all their rows, at most 8192; 1 if it is not asked for.

    Raises:
        DataError: No target is finite.
    """
    parts: list[Tensor] = []
    first, rows, whole = None, 0, True
    for batch in source.epoch(0):
        first = first or batch
        y = batch.y if batch.weight is None else batch.y.where(batch.weight > 0, torch.nan)
        parts.append(y[: batch.own].detach().flatten())
        rows += batch.all
        if rows >= _SCALE_ROWS or not scaled:
            whole = False
            break
    if not scaled:
        return first, 1.0  # pyright: ignore[reportReturnType]
    y = torch.cat(gathered(torch.cat(parts).cpu(), accelerator))
    if whole and not torch.isfinite(y).any():
        raise DataError(
            f"train_loader must yield finite targets, got ±inf or ⊥ in all {rows} rows: there is "
            "nothing to learn but one answer"
        )
    return first, target_scale(y)  # pyright: ignore[reportReturnType]


def gathered(mine: Tensor, accelerator: Any) -> list[Tensor]:
    """Return what all processes have, on each."""
    if accelerator.num_processes == 1:
        return [mine]
    return require("accelerate.utils", extra="train").gather_object([mine])


def closing_head(model: nn.Module, batch: Batch) -> ProjectiveHead | None:
    """Return the `ProjectiveHead` whose tuples are the model's answer to the bit, if there is one.

    Its numerator may be scaled, and it may be solved for, as the answers will follow.
    """
    model = plain(model)
    heads = heads_of(model)
    if len(heads) != 1:
        return None
    with in_mode(model, training=False):
        seen, outputs = features(model, heads[0], widened(batch, heads[0].numerator.weight))
        if len(seen) != 1 or not isinstance(outputs, tuple | list) or len(outputs) != 2:
            return None
        pairs = zip(outputs, heads[0](seen[0]), strict=True)
        alike = all(torch.allclose(a, b, rtol=0, atol=0, equal_nan=True) for a, b in pairs)
    return heads[0] if alike else None


def answers(
    model: nn.Module, source: Source, accelerator: Any
) -> tuple[Tensor, Tensor, Tensor, bool]:
    """Return N, D and y, `(rows, outputs)`, of all processes, and whether answers are `SCM`.

    Outputs whose number changes from batch to batch become rows. A row with a missing label is left
    out.
    """
    like, rows, scm = next(model.parameters()), 0, False
    parts: list[list[Tensor]] = []
    widths: set[int] = set()
    with in_mode(model, training=False):
        for batch in source.epoch(0):
            outputs = widened(batch, like).through(model)
            N, D = as_pair(outputs)
            scm = isinstance(outputs, SCM)
            found = (N.detach(), D.detach().expand_as(N), batch.y)
            columns = N.shape[-1] if N.ndim > 1 else 1
            widths.add(columns)
            there = batch.weights() > 0
            parts.append([z[: batch.own].reshape(-1, columns)[there] for z in found])
            rows += batch.all
            if rows >= _ROWS:
                break
    width = widths.pop() if len(widths) == 1 else 1
    mine = (torch.cat([z.reshape(-1, width) for z in each]) for each in zip(*parts, strict=True))
    N, D, y = (torch.cat(gathered(z.cpu(), accelerator)) for z in mine)
    return N, D, y, scm


@torch.no_grad()
def judged(
    N: Tensor, D: Tensor, y: Tensor, config: InferenceConfig, scale: float, *, choose: bool
) -> tuple[Success, float]:
    """Choose thresholds on labelled rows, and count what they catch and lose.

    Args:
        N: Numerators, `(rows, outputs)`.
        D: Denominators of the same shape.
        y: Labels of the same shape, in the units of N / D.
        config: Thresholds that stay where none can be chosen, or shall be.
        scale: Of the angle score.
        choose: Whether to.

    Returns:
        What was found, and the smallest angle score of an entry labelled singular.
    """
    sound, singular = torch.isfinite(N) & torch.isfinite(D), ~torch.isfinite(y)
    angle = torch.where(sound, denominator_score(N, D, "angle", scale), 0)
    chosen = calibrated(angle.flatten(), singular.flatten(), scale) if choose else None
    bottom = strict_inference(N, D, chosen or config).bottom_mask
    kinds = ((singular & bottom, singular), (~singular & bottom, ~singular))
    caught, lost = (Share.of(int(hits.sum()), int(all_.sum())) for hits, all_ in kinds)
    Y_n, Y_d = lift_targets(y, scale=scale)
    far = chordal_distance(N / scale, D, Y_n, Y_d).square().nan_to_num(1.0).mean()
    # the best constant is the first eigenvector of mean(u uᴴ), what it misses the last eigenvalue
    u = torch.stack((Y_n, Y_d), -1) / norm(Y_n, Y_d)[..., None]
    products = torch.einsum("rki,rkj->kij", u, u.conj()) / len(u)
    spread = torch.linalg.eigvalsh(products)[:, 0].mean()
    skill = 1 - float(far / spread) if spread > _CONSTANT else None
    nearest = float(angle[singular].min()) if singular.any() else 0.0
    success = Success(chosen or config, caught, lost, skill, chosen is not None)
    return success, nearest


def doubts(success: Success, nearest: float, part: str) -> Iterator[str]:
    """Say in plain words what is wrong with a trained model."""
    caught, rows = success.caught, "rows held out" if part == "val" else "rows trained on"
    if caught and caught.share < _CAUGHT:
        count = f"{round((1 - caught.share) * caught.rows)} of the {caught.rows}"
        said = f"{count} entries labelled ±inf or ⊥ are answered by a finite number on the {rows}"
        if nearest > _FAR:
            yield (
                f"{said}: no denominator comes near 0 there, the smallest angle score is "
                f"{nearest:.2g}. Train longer, end the model in a ProjectiveHead, or take "
                'normalizer="chordal" and a learning rate of 1e-2'
            )
        elif success.chosen:
            yield f"{said}: no threshold tells them apart. Train longer, or a larger model"
        else:
            yield (
                f"{said} with tau_infer={success.config.tau_infer:g}, which was set or for lack of "
                "labels could not be chosen: five entries of either kind are needed"
            )
    if success.skill is not None and success.skill < _SKILL:
        yield (
            f"the model is hardly better than one constant answer on the {rows} (skill "
            f"{success.skill:.2f} of 1): train longer, or take "
            'normalizer="chordal" and a learning rate of 1e-2'
        )
