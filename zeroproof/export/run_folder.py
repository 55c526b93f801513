"""A run folder: what `zeroproof fit` leaves behind and `zeroproof predict` reads. Never pickled.

RUN/
  model.safetensors   parameters and standardisation of the network
  run.json            format version, columns, network, target frame, thresholds, diagnosis
  history.json        one record per epoch
  rows.csv            score and distance to the nearest pole for every row of the data
  fit.png             the picture
"""

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zeroproof._checks import positive
from zeroproof._extras import require
from zeroproof._files import tensors_written, write_json
from zeroproof.errors import RangeError, RunFolderError, ShapeError
from zeroproof.inference import InferenceConfig, StrictModule, StrictResult
from zeroproof.layers.mlp import ProjectiveMLP

__all__ = ["FORMAT_VERSION", "Run", "TargetFrame", "load_run", "predict_rows", "save_run"]

_FORMAT = "zeroproof-run"
FORMAT_VERSION = 1


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


def save_run(run: Run, folder: Path) -> None:
    """Write model and description into an existing folder."""
    tensors = {name: x.detach().contiguous() for name, x in run.model.state_dict().items()}
    with tensors_written() as safetensors:
        safetensors.save_file(tensors, folder / "model.safetensors")
    write_json(
        folder / "run.json",
        {
            "format": _FORMAT,
            "version": FORMAT_VERSION,
            "features": run.features,
            "targets": run.targets,
            "model": run.model.spec(),
            "target_frame": run.frame._asdict(),
            "thresholds": run.config.to_dict(),
            "facts": run.facts,
        },
    )


def load_run(folder: str | Path) -> Run:
    """Read a run folder.

    Raises:
        RunFolderError: It is not one, is damaged, or was written by a newer version.
    """
    folder = Path(folder)
    record = _read_record(folder)
    try:
        run = Run(
            model=ProjectiveMLP.from_spec(record["model"]),
            config=InferenceConfig.from_dict(record["thresholds"]),
            frame=_frame(record["target_frame"]),
            features=_names(record["features"], "features"),
            targets=_names(record["targets"], "targets"),
            facts=record["facts"],
        )
        _check_sizes(run)
    except (KeyError, TypeError, ValueError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise RunFolderError(f"{folder / 'run.json'} must be whole, but has {what}") from error
    _load_weights(run.model, folder)
    return run


def _frame(record: dict[str, list[float]]) -> TargetFrame:
    frame = TargetFrame(*(tuple(map(float, record[part])) for part in TargetFrame._fields))
    for scale in frame.scale:
        positive(scale, "target scale")
    if not all(map(math.isfinite, frame.center)):
        raise RangeError(f"target center must be finite, got {frame.center}")
    return frame


def _names(record: Any, what: str) -> tuple[str, ...]:
    if not isinstance(record, list) or not all(isinstance(name, str) for name in record):
        raise RangeError(f"{what} must be a list of column names, got {record!r}")
    return tuple(record)


def _check_sizes(run: Run) -> None:
    model = run.model
    for name, count, wanted in (
        ("features", len(run.features), model.in_features),
        ("targets", len(run.targets), model.head.out_features),
        ("target center", len(run.frame.center), model.head.out_features),
        ("target scale", len(run.frame.scale), model.head.out_features),
    ):
        if count != wanted:
            raise ShapeError(f"{name} must number {wanted} for this network, got {count}")


def _read_record(folder: Path) -> dict[str, Any]:
    if not (folder / "run.json").is_file():
        raise RunFolderError(
            f"{folder} must be a folder written by `zeroproof fit`, but has no run.json"
        )
    try:
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise RunFolderError(f"{folder / 'run.json'} must be readable JSON: {error}") from error
    if not isinstance(record, dict) or record.get("format") != _FORMAT:
        raise RunFolderError(
            f"{folder / 'run.json'} must have the format {_FORMAT!r}, got something else"
        )
    version = record.get("version")
    if version != FORMAT_VERSION:
        raise RunFolderError(
            f"{folder / 'run.json'} must have format version {FORMAT_VERSION}, got {version!r}: "
            "use the version of zeroproof that wrote it"
        )
    return record


def _load_weights(model: ProjectiveMLP, folder: Path) -> None:
    safetensors = require("safetensors", extra="train")
    load_file = require("safetensors.torch", extra="train").load_file
    # standardisation in float64, as it was fitted
    model.x_mean, model.x_std = model.x_mean.double(), model.x_std.double()
    try:
        model.load_state_dict(load_file(folder / "model.safetensors"))
    except (OSError, RuntimeError, safetensors.SafetensorError) as error:
        detail = " ".join(str(error).split()) or repr(error)
        raise RunFolderError(
            f"{folder / 'model.safetensors'} must hold the model of run.json: {detail}"
        ) from error


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
