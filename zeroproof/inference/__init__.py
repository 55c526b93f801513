"""Strict inference: thresholds, decoding with masks, and a module ready to deploy."""

from zeroproof.inference.calibrate import calibrated, choose_thresholds
from zeroproof.inference.module import StrictModule
from zeroproof.inference.strict import InferenceConfig, Reason, StrictResult, strict_inference

__all__ = [
    "InferenceConfig",
    "Reason",
    "StrictModule",
    "StrictResult",
    "calibrated",
    "choose_thresholds",
    "strict_inference",
]
