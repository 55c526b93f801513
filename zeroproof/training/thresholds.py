"""Thresholds drawn anew for every batch, so that no boundary is learned by heart."""

import math
from collections.abc import Mapping
from typing import Any

import torch

from zeroproof._checks import in_range, one_of, ordered
from zeroproof.defaults import TAU_TRAIN

__all__ = ["MODES", "ThresholdLog", "perturbed_threshold"]

MODES = ("uniform", "log_uniform")
_BINS = 32


def perturbed_threshold(
    tau_train_min: float,
    tau_train_max: float,
    mode: str = "uniform",
    *,
    generator: torch.Generator | None = None,
) -> float:
    """Draw τ_train from [tau_train_min, tau_train_max].

    Args:
        tau_train_min: Lower end, above 0.
        tau_train_max: Upper end. Where both are equal, nothing is drawn and that number is
            returned.
        mode: `"uniform"`, or `"log_uniform"` for a logarithm that is uniform.
        generator: Source of randomness, torch's global one by default. Same seed, same thresholds.

    Returns:
        A Python float.

    Raises:
        RangeError: An end is not a finite number above 0, they are in the wrong order, or the mode
            is unknown.

    Examples:
        >>> 1e-4 <= perturbed_threshold(1e-4, 2e-4, mode="log_uniform") <= 2e-4
        True
    """
    low = float(in_range(tau_train_min, TAU_TRAIN, name="tau_train_min"))
    high = float(in_range(tau_train_max, TAU_TRAIN, name="tau_train_max"))
    ordered(low, high, "tau_train_min", "tau_train_max")
    one_of(mode, MODES, "mode")
    if low == high:
        return low
    device = "cpu" if generator is None else generator.device
    share = float(torch.rand((), dtype=torch.float64, generator=generator, device=device))
    if mode == "uniform":
        tau = low + share * (high - low)
    else:
        tau = math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
    return min(max(tau, low), high)  # rounding may step outside


class ThresholdLog:
    """The distribution of the thresholds drawn: counts in equal bins of log τ, in constant memory.

    Args:
        low: Smallest τ that can be drawn, above 0.
        high: Largest.

    Attributes:
        counts: How many fell into each of 32 bins; all are in the first where low equals high.
        edges: The 33 ends of those bins.

    Examples:
        >>> log = ThresholdLog(1e-4, 1e-2)
        >>> log.add(1e-3)
        >>> log.summary()["tau_train_mean"]
        0.001
    """

    def __init__(self, low: float, high: float) -> None:
        self._low, self._span = math.log(low), math.log(high) - math.log(low)
        self.edges = [math.exp(self._low + self._span * i / _BINS) for i in range(_BINS + 1)]
        self.clear()

    def clear(self) -> None:
        """Forget all."""
        self.counts = [0] * _BINS
        self._total = self._squares = 0.0
        self._least, self._largest = math.inf, -math.inf

    def add(self, tau: float) -> None:
        """Count one threshold."""
        place = int((math.log(tau) - self._low) / self._span * _BINS) if self._span else 0
        self.counts[min(max(place, 0), _BINS - 1)] += 1
        self._total += tau
        self._squares += tau * tau
        self._least, self._largest = min(self._least, tau), max(self._largest, tau)

    def summary(self) -> dict[str, float]:
        """Return mean, standard deviation, minimum and maximum by their names in `History`.

        Where τ_train is not drawn, the mean alone; nothing where none was counted.
        """
        count = sum(self.counts)
        if not count:
            return {}
        mean = self._total / count
        if not self._span:
            return {"tau_train_mean": self._largest}
        return {
            "tau_train_mean": mean,
            "tau_train_std": math.sqrt(max(self._squares / count - mean * mean, 0.0)),
            "tau_train_min": self._least,
            "tau_train_max": self._largest,
        }

    def state_dict(self) -> dict[str, Any]:
        """Return all counts, as numbers."""
        return {
            "counts": list(self.counts),
            "sums": [self._total, self._squares],
            "ends": [self._least, self._largest],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Set what `state_dict` returned."""
        self.counts = list(state["counts"])
        self._total, self._squares = state["sums"]
        self._least, self._largest = state["ends"]
