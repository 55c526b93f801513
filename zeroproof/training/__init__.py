"""Training: targets, thresholds, the combined loss, and the reference trainer."""

from zeroproof.training.adaptive import AdaptiveCoverageScheduler
from zeroproof.training.config import TrainingConfig
from zeroproof.training.history import History
from zeroproof.training.loss import SCMTrainingLoss
from zeroproof.training.stopping import coverage_stalled
from zeroproof.training.targets import lift_targets
from zeroproof.training.thresholds import perturbed_threshold
from zeroproof.training.trainer import SCMTrainer

__all__ = [
    "AdaptiveCoverageScheduler",
    "History",
    "SCMTrainer",
    "SCMTrainingLoss",
    "TrainingConfig",
    "coverage_stalled",
    "lift_targets",
    "perturbed_threshold",
]
