"""When a run is over, and which of its epochs was the best."""

from typing import Any

from torch import nn

from zeroproof._extras import require
from zeroproof.training._keeping import Best
from zeroproof.training._progress import Progress
from zeroproof.training.config import TrainingConfig
from zeroproof.training.stopping import coverage_stalled

__all__ = ["Judge"]

# reasons that follow from options, which may be others by now
_LIMITS = {None, "max_epochs", "max_steps", "coverage", "loss"}


class Judge:
    """Watches the validation values, or those of training where there are no others.

    Args:
        config: Limits and patience.
        progress: How far the run has come.
        best: Where the best epoch is kept.
        part: `"val"` or `"train"`.
    """

    def __init__(self, config: TrainingConfig, progress: Progress, best: Best, part: str) -> None:
        self._config, self._progress, self._best, self._part = config, progress, best, part

    @property
    def loss(self) -> float | None:
        """The loss of the latest epoch, if one is known."""
        return self._progress.row.get(f"{self._part}_loss")

    def offer(self, model: nn.Module) -> None:
        """Keep the weights of the latest epoch if it is the best so far."""
        config = self._config
        if self.loss is None or not (config.keep_best or config.loss_patience):
            return
        coverage = self._progress.row.get(f"{self._part}_coverage", 0.0)
        self._best.offer(
            model if config.keep_best else None,
            self.loss,
            self._progress.epoch,
            covered=coverage >= config.coverage_threshold,
        )

    def steps_are_over(self) -> bool:
        """Tell whether `max_steps` is reached."""
        limit = self._config.max_steps
        return limit is not None and self._progress.step >= limit

    def verdict(self, accelerator: Any) -> str | None:
        """Return why the run is over after an epoch: what a callback of any process wished, first.

        All processes have to call.
        """
        wishes = [self._progress.wish]
        if accelerator.num_processes > 1:
            wishes = require("accelerate.utils", extra="train").gather_object(wishes)
        return next(filter(None, wishes), None) or self.reason()

    def reason(self) -> str | None:
        """Return why the run is over after an epoch, `None` if it is not."""
        config, history = self._config, self._progress.history
        if self.steps_are_over():
            return "max_steps"
        patience = config.coverage_patience
        coverages = [x for row in history if (x := row.get(f"{self._part}_coverage")) is not None]
        # a coverage that is where a schedule wants it does not stagnate
        enough = min(config.coverage_threshold, self._progress.row.get("target_coverage", 1.0))
        if coverages and coverage_stalled(coverages, enough, patience):
            return "coverage"
        since = len(history) - 1 - (self._best.epoch or 0)
        if config.loss_patience is not None and since >= config.loss_patience:
            return "loss"
        return "max_epochs" if len(history) >= config.max_epochs else None

    def reason_before(self) -> str | None:
        """Return why a run that is resumed was over already."""
        if self._progress.running or not self._progress.history:
            return None
        before = self._progress.reason
        return self.reason() if before in _LIMITS else before
