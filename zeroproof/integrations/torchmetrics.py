"""Metrics of strict answers for torchmetrics: sums and counts that add up over batches and ranks.

A value is nan as long as nothing was counted for it.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from zeroproof import metrics
from zeroproof._checks import one_of
from zeroproof._extras import require
from zeroproof.inference import InferenceConfig, strict_inference
from zeroproof.inference.strict import checked_config

if TYPE_CHECKING:
    from torchmetrics import Metric
else:
    Metric = require("torchmetrics", extra="torchmetrics").Metric

__all__ = ["Coverage", "GapRate", "SelectiveRisk", "SignAccuracyAtPole"]


def _add_sums(metric: Metric, zeros: Mapping[str, float], options: Mapping[str, Any]) -> None:
    """Give a metric its states: sums over batches and ranks.

    A `MetricCollection` takes metrics for one, and updates the first alone, if their states have
    equal names and after the first batch equal values, as those of two thresholds nearly always
    have. One more state, always 0, is named after the metric and its options.
    """
    mark = f"{type(metric).__module__}.{type(metric).__qualname__}({dict(options)})"
    for name, zero in {**zeros, mark: 0}.items():
        metric.add_state(name, torch.tensor(zero), dist_reduce_fx="sum")


class _ShareMetric(Metric):
    """Hits among entries, added up over batches and ranks."""

    full_state_update = False

    def __init__(self, counting: Mapping[str, Any], **options: Any) -> None:
        super().__init__(**options)
        _add_sums(self, dict.fromkeys(metrics.Share._fields, 0), counting)

    def add(self, share: metrics.Share) -> None:
        """Add a batch."""
        self.hits, self.entries = self.hits + share.hits, self.entries + share.entries

    def compute(self) -> Tensor:
        """Return hits / entries, a scalar; nan as long as nothing was counted."""
        return metrics.rate(metrics.Share(self.hits, self.entries))


class _DecodedShare(_ShareMetric):
    """A share of decoded answers."""

    def __init__(self, config: InferenceConfig | None = None, **options: Any) -> None:
        config = checked_config(config)
        super().__init__({"config": config}, **options)
        self.config = config


class Coverage(_DecodedShare):
    """Share of answers that are finite at τ_infer: `update(N, D)`. See `coverage_share`."""

    def update(self, N: Tensor, D: Tensor) -> None:
        """Count the answers of a batch; shapes and errors as `strict_inference`."""
        self.add(metrics.coverage_share(strict_inference(N, D, self.config).bottom_mask))


class GapRate(_DecodedShare):
    """Share of answers in the gap, of all answers: `update(N, D)`. See `gap_share`."""

    def update(self, N: Tensor, D: Tensor) -> None:
        """Count the answers of a batch; shapes and errors as `strict_inference`."""
        self.add(metrics.gap_share(strict_inference(N, D, self.config).gap_mask))


class SignAccuracyAtPole(_ShareMetric):
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
        _add_sums(self, zeros, {"config": self.config, "error": error, "accept_gap": accept_gap})

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
