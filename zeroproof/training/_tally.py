"""Sums over an epoch, gathered on the device and read by the host once in many steps.

A step of a small model takes some hundred microseconds; decoding every batch on its own would cost
as much again.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zeroproof.inference import InferenceConfig, strict_inference
from zeroproof.losses._reduction import finite_rows
from zeroproof.training._forward import Outcome

__all__ = ["Tally", "Totals"]

_ENTRIES = 2**14  # small batches are decoded together, up to this many answers
_READS = 256  # scalars that may wait on the device


class Totals(NamedTuple):
    """Sums of one epoch, over all processes."""

    loss: float  # loss times rows, finite losses alone
    loss_rows: float
    answers: float
    bottoms: float
    gaps: float
    masked_rows: float  # left out by the losses: N or D is not finite

    def means(self, part: str) -> dict[str, float]:
        """Return loss, coverage and gap under the keys of `History`; what has no rows is absent."""
        row: dict[str, float] = {}
        if self.loss_rows > 0:
            row[f"{part}_loss"] = self.loss / self.loss_rows
        if self.answers > 0:
            row[f"{part}_coverage"] = 1 - self.bottoms / self.answers
            row[f"{part}_gap"] = self.gaps / self.answers
        return row


class Tally:
    """Collects the outcomes of one epoch."""

    def __init__(self, config: InferenceConfig) -> None:
        self._config = config
        self._sums = [0.0] * len(Totals._fields)
        self._losses: list[Tensor] = []
        self._rows: list[int] = []
        self._counts: list[Tensor] = []
        self._waiting: list[tuple[Tensor, Tensor]] = []
        self._room = _ENTRIES

    def add(self, outcome: Outcome) -> None:
        """Count one batch."""
        N, D = outcome.N.detach(), outcome.D.detach()
        self._losses.append(outcome.loss.detach())
        self._rows.append(len(N))
        if len(self._losses) >= _READS:
            self._read()
        if self._waiting and self._kind(*self._waiting[0]) != self._kind(N, D):
            self._decode()
        self._room -= N.numel()
        if self._room > 0:
            # cloned, because a compiled model may write its next output into the same memory
            N, D = N.clone(), D.clone()
        self._waiting.append((N, D))
        if self._room <= 0:
            self._decode()

    def totals(self, accelerator: Any) -> Totals:
        """Return the sums so far, over all processes."""
        self._decode()
        self._read()
        if accelerator.num_processes == 1:
            return Totals(*self._sums)
        mine = torch.tensor(self._sums, dtype=torch.float64, device=accelerator.device)
        return Totals(*accelerator.reduce(mine, reduction="sum").tolist())

    @staticmethod
    def _kind(N: Tensor, D: Tensor) -> tuple[Any, ...]:
        return N.shape[1:], D.shape[1:], N.dtype, D.dtype

    @torch.no_grad()
    def _decode(self) -> None:
        if not self._waiting:
            return
        N, D = (torch.cat(parts) for parts in zip(*self._waiting, strict=True))
        result = strict_inference(N, D, self._config)
        masked = ~finite_rows(N, D)  # lifted targets are always finite
        self._counts.append(
            torch.stack([result.bottom_mask.sum(), result.gap_mask.sum(), masked.sum()])
        )
        self._sums[2] += N.numel()
        self._waiting.clear()
        self._room = _ENTRIES

    def _read(self) -> None:
        if self._losses:
            for loss, rows in zip(torch.stack(self._losses).tolist(), self._rows, strict=True):
                if math.isfinite(loss):
                    self._sums[0] += loss * rows
                    self._sums[1] += rows
        if self._counts:
            bottoms, gaps, masked = torch.stack(self._counts).sum(0).tolist()
            self._sums[3] += bottoms
            self._sums[4] += gaps
            self._sums[5] += masked
        self._losses, self._rows, self._counts = [], [], []
