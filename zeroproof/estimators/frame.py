"""The unit in which targets are learned: medians, which a pole cannot move."""

from typing import NamedTuple

import torch
from torch import Tensor

from zeroproof.errors import DataError
from zeroproof.export import TargetFrame

__all__ = ["FramedTargets", "frame_targets", "standardise_targets"]

_LIGHT_TAIL = 20.0  # median deviations; beyond it a squared error would see the largest rows alone


class FramedTargets(NamedTuple):
    """Targets in their frame, and whether they look like those of an ordinary function."""

    y: Tensor  # `(rows, k)`
    frame: TargetFrame
    light_tailed: bool  # all finite, and none further than 20 median deviations from the centre


def frame_targets(y: Tensor, names: tuple[str, ...]) -> FramedTargets:
    r"""Bring each column to y' = (y - c) / s, c the median and s the median \|y - c\| of finite y.

    A shift and a scale are projective maps that fix ∞, so ⊥ and ±inf stay what they are. Where s is
    0, the mean deviation takes its place, or 1.

    Raises:
        DataError: A column holds no finite target.
    """
    centers, scales = [], []
    for column, name in zip(y.T, names, strict=True):
        finite = column[torch.isfinite(column)]
        if not len(finite):
            raise DataError(
                f"target {name!r} must have a finite value in some row, got ⊥ in all {len(y)}"
            )
        center = finite.median()
        deviation = (finite - center).abs()
        scale = deviation.median() if deviation.median() > 0 else deviation.mean()
        centers.append(float(center))
        scales.append(float(scale) if scale > 0 else 1.0)
    return _framed(y, TargetFrame(tuple(centers), tuple(scales)))


def standardise_targets(y: Tensor) -> FramedTargets:
    """Bring each column to y' = (y - c) / s, c the mean and s the standard deviation (or 1).

    The frame of a plain network; all targets must be finite.
    """
    scale = y.std(0, correction=0)
    scale = torch.where(scale > 0, scale, 1)
    return _framed(y, TargetFrame(tuple(y.mean(0).tolist()), tuple(scale.tolist())))


def _framed(y: Tensor, frame: TargetFrame) -> FramedTargets:
    center, scale = (torch.tensor(part, dtype=y.dtype) for part in frame)
    framed = (y - center) / scale
    light = bool(torch.isfinite(framed).all() and (framed.abs() <= _LIGHT_TAIL).all())
    return FramedTargets(framed, frame, light)
