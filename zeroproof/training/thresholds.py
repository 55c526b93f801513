"""Thresholds drawn anew for every batch, so that no boundary is learned by heart."""

import math

import torch

from zeroproof._checks import in_range, one_of, ordered
from zeroproof.defaults import TAU_TRAIN

__all__ = ["MODES", "perturbed_threshold"]

MODES = ("uniform", "log_uniform")


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
