"""Coverage, the share of finite answers: counted, softened to have a gradient, and asked for.

No gradient policy acts here: under REJECT this is what a model still learns from.
"""

import torch
from torch import Tensor

from zeroproof._checks import in_range, positive, widen
from zeroproof.defaults import TARGET_COVERAGE, TAU_TRAIN, TEMPERATURE
from zeroproof.errors import RangeError, ShapeError
from zeroproof.losses.gradients import LossRecipe, covered

__all__ = ["coverage", "rejection_loss", "soft_coverage"]


def coverage(bottom_mask: Tensor) -> Tensor:
    """Share of entries that are not ⊥, a scalar in [0, 1] without a gradient; 1 for no entry.

    Args:
        bottom_mask: True at ⊥, any shape; `strict_inference` gives one.

    Examples:
        >>> coverage(torch.tensor([False, False, False, True]))
        tensor(0.7500)
    """
    answered = bottom_mask.logical_not().to(torch.get_default_dtype())
    return answered.mean() if answered.numel() else answered.new_ones(())


def soft_coverage(score: Tensor, tau: float, temperature: float = TEMPERATURE.value) -> Tensor:
    """Coverage with a gradient: mean(σ((score - τ) / T)), the coverage at τ in the limit T → 0.

    Args:
        score: Scores of any shape, as `projective.denominator_score` gives them. One that is not
            finite decodes to ⊥ and counts as not covered.
        tau: τ, above 0, in the units of the score.
        temperature: T, in the units of the score.

    Returns:
        Scalar `()` in [0, 1], in at least float32.

    Raises:
        RangeError: τ or T is not a finite number above 0, or the score is complex.

    Examples:
        >>> soft_coverage(torch.tensor([1.0, 0.5, 1e-4, 0.0]), tau=1e-4, temperature=1e-5)
        tensor(0.6250)
    """
    in_range(tau, TAU_TRAIN, name="tau")
    positive(temperature, "temperature")
    _real(score, "score")
    return covered(widen(score), LossRecipe((0.0, 0.0, 0.0, 1.0), tau=tau, temperature=temperature))


def rejection_loss(
    coverage: Tensor | float, target_coverage: float = TARGET_COVERAGE.value
) -> Tensor:
    """Penalise coverage below its target: max(0, target_coverage - coverage)².

    A coverage that was counted carries no gradient; feed `soft_coverage` to learn from it.

    Args:
        coverage: One number in [0, 1].
        target_coverage: The share of finite answers asked for, in [0, 1].

    Returns:
        Scalar `()`.

    Raises:
        ShapeError: `coverage` is not one number (a mask, for instance).
        RangeError: A number outside [0, 1] (a tensor's value is not looked at), or a complex one.

    Examples:
        >>> rejection_loss(torch.tensor(0.75), target_coverage=0.95)
        tensor(0.0400)
    """
    in_range(target_coverage, TARGET_COVERAGE)
    if not isinstance(coverage, Tensor):
        coverage = torch.tensor(float(in_range(coverage, TARGET_COVERAGE, name="coverage")))
    if coverage.numel() != 1:
        raise ShapeError(f"coverage must be one number, got the shape {tuple(coverage.shape)}")
    _real(coverage, "coverage")
    return (target_coverage - widen(coverage).reshape(())).relu().square()


def _real(x: Tensor, name: str) -> None:
    if x.is_complex():
        raise RangeError(f"{name} must be real, got {x.dtype}")
