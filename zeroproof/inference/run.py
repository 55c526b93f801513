"""A fitted network with all that is needed to answer: columns, frame of targets, thresholds."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zeroproof.errors import ShapeError
from zeroproof.inference.module import StrictModule
from zeroproof.inference.strict import InferenceConfig, StrictResult
from zeroproof.layers.mlp import ProjectiveMLP

__all__ = ["Run", "TargetFrame", "predict_rows"]


class TargetFrame(NamedTuple):
    """The unit in which each target is learned: y' = (y - center) / scale, which fixes ⊥ and ±∞."""

    center: tuple[float, ...]
    scale: tuple[float, ...]


class Run(NamedTuple):
    """A fitted model with all that is needed to use it again."""

    model: ProjectiveMLP
    config: InferenceConfig
    frame: TargetFrame
    features: tuple[str, ...]
    targets: tuple[str, ...]
    facts: dict[str, Any]  # diagnosis and how it was fitted: for readers, not needed to predict


def predict_rows(run: Run, X: Tensor) -> StrictResult:
    """Answer rows strictly, in the units of the targets.

    Args:
        run: What `load_run` returned.
        X: `(rows, len(run.features))`; a row that is not finite is ⊥.

    Returns:
        decoded (float64, nan at ⊥), bottom_mask and gap_mask, each `(rows, len(run.targets))`.

    Raises:
        ShapeError: X has another number of columns.
    """
    if X.ndim != 2 or X.shape[1] != len(run.features):
        raise ShapeError(f"X must be (rows, {len(run.features)}), got {tuple(X.shape)}")
    X = X.double()
    standardised = ((X - run.model.x_mean) / run.model.x_std).float()
    X = X.masked_fill(~torch.isfinite(standardised), math.nan)  # beyond the network's own numbers
    module = StrictModule(run.model, config=run.config).eval()
    with torch.no_grad():
        decoded, bottom, gap = module(X)
    center = torch.tensor(run.frame.center, dtype=torch.float64)
    scale = torch.tensor(run.frame.scale, dtype=torch.float64)
    return StrictResult(center + scale * decoded.double(), bottom, gap)
