"""Whether a model can answer ⊥ at all, and what it is worth once trained: on labelled rows."""

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from zeroproof.autodiff import GradientPolicy, gradient_policy
from zeroproof.autodiff.rewind import in_mode
from zeroproof.defaults import TAU_INFER
from zeroproof.projective.angle import chordal_distance, norm
from zeroproof.scm import SCM
from zeroproof.training.loaders import Source, from_all, widened
from zeroproof.training.step import as_pair
from zeroproof.training.targets import lift_targets

__all__ = ["Proportion", "answers", "can_reach_zero", "doubts", "skill"]

_ROWS = 2**13  # the median is good to two per cent
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


def can_reach_zero(
    model: nn.Module,
    singular: Tensor,
    args: Sequence[Any],
    named: Mapping[str, Any] | None = None,
    *,
    tau: float = TAU_INFER.value,
) -> bool:
    r"""Tell whether some denominator of rows labelled ⊥ or ±inf can be led to 0.

    A copy of the model, in evaluation mode, takes 100 steps of L-BFGS on the mean of \|D\|² over
    these rows. D reaches 0 where it comes below τ, changes its sign or, if complex, falls to a
    thousandth. D = 1 + softplus does not; D = exp does, since it comes below any τ. The model
    itself stays as it is; derivatives are taken as they are, whatever policy is in force.

    Args:
        model: Returns (N, D), called as `model(*args, **named)`.
        singular: True where the target is singular, the shape of N; if nowhere, the answer is True.
        args: Inputs, as in training.
        named: Inputs by keyword.
        tau: τ_infer, compared with \|D\|.

    Examples:
        >>> from zeroproof.layers import ProjectiveMLP
        >>> x = torch.linspace(-1, 1, 8)[:, None]
        >>> can_reach_zero(ProjectiveMLP(1, 1, hidden=(8,)), x > 0.5, [x])
        True
    """
    probe = copy.deepcopy(model).eval()

    def denominators() -> Tensor:
        N, D = as_pair(probe(*args, **(named or {})))
        at = singular.expand(N.shape)
        return D[at if D.shape == N.shape else at.any(-1, keepdim=True)]

    # a model may answer derivatives: as they are from the start, or REJECT would make a D of 0
    with torch.enable_grad(), gradient_policy(GradientPolicy.PASSTHROUGH):
        start = denominators()
    before, reached = start.detach(), [_reached(start.detach(), start.detach(), tau)]
    if not start.numel() or not start.requires_grad:  # nothing to reach, or nothing that learns
        return not start.numel() or reached[0]
    size = before.abs().square().mean().clamp_min(torch.finfo(before.dtype).tiny)
    optimizer = torch.optim.LBFGS(
        [p for p in probe.parameters() if p.requires_grad],
        max_iter=100,
        tolerance_grad=0,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        D = denominators()
        reached.append(_reached(D.detach(), before, tau))
        loss = D.abs().square().mean() / size
        loss.backward()
        return loss

    if not reached[0]:
        with torch.enable_grad(), gradient_policy(GradientPolicy.PASSTHROUGH):
            optimizer.step(closure)
    return any(reached)


def _reached(D: Tensor, before: Tensor, tau: float) -> bool:
    # complex numbers pass 0 by: what falls to a thousandth is on its way
    crossed = D.abs() < 1e-3 * before.abs() if D.is_complex() else D * before < 0
    return bool((crossed | (D.abs() < tau)).any())


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
    N, D, y = (torch.cat(from_all([z.cpu()], accelerator)) for z in columns)
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
