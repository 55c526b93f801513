"""torchmetrics itself, and a metric that is a share."""

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

__all__ = ["DecodedShare", "Metric", "ShareMetric"]


class ShareMetric(Metric):
    """Hits among entries, added up over batches and ranks."""

    full_state_update = False

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        for name in metrics.Share._fields:
            self.add_state(name, torch.tensor(0), dist_reduce_fx="sum")

    def add(self, share: metrics.Share) -> None:
        """Add a batch."""
        self.hits, self.entries = self.hits + share.hits, self.entries + share.entries

    def compute(self) -> Tensor:
        """Return hits / entries, a scalar; nan as long as nothing was counted."""
        return metrics.rate(metrics.Share(self.hits, self.entries))


class DecodedShare(ShareMetric):
    """A share of decoded answers."""

    def __init__(self, config: InferenceConfig | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.config = checked_config(config)
