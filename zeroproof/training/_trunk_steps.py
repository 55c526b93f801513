"""The steps of a trunk's training: joint with its head, or with the head solved for in each."""

import math
import time
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from zeroproof.layers.head import ProjectiveHead
from zeroproof.projective.angle import cross, norm, squared
from zeroproof.training._head import head_weights, resolved_head, set_head, with_ones

__all__ = ["Clock", "Settings", "Table", "train"]

_RATES = {"joint": 1e-2, "varpro": 3e-3}
_LAST_RATE = 1e-3  # of the cosine schedule, as a share of the first
_ROWS_PER_WEIGHT = 8  # in a batch that a head is solved on, or else it fits the batch alone
_FIRST_SWEEPS = 20  # of the head, whose start is random
_RHO_PER_ERROR = 1e-2  # smaller: the head uses directions that the next step takes away
_LEAST_RHO = 1e-10
_MEMORY = 0.9  # of the running mean of the error
_EARLY = 0.1  # share of the time up to which steps alone count


class Settings(NamedTuple):
    """`TrunkOptions` with their defaults."""

    steps: int = 2000
    time_budget: float | None = None
    batch_size: int = 1024
    learning_rate: float | None = None
    held: Tensor | None = None
    weight: Tensor | None = None
    seed: int = 0


class Table(NamedTuple):
    """Rows to train on: inputs, tuples of unit size `(n, m)`, weights `(n, 1)`."""

    x: Tensor
    Y_n: Tensor
    Y_d: Tensor
    weight: Tensor

    def cut(self, rows: Tensor) -> "Table":
        """Return the rows `rows`."""
        return Table(*(part[rows] for part in self))


class Clock:
    """How much of the steps, or of the time, is spent."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._start, self.steps = settings, time.process_time(), 0

    def spent(self) -> float:
        """Return the share that is spent, 1 at the end."""
        by_steps = self.steps / self._settings.steps
        if self._settings.time_budget is None:
            return by_steps
        by_time = (time.process_time() - self._start) / self._settings.time_budget
        # before the first steps are made time is always ahead, and rates would differ between runs
        return max(by_steps, by_time) if by_time > _EARLY else by_steps


def train(
    trunk: nn.Module,
    head: ProjectiveHead,
    table: Table,
    method: str,
    limits: tuple[Clock, float, Settings],
) -> None:
    """Make steps of one method until the share `end` of the clock is spent."""
    clock, end, settings = limits
    joint, begin, error = method == "joint", clock.spent(), 1.0
    head.requires_grad_(joint)
    weights = [p for p in (*trunk.parameters(), *head.parameters()) if p.requires_grad]
    if not weights:
        return
    rate = settings.learning_rate or _RATES[method]
    optimizer = torch.optim.Adam(weights, lr=rate)
    unknowns = head.in_features * (head.out_features + 1)
    size = settings.batch_size if joint else max(settings.batch_size, _ROWS_PER_WEIGHT * unknowns)
    for part in _batches(table, size):
        spent = clock.spent()
        if spent >= end:
            break
        share = (spent - begin) / (end - begin)
        optimizer.param_groups[0]["lr"] = rate * max(
            (1 + math.cos(math.pi * share)) / 2, _LAST_RATE
        )
        h = trunk(part.x)
        if not joint:
            _resolve(head, h.detach(), part, error, first=error == 1)
        mean = _chordal(head, h, part)
        loss = mean if joint else mean.clamp_min(torch.finfo(mean.dtype).tiny).log()
        optimizer.zero_grad()
        loss.backward()
        if torch.isfinite(nn.utils.clip_grad_norm_(weights, 1.0)):
            optimizer.step()
            error = _MEMORY * error + (1 - _MEMORY) * mean.item()
        clock.steps += 1


def _batches(table: Table, size: int) -> Iterator[Table]:
    rows = len(table.x)
    while size >= rows:
        yield table
    while True:
        order = torch.randperm(rows).to(table.x.device)
        for start in range(0, rows - size + 1, size):
            yield table.cut(order[start : start + size])


def _resolve(head: ProjectiveHead, h: Tensor, part: Table, error: float, *, first: bool) -> None:
    wide = torch.complex128 if part.Y_n.is_complex() else torch.float64
    a, b = head_weights(head)
    pair = a.to(wide), b.to(wide)
    rows = (with_ones(h).to(wide), part.Y_n.to(wide), part.Y_d.to(wide), part.weight.double())
    for _ in range(_FIRST_SWEEPS if first else 1):
        pair = resolved_head(pair, *rows, rho=max(_RHO_PER_ERROR * error, _LEAST_RHO))
    set_head(head, *pair)


def _chordal(head: ProjectiveHead, h: Tensor, part: Table) -> Tensor:
    N, D = head(h)
    square = squared(cross(N, D, part.Y_n, part.Y_d) / norm(N, D)).mean(1, keepdim=True)
    return (part.weight * square).sum() / part.weight.sum()
