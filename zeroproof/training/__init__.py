"""Training: targets, thresholds, the combined loss, and the reference trainer."""

from zeroproof.training.adaptive import AdaptiveCoverageScheduler
from zeroproof.training.config import TrainingConfig
from zeroproof.training.history import History
from zeroproof.training.loss import SCMTrainingLoss
from zeroproof.training.readout import HeadReadout, SpectralReadoutCallback, head_readout
from zeroproof.training.stopping import coverage_stalled
from zeroproof.training.targets import lift_targets
from zeroproof.training.thresholds import perturbed_threshold
from zeroproof.training.trainer import SCMTrainer
from zeroproof.training.trunk import TrunkFit, TrunkOptions, default_trunk, fit_trunk

__all__ = [
    "AdaptiveCoverageScheduler",
    "HeadReadout",
    "History",
    "SCMTrainer",
    "SCMTrainingLoss",
    "SpectralReadoutCallback",
    "TrainingConfig",
    "TrunkFit",
    "TrunkOptions",
    "coverage_stalled",
    "default_trunk",
    "fit_trunk",
    "head_readout",
    "lift_targets",
    "perturbed_threshold",
]
