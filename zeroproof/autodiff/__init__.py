"""Gradient policies: what backward does at an operation that can make ⊥."""

from zeroproof.autodiff.policies import (
    GradientPolicy,
    active_policy,
    gradient_policy,
    register_policy,
)
from zeroproof.autodiff.trace import trace_bottom

__all__ = ["GradientPolicy", "active_policy", "gradient_policy", "register_policy", "trace_bottom"]
