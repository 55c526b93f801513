"""Strict inference: thresholds, decoding with masks, and a module ready to deploy."""

from zeroproof.inference.calibrate import calibrated, choose_thresholds
from zeroproof.inference.module import StrictModule
from zeroproof.inference.status import Status
from zeroproof.inference.strict import InferenceConfig, StrictResult, strict_inference

Reason = Status  # its name where only ⊥ is asked about

__all__ = [
    "InferenceConfig",
    "Reason",
    "Status",
    "StrictModule",
    "StrictResult",
    "calibrated",
    "choose_thresholds",
    "strict_inference",
]
