"""Metrics of strict answers for torchmetrics: sums and counts that add up over batches and ranks.

A value is nan as long as nothing was counted for it.
"""

import math
from typing import Any

import torch
from torch import Tensor

from zeroproof import metrics
from zeroproof._checks import one_of
from zeroproof.inference import InferenceConfig, strict_inference
from zeroproof.inference.strict import checked_config
from zeroproof.integrations._torchmetrics import DecodedShare, Metric, ShareMetric, add_sums

__all__ = ["Coverage", "GapRate", "SelectiveRisk", "SignAccuracyAtPole"]


class Coverage(DecodedShare):
    """Share of answers that are finite at τ_infer: `update(N, D)`. See `coverage_share`."""

    def update(self, N: Tensor, D: Tensor) -> None:
        """Count the answers of a batch; shapes and errors as `strict_inference`."""
        self.add(metrics.coverage_share(strict_inference(N, D, self.config).bottom_mask))


class GapRate(DecodedShare):
    """Share of answers in the gap, of all answers: `update(N, D)`. See `gap_share`."""

    def update(self, N: Tensor, D: Tensor) -> None:
        """Count the answers of a batch; shapes and errors as `strict_inference`."""
        self.add(metrics.gap_share(strict_inference(N, D, self.config).gap_mask))


class SignAccuracyAtPole(ShareMetric):
    """Share of targets at a pole whose tuple lies on their side: `update(N, D, y)`.

    See `sign_share` for `bound` and `topology`. Decoding plays no part.
    """

    def __init__(
        self, *, bound: float = math.inf, topology: str = "affine", **options: Any
    ) -> None:
        super().__init__({"bound": bound, "topology": topology}, **options)
        self.options: dict[str, Any] = {"bound": bound, "topology": topology}
        metrics.sign_share(*torch.empty(3, 0), **self.options)  # refuses them now

    def update(self, N: Tensor, D: Tensor, y: Tensor) -> None:
        """Count the targets of a batch; shapes and errors as `sign_share`."""
        self.add(metrics.sign_share(N, D, y, **self.options))


class SelectiveRisk(Metric):
    """Mean error of accepted answers with finite targets: `update(N, D, y)`.

    `compute` returns a dict: `risk`, and `coverage`, the share of measurable targets with an
    accepted answer, without which a risk says little. y is in the units of N / D. See
    `selective_risk` for `error`; answers in the gap are accepted unless `accept_gap=False`.
    """

    full_state_update = False

    def __init__(
        self,
        config: InferenceConfig | None = None,
        *,
        error: str = "squared",
        accept_gap: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.config, self.accept_gap = checked_config(config), accept_gap
        self.error = one_of(error, metrics.ERRORS, "error")
        zeros = dict(zip(metrics.Risk._fields, (0.0, 0, 0), strict=True))
        add_sums(self, zeros, {"config": self.config, "error": error, "accept_gap": accept_gap})

    def update(self, N: Tensor, D: Tensor, y: Tensor) -> None:
        """Add the errors of a batch; shapes and errors as `strict_inference`, y as N."""
        decoded, bottom, gap = strict_inference(N.detach(), D.detach(), self.config)
        accepted = ~bottom if self.accept_gap else ~(bottom | gap)
        risk = metrics.selective_risk(decoded, y, accepted, error=self.error)
        self.total += risk.total  # in place: the type of the state is that of every rank
        self.accepted, self.measurable = (
            self.accepted + risk.accepted,
            self.measurable + risk.measurable,
        )

    def compute(self) -> dict[str, Tensor]:
        """Return `risk` and `coverage`, scalars."""
        risk, coverage = metrics.mean_risk(metrics.Risk(self.total, self.accepted, self.measurable))
        return {"risk": risk, "coverage": coverage}
