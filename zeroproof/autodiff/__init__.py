"""Gradient policies: what backward does at an operation that can make ⊥."""

from zeroproof.autodiff.policies import (
    GradientPolicy,
    active_policy,
    gradient_policy,
    register_policy,
)

__all__ = ["GradientPolicy", "active_policy", "gradient_policy", "register_policy"]
