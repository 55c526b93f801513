"""What a trained model is worth on labelled rows: its scale, what it catches, what it loses."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from zeroproof._extras import require
from zeroproof.autodiff.rewind import in_mode, random_state, set_random_state
from zeroproof.errors import DataError
from zeroproof.projective.angle import chordal_distance, norm
from zeroproof.projective.tuples import target_scale
from zeroproof.scm import SCM
from zeroproof.training._head import features, heads_of
from zeroproof.training._keeping import plain
from zeroproof.training._source import Source
from zeroproof.training.forward import as_pair
from zeroproof.training.loaders import Batch, widened
from zeroproof.training.targets import lift_targets

__all__ = [
    "Proportion",
    "answers",
    "answers_y",
    "closing_pair",
    "doubts",
    "gathered",
    "peeked",
    "skill",
    "undisturbed",
]

_SCALE_ROWS = 2**13  # the median is good to two per cent
_ROWS = 2**20  # that are read to choose thresholds
_CAUGHT = 0.9  # of the labels; fewer are worth a warning
_FAR = 0.1  # angle score; a D that is nowhere smaller has no zero to speak of
_SKILL = 0.1
_CONSTANT = 1e-6  # mean squared chordal distance; targets that spread less are one number
_ADVICE = 'train longer, or take normalizer="chordal" and a learning rate of 1e-2'


class Proportion(NamedTuple):
    """A share of entries (row by output), and how sure it is.

    Attributes:
        share: In [0, 1].
        low: Lower end of its 95 % interval (E. B. Wilson, J. Am. Stat. Assoc. 22:209, 1927).
        high: Upper end.
        rows: Entries that it rests on.
    """

    share: float
    low: float
    high: float
    rows: int

    @classmethod
    def of(cls, hits: Tensor, among: Tensor) -> "Proportion | None":
        """Return the share of hits among the entries that are true; `None` of no entry.

        Examples:
            >>> Proportion.of(torch.tensor([True, True, False]), torch.tensor([True, False, True]))
            Proportion(share=0.5, low=0.094..., high=0.905..., rows=2)
        """
        rows = int(among.sum())
        if rows == 0:
            return None
        z2, p = 1.959964**2, int((hits & among).sum()) / rows
        middle = (p + z2 / (2 * rows)) / (1 + z2 / rows)
        half = math.sqrt(z2 * (p * (1 - p) + z2 / (4 * rows)) / rows) / (1 + z2 / rows)
        return cls(p, max(0.0, min(p, middle - half)), min(1.0, max(p, middle + half)), rows)


@contextmanager
def undisturbed(source: Source) -> Iterator[None]:
    """Read a loader and leave everything as it was: random states, samplers, its place."""
    roots = {} if source.keeps_place else {"loader": source.loader}
    state, place, read = random_state(roots), source.state(), source.digests
    try:
        yield
    finally:
        source.restore(place)
        source.digests = read
        set_random_state(state, roots)


def gathered(mine: Tensor, accelerator: Any) -> Tensor:
    """Return the rows of all processes, on each."""
    if accelerator.num_processes == 1:
        return mine
    return torch.cat(require("accelerate.utils", extra="train").gather_object([mine.cpu()]))


def peeked(source: Source, accelerator: Any, *, scaled: bool) -> tuple[Batch, Batch | None, float]:
    r"""Return a batch, one with a label ±inf or ⊥, and the scale of the targets.

    That is the median of \|y\| over the finite targets of the first 8192 rows of all processes, of
    those whose inputs are finite; or of the first batch if it is not asked for. To be called within
    `undisturbed`, so that the run sees the batches it would have seen.

    Raises:
        DataError: No target is finite.
    """
    first = labelled = None
    parts: list[Tensor] = []
    rows, whole = 0, True
    for given in source.epoch(0):
        batch, sound = given.safe()
        first = first or batch
        there = sound.reshape(-1, *[1] * (batch.y.ndim - 1)).expand(batch.y.shape)
        there = there if batch.weight is None else there & (batch.weight > 0)
        y = batch.y[: batch.own].detach()[there[: batch.own]]
        labelled = labelled or (None if torch.isfinite(y).all() else batch)
        parts.append(y.flatten())
        rows += batch.all
        if rows >= _SCALE_ROWS or not scaled:
            whole = False
            break
    y = gathered(torch.cat(parts), accelerator)
    if whole and len(y) and not torch.isfinite(y).any():
        raise DataError(
            f"train_loader must yield finite targets, got ±inf or ⊥ in all {rows} rows: there is "
            "nothing to learn but one answer"
        )
    scale: Any = target_scale(y) if len(y) else 1.0  # without a sound row, training will tell
    return first, labelled, scale  # pyright: ignore[reportReturnType]


def closing_pair(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor] | None:
    """Return (N, D) of a model that ends in a `ProjectiveHead`: its answer to the bit.

    The numerator of such a head may be scaled, and it may be solved for, as the answers will
    follow. A head that does not learn is left as it is: `None`, as without one.
    """
    model = plain(model)
    heads = heads_of(model)
    if len(heads) != 1 or not all(p.requires_grad for p in heads[0].parameters()):
        return None
    with in_mode(model, training=False):
        seen, outputs = features(model, heads[0], widened(batch, heads[0].numerator.weight))
        if len(seen) != 1 or not isinstance(outputs, tuple | list) or len(outputs) != 2:
            return None
        pairs = zip(outputs, heads[0](seen[0]), strict=True)
        alike = all(torch.allclose(a, b, rtol=0, atol=0, equal_nan=True) for a, b in pairs)
    return as_pair(outputs) if alike else None


def answers_y(N: Tensor, D: Tensor, y: Tensor, scale: float) -> bool:
    """Tell whether answers are those to y already, and not to y / scale, as of a trained model."""
    Y = lift_targets(y.to(N.device), scale=scale)
    pairs = ((z, D.expand_as(N), *Y) for z in (N, N / scale))
    as_is, divided = (chordal_distance(*pair).square().nan_to_num(1.0).mean() for pair in pairs)
    return bool(divided < as_is / 2)


def answers(
    model: nn.Module, source: Source, accelerator: Any
) -> tuple[Tensor, Tensor, Tensor, bool]:
    """Return N, D and y, `(rows, outputs)`, of all processes, and whether answers are `SCM`.

    Outputs whose number changes from batch to batch become rows. A row with a missing label, or an
    input that is not finite, is left out.
    """
    like, rows, scm = next(model.parameters()), 0, False
    parts: list[tuple[Tensor, ...]] = []
    with in_mode(model, training=False):
        for given in source.epoch(0):
            batch, sound = given.safe()
            outputs = widened(batch, like).through(model)
            scm, (N, D) = isinstance(outputs, SCM), as_pair(outputs)
            found = (N.detach(), D.detach().expand_as(N), batch.y)
            there, k = batch.weights() > 0, N.shape[-1] if N.ndim > 1 else 1
            there = there & sound[: batch.own].repeat_interleave(len(there) // max(batch.own, 1))
            parts.append(tuple(z[: batch.own].reshape(-1, k)[there] for z in found))
            rows += batch.all
            if rows >= _ROWS:
                break
    widths = {N.shape[-1] for N, _, _ in parts}
    width = widths.pop() if len(widths) == 1 else 1
    columns = (torch.cat([z.reshape(-1, width) for z in each]) for each in zip(*parts, strict=True))
    N, D, y = (gathered(z, accelerator).cpu() for z in columns)
    return N, D, y, scm


def skill(N: Tensor, D: Tensor, y: Tensor, scale: float) -> float | None:
    """Return 1 - mean squared chordal distance / that of the best constant answer of each output.

    1 is perfect, 0 no better than a constant; `None` where a constant is right.
    """
    Y_n, Y_d = lift_targets(y, scale=scale)
    far = chordal_distance(N / scale, D, Y_n, Y_d).square().nan_to_num(1.0).mean()
    # the best constant is the first eigenvector of mean(u uᴴ), what it misses the last eigenvalue
    u = torch.stack((Y_n, Y_d), -1) / norm(Y_n, Y_d)[..., None]
    spread = torch.linalg.eigvalsh(torch.einsum("rki,rkj->kij", u, u.conj()) / len(u))[:, 0].mean()
    return 1 - float(far / spread) if spread > _CONSTANT else None


def doubts(
    caught: Proportion | None, nearest: float, worth: float | None, *, chosen: bool, part: str
) -> Iterator[str]:
    """Say in plain words what is wrong with a trained model.

    Args:
        caught: Proportion of the labelled entries that are answered ⊥.
        nearest: The smallest angle score of a labelled entry.
        worth: The model's `skill`.
        chosen: Whether thresholds were chosen on these rows.
        part: Which rows.
    """
    if caught and caught.share < _CAUGHT:
        count = round((1 - caught.share) * caught.rows)
        if nearest > _FAR:
            why = f"D comes nowhere near 0 on them (angle score {nearest:.2g} at least): {_ADVICE}"
        elif chosen:
            why = "no threshold tells them apart: train longer, or a larger model"
        else:
            why = (
                "tau_infer or score were set, or there are fewer than five labels to choose them by"
            )
        yield (
            f"{count} of {caught.rows} entries labelled ±inf or ⊥ are answered by a number ({part} "
            f"rows); {why}"
        )
    if worth is not None and worth < _SKILL:
        yield (
            f"the model is hardly better than one constant answer, skill {worth:.2f} of 1 ({part} "
            f"rows): {_ADVICE}"
        )
