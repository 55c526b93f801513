"""Sums over an epoch and over the steps between two log lines, gathered on the device.

A step of a small model takes some hundred microseconds; decoding every batch on its own would cost
as much again, and reading a number of an accelerator makes the host wait for it.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zeroproof.inference import InferenceConfig, strict_inference
from zeroproof.losses.counting import finite_rows
from zeroproof.training._forward import Outcome

__all__ = ["Tally", "Totals"]

_ENTRIES = 2**14  # small batches are decoded together, up to this many answers
_READS = 2**12  # scalars that may wait on the device


class Totals(NamedTuple):
    """Sums, of this process or of all."""

    loss: float = 0.0  # loss times rows, finite losses alone
    loss_rows: float = 0.0
    answers: float = 0.0
    bottoms: float = 0.0
    gaps: float = 0.0
    masked_rows: float = 0.0  # left out: N or D is not finite, or the row was taken out
    skipped: float = 0.0  # steps
    norms: float = 0.0  # of the gradients before clipping, finite ones alone
    norm_steps: float = 0.0

    def means(self, part: str) -> dict[str, float]:
        """Return loss, coverage and gap under the keys of `History`; what has no rows is absent."""
        row: dict[str, float] = {}
        if self.loss_rows > 0:
            row[f"{part}_loss"] = self.loss / self.loss_rows
        if self.answers > 0:
            row[f"{part}_coverage"] = 1 - self.bottoms / self.answers
            row[f"{part}_gap"] = self.gaps / self.answers
        if self.norm_steps > 0:
            row["grad_norm"] = self.norms / self.norm_steps
        return row

    def since(self, before: "Totals") -> "Totals":
        """Return what came after `before`."""
        return Totals._make(now - then for now, then in zip(self, before, strict=True))


class Tally:
    """Collects the outcomes of one epoch."""

    def __init__(self, config: InferenceConfig) -> None:
        self._config = config
        self._sums = dict.fromkeys(Totals._fields, 0.0)
        self._losses: list[Tensor] = []
        self._rows: list[int] = []
        self._steps: list[Tensor] = []
        self._counts: list[Tensor] = []
        self._waiting: list[Any] = []  # (N, D) of batches of one kind, stacked where they are alike
        self._kind: tuple[Any, ...] = ()
        self._room = _ENTRIES

    def add(self, outcome: Outcome, own: int, *, sound: int | None = None) -> None:
        """Count one batch, of which the first `own` rows count; its loss is over `sound` rows."""
        N, D = outcome.N.detach(), outcome.D.detach()
        if own < len(N):
            N, D = N[:own], D[:own]
        self._losses.append(outcome.loss.detach())
        self._rows.append(own if sound is None else sound)
        if len(self._losses) >= _READS:
            self._read()
        kind = (N.shape[1:], D.shape[1:], N.dtype, D.dtype)
        if kind != self._kind:
            self._decode()
        self._kind = kind
        self._room -= N.numel()
        # copied, because a compiled model may write its next output into the same memory
        alike = N.shape == D.shape and N.dtype == D.dtype
        self._waiting.append(torch.stack((N, D)) if alike else (N.clone(), D.clone()))
        if self._room <= 0:
            self._decode()

    def add_step(self, skipped: bool | Tensor, norm: float | Tensor | None) -> None:
        """Count one optimizer step, with the norm of its gradients before clipping if there is one.

        Tensors wait on their device.
        """
        norm = math.nan if norm is None else norm
        if isinstance(skipped, Tensor):
            skip = skipped.float()
            # filled on the device: it would wait for a number of the host
            size = norm.float() if isinstance(norm, Tensor) else torch.full_like(skip, norm)
            self._steps.append(torch.stack([skip, size]))
        else:
            self._count_step(skipped, float(norm))

    def here(self) -> Totals:
        """Return the sums of this process so far; the host waits for the device."""
        self._decode()
        self._read()
        return Totals(**self._sums)

    def totals(self, accelerator: Any) -> Totals:
        """Return the sums so far, over all processes; steps are the same on each."""
        mine = self.here()
        if accelerator.num_processes == 1:
            return mine
        sums = torch.tensor(mine[:6], dtype=torch.float64, device=accelerator.device)
        return Totals._make([*accelerator.reduce(sums, reduction="sum").tolist(), *mine[6:]])

    def restore(self, sums: Totals) -> None:
        """Go on from the sums of an epoch that was interrupted."""
        self._sums = sums._asdict()

    @torch.no_grad()
    def _decode(self) -> None:
        if not self._waiting:
            return
        if isinstance(self._waiting[0], Tensor):
            N, D = torch.cat(self._waiting, 1)
        else:
            N, D = (torch.cat(parts) for parts in zip(*self._waiting, strict=True))
        result = strict_inference(N, D, self._config)
        masked = ~finite_rows(N, D)  # lifted targets are always finite
        self._counts.append(
            torch.stack([result.bottom_mask.sum(), result.gap_mask.sum(), masked.sum()])
        )
        self._sums["answers"] += N.numel()
        self._waiting.clear()
        self._room = _ENTRIES

    def _read(self) -> None:
        sums = self._sums
        if self._losses:
            for loss, rows in zip(torch.stack(self._losses).tolist(), self._rows, strict=True):
                if math.isfinite(loss):
                    sums["loss"] += loss * rows
                    sums["loss_rows"] += rows
        if self._counts:
            bottoms, gaps, masked = torch.stack(self._counts).sum(0).tolist()
            sums["bottoms"] += bottoms
            sums["gaps"] += gaps
            sums["masked_rows"] += masked
        for step in torch.stack(self._steps).tolist() if self._steps else ():
            self._count_step(*step)
        self._losses, self._rows, self._counts, self._steps = [], [], [], []

    def _count_step(self, skipped: float, norm: float) -> None:
        self._sums["skipped"] += skipped
        if math.isfinite(norm):
            self._sums["norms"] += norm
            self._sums["norm_steps"] += 1
