"""Losses of homogeneous tuples, and of coverage."""

from zeroproof.losses.coverage import rejection_loss, soft_coverage
from zeroproof.losses.gradients import Parts, mixed_rows
from zeroproof.losses.implicit import implicit_loss
from zeroproof.losses.margin import margin_loss
from zeroproof.losses.sign import sign_consistency_loss

__all__ = [
    "Parts",
    "implicit_loss",
    "margin_loss",
    "mixed_rows",
    "rejection_loss",
    "sign_consistency_loss",
    "soft_coverage",
]
