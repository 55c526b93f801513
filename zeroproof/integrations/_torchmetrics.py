"""torchmetrics itself, and a metric that is a share."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from zeroproof import metrics
from zeroproof._extras import require
from zeroproof.inference import InferenceConfig
from zeroproof.inference.strict import checked_config

if TYPE_CHECKING:
    from torchmetrics import Metric
else:
    Metric = require("torchmetrics", extra="torchmetrics").Metric

__all__ = ["DecodedShare", "Metric", "ShareMetric", "add_sums"]


def add_sums(metric: Metric, zeros: Mapping[str, float], options: Mapping[str, Any]) -> None:
    """Give a metric its states: sums over batches and ranks.

    A `MetricCollection` takes metrics for one, and updates the first alone, if their states have
    equal names and after the first batch equal values, as those of two thresholds nearly always
    have. One more state, always 0, is named after the metric and its options.
    """
    mark = f"{type(metric).__module__}.{type(metric).__qualname__}({dict(options)})"
    for name, zero in {**zeros, mark: 0}.items():
        metric.add_state(name, torch.tensor(zero), dist_reduce_fx="sum")


class ShareMetric(Metric):
    """Hits among entries, added up over batches and ranks."""

    full_state_update = False

    def __init__(self, counting: Mapping[str, Any], **options: Any) -> None:
        super().__init__(**options)
        add_sums(self, dict.fromkeys(metrics.Share._fields, 0), counting)

    def add(self, share: metrics.Share) -> None:
        """Add a batch."""
        self.hits, self.entries = self.hits + share.hits, self.entries + share.entries

    def compute(self) -> Tensor:
        """Return hits / entries, a scalar; nan as long as nothing was counted."""
        return metrics.rate(metrics.Share(self.hits, self.entries))


class DecodedShare(ShareMetric):
    """A share of decoded answers."""

    def __init__(self, config: InferenceConfig | None = None, **options: Any) -> None:
        config = checked_config(config)
        super().__init__({"config": config}, **options)
        self.config = config
