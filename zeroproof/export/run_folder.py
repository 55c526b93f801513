"""A run folder: what `zeroproof fit` leaves behind and `zeroproof predict` reads. Never pickled.

RUN/
  model.safetensors   parameters and standardisation of the network
  run.json            columns, network, target frame, thresholds, diagnosis
  history.json        one record per epoch
  rows.csv            score and distance to the nearest pole for every row of the data
  fit.png             the picture
"""

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zeroproof._checks import positive
from zeroproof._record import Stored, load_tensors, read_json, said
from zeroproof.errors import RangeError, RunFolderError, ShapeError
from zeroproof.inference import InferenceConfig
from zeroproof.inference.run import Run, TargetFrame
from zeroproof.layers.mlp import ProjectiveMLP

__all__ = ["MODULE", "load_run", "save_run"]


def save_run(run: Run, folder: Path) -> None:
    """Write model and description into an existing folder."""
    entries = {
        "features": list(run.features),
        "targets": list(run.targets),
        "model": run.model.spec(),
        "weights": run.model.state_dict(),
        "target_frame": {part: list(numbers) for part, numbers in run.frame._asdict().items()},
        "thresholds": run.config.to_dict(),
        "facts": run.facts,
    }
    _STORED.write(folder, entries)


def load_run(folder: str | Path) -> Run:
    """Read a run folder.

    Raises:
        RunFolderError: It is not one, is damaged, or was written by a newer version.
    """
    folder = Path(folder)
    if not (folder / "run.json").is_file():
        raise RunFolderError(
            f"{folder} must be a folder written by `zeroproof fit`, but has no run.json"
        )
    _check_own(folder / "run.json")
    record = _STORED.read(folder)
    try:
        run = Run(
            model=_model(record["model"], record["weights"]),
            config=InferenceConfig.from_dict(record["thresholds"]),
            frame=_frame(record["target_frame"]),
            features=_names(record["features"], "features"),
            targets=_names(record["targets"], "targets"),
            facts=record["facts"],
        )
        _check_sizes(run)
    except Exception as error:  # whatever cannot be built from it, it is not as it was written
        raise RunFolderError(f"{folder} must hold a whole run, but has {said(error)}") from error
    return run


def _check_own(path: Path) -> None:
    """Check that a run is not one of a model from elsewhere: to build it is to run its code."""
    record = read_json(path, RunFolderError)
    names = {"kind": "module", "format": "zeroproof-module"}  # the latter in version 1
    if isinstance(record, dict) and any(record.get(key) == name for key, name in names.items()):
        place = str(path.with_name("model.safetensors"))
        raise RunFolderError(
            f"{path.parent} must hold a network of this package, got weights of "
            f"{record.get('class_path')}: build that model in Python and load them with "
            f"model.load_state_dict(safetensors.torch.load_file({place!r}))"
        )


def _model(spec: dict[str, Any], weights: dict[str, Tensor]) -> ProjectiveMLP:
    with torch.device("meta"):  # sizes are believed once the weights have them
        model = ProjectiveMLP.from_spec(spec)
    model.load_state_dict(weights, assign=True)
    for name, tensor in weights.items():
        if not torch.isfinite(tensor).all():
            raise RangeError(f"weights {name} that are not finite")
    if not (model.x_std > 0).all():
        raise RangeError("an x_std that is not above 0")
    return model


def _older(record: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the entries of version 1, which had no checksum."""
    if record.get("version") != 1:
        raise RangeError(f"format version {record.get('version')!r}, which is not read here")
    return {**record, "weights": load_tensors(folder / "model.safetensors")}


# a run of a model that only its own code can build
MODULE = Stored("module", "run.json", "model.safetensors", RunFolderError)
_STORED = Stored(
    "run", "run.json", "model.safetensors", RunFolderError, older={"zeroproof-run": _older}
)


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
