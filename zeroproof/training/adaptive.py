"""A target coverage that grows while training goes on."""

from dataclasses import dataclass

from zeroproof._checks import in_range, ordered, whole
from zeroproof.defaults import TARGET_COVERAGE

__all__ = ["AdaptiveCoverageScheduler"]


@dataclass(frozen=True)
class AdaptiveCoverageScheduler:
    """Raise the target coverage in a straight line over the first epochs, then keep it.

    It holds no state: the same epoch always gives the same target, also after a run is resumed.

    Args:
        initial_coverage: Target at epoch 0, in [0, 1].
        target_coverage: Target from epoch `warmup_epochs` on, not below the initial one.
        warmup_epochs: Length of the rise; 0 gives the final target at once.

    Raises:
        RangeError: A coverage outside [0, 1], the two in the wrong order, or a length that is no
            whole number.

    Examples:
        >>> scheduler = AdaptiveCoverageScheduler(0.5, target_coverage=1.0, warmup_epochs=4)
        >>> [scheduler.step(epoch) for epoch in range(6)]
        [0.5, 0.625, 0.75, 0.875, 1.0, 1.0]
    """

    initial_coverage: float = 0.80
    target_coverage: float = TARGET_COVERAGE.value
    warmup_epochs: int = 20

    def __post_init__(self) -> None:
        in_range(self.initial_coverage, TARGET_COVERAGE, name="initial_coverage")
        in_range(self.target_coverage, TARGET_COVERAGE)
        ordered(self.initial_coverage, self.target_coverage, "initial_coverage", "target_coverage")
        whole(self.warmup_epochs, "warmup_epochs")

    def step(self, epoch: int) -> float:
        """Return the target coverage of an epoch, counted from 0.

        Raises:
            RangeError: `epoch` is not a whole number of at least 0.
        """
        if whole(epoch, "epoch") >= self.warmup_epochs:
            return float(self.target_coverage)
        rise = self.target_coverage - self.initial_coverage
        return self.initial_coverage + rise * (epoch / self.warmup_epochs)
