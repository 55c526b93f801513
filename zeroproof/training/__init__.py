"""Training: targets, thresholds, the combined loss, and the reference trainer."""

from zeroproof.autodiff.sound import SoundRows
from zeroproof.training.adaptive import AdaptiveCoverageScheduler, CoverageController
from zeroproof.training.checkpoint import (
    find_checkpoint,
    list_checkpoints,
    load_checkpoint,
    load_weights,
    save_checkpoint,
)
from zeroproof.training.config import Callback, TrainingConfig
from zeroproof.training.loss import SCMTrainingLoss
from zeroproof.training.progress import coverage_stalled
from zeroproof.training.readout import HeadReadout, SpectralReadoutCallback, head_readout
from zeroproof.training.report import History
from zeroproof.training.sampler import AdaptiveSampler, AdaptiveSampling, score_of_targets
from zeroproof.training.success import Proportion, can_reach_zero
from zeroproof.training.targets import lift_targets
from zeroproof.training.thresholds import ThresholdLog, perturbed_threshold
from zeroproof.training.trainer import SCMTrainer
from zeroproof.training.trunk import TrunkFit, TrunkOptions, default_trunk, fit_trunk

__all__ = [
    "AdaptiveCoverageScheduler",
    "AdaptiveSampler",
    "AdaptiveSampling",
    "Callback",
    "CoverageController",
    "HeadReadout",
    "History",
    "Proportion",
    "SCMTrainer",
    "SCMTrainingLoss",
    "SoundRows",
    "SpectralReadoutCallback",
    "ThresholdLog",
    "TrainingConfig",
    "TrunkFit",
    "TrunkOptions",
    "can_reach_zero",
    "coverage_stalled",
    "default_trunk",
    "find_checkpoint",
    "fit_trunk",
    "head_readout",
    "lift_targets",
    "list_checkpoints",
    "load_checkpoint",
    "load_weights",
    "perturbed_threshold",
    "save_checkpoint",
    "score_of_targets",
]
