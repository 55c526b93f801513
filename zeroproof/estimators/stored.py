"""Closed-form models in a folder: safetensors and JSON, never pickle.

FOLDER/
  model.safetensors   all arrays
  model.json          format version, options, the shape of the model, thresholds, what it reached
"""

import json
import math
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from zeroproof._extras import require
from zeroproof._files import folder_in_place, tensors_written, write_json
from zeroproof.errors import RunFolderError, ShapeError
from zeroproof.estimators.closed_form import ClosedForm, Compared
from zeroproof.estimators.fitted import Fitted
from zeroproof.estimators.labels import Labels, Region
from zeroproof.estimators.model import FormModel, ReadoutModel
from zeroproof.inference import InferenceConfig
from zeroproof.layers.features import (
    Column,
    GradedFeatures,
    ModuleFeatures,
    RandomFeatures,
)
from zeroproof.solve.branch import Branch
from zeroproof.solve.forms import (
    BarycentricForm,
    CoefficientForm,
    ConjugateForm,
    ExponentialForm,
    FactoredForm,
    FractionForm,
    InverseForm,
    SigmoidForm,
)
from zeroproof.solve.recipe import Recipe
from zeroproof.training.trunk import default_trunk

__all__ = ["FORMAT", "FORMAT_VERSION", "load", "read_record", "save", "write"]

FORMAT, FORMAT_VERSION = "zeroproof-regressor", 1
_DAMAGE = (KeyError, TypeError, ValueError, AttributeError, OSError, RuntimeError)
_KINDS: dict[str, type] = {
    kind.__name__: kind
    for kind in (
        Branch, FormModel, ReadoutModel, CoefficientForm, FactoredForm, BarycentricForm,
        FractionForm, InverseForm, ExponentialForm, SigmoidForm, ConjugateForm, Column,
        GradedFeatures, RandomFeatures, ModuleFeatures, Recipe, ClosedForm, Compared, Fitted,
        Labels, Region,
    )
}  # fmt: skip
# fields of earlier versions whose names are methods now
_STORED_AS = {("FractionForm", "p"): "poles", ("FractionForm", "r"): "residues"}


def save(fitted: Fitted, options: dict[str, Any], folder: Path) -> None:
    """Write a fit into a folder, which is replaced in one step.

    Args:
        fitted: The fit.
        options: Those of the estimator.
        folder: Where to; an earlier model there is replaced.

    Raises:
        RunFolderError: The folder holds something else.
    """
    _check_place(folder)
    with folder_in_place(folder) as fresh:
        write(fitted, options, fresh)


def write(
    fitted: Fitted, options: dict[str, Any], folder: Path, facts: dict[str, Any] | None = None
) -> None:
    """Write a fit into an existing folder, with facts for readers."""
    arrays: dict[str, Tensor] = {}
    record = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "options": {name: _option(value) for name, value in options.items()},
        "thresholds": fitted.thresholds.to_dict(),
        "fitted": _packed(fitted._replace(thresholds=None), "fitted", arrays),
        "facts": facts or {},
    }
    with tensors_written() as safetensors:
        safetensors.save_file(arrays, folder / "model.safetensors")
    write_json(folder / "model.json", record)


def load(folder: Path, features: Any = None) -> tuple[Fitted, dict[str, Any]]:
    """Return fit and options that `save` wrote.

    Args:
        folder: Where it is.
        features: The module whose weights are to be filled in, if features were one.

    Raises:
        RunFolderError: It is no such folder, damaged, or of another version.
    """
    record = read_record(folder)
    safetensors = require("safetensors", extra="train")
    load_file = require("safetensors.torch", extra="train").load_file
    try:
        stored = load_file(folder / "model.safetensors")
        arrays = {name: part.clone() for name, part in stored.items()}  # aligned: same last bits
        fitted = _unpacked(record["fitted"], arrays, features)
        fitted = fitted._replace(thresholds=InferenceConfig.from_dict(record["thresholds"]))
        options = {k: tuple(v) if isinstance(v, list) else v for k, v in record["options"].items()}
        if options["features"] == "module":
            options["features"] = features
        if fitted.domain.shape != (2, len(fitted.columns)):
            raise ShapeError(f"a domain of shape {tuple(fitted.domain.shape)}")
    except (*_DAMAGE, safetensors.SafetensorError) as error:
        said = " ".join(str(error).split()) or repr(error)
        what = f"no {said}" if isinstance(error, KeyError) else said
        raise RunFolderError(f"{folder} must hold a whole model, but has {what}") from error
    return fitted, options


def _option(value: Any) -> Any:
    """Return an option as JSON has it; what is no plain value was used up by the fit."""
    if isinstance(value, nn.Module):
        return "module"
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, tuple | list | np.ndarray):
        return [_option(item) for item in value]
    return value if isinstance(value, str | int | float | bool | None) else None


def _packed(value: Any, name: str, arrays: dict[str, Tensor]) -> Any:
    """Return a value as JSON, its tensors moved to `arrays` under their place in it."""
    if isinstance(value, Tensor):
        whole = value.detach().resolve_conj()  # the format has no complex numbers of 128 bits
        parts = torch.view_as_real(whole) if whole.is_complex() else whole
        arrays[name] = parts.contiguous().clone()
        return {"complex" if whole.is_complex() else "array": name}
    if isinstance(value, nn.Module):
        for key, tensor in value.state_dict().items():
            arrays[f"{name}.{key}"] = tensor.detach().contiguous().clone()
        return {"module": name, "trunk": _trunk_shape(value)}
    kind = type(value).__name__
    if kind in _KINDS:
        fields = value._asdict() if isinstance(value, tuple) else vars(value)  # pyright: ignore
        named = {_STORED_AS.get((kind, field), field): item for field, item in fields.items()}
        packed = {k: _packed(item, f"{name}.{k}", arrays) for k, item in named.items()}
        return {"kind": kind, **packed}
    if isinstance(value, tuple | list):
        return [_packed(item, f"{name}.{i}", arrays) for i, item in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        return {"number": str(value)}
    return value


def _unpacked(value: Any, arrays: dict[str, Tensor], features: Any) -> Any:
    if isinstance(value, list):
        return tuple(_unpacked(item, arrays, features) for item in value)
    if not isinstance(value, dict):
        return value
    if "kind" in value:
        kind = value["kind"]
        fields = {k: _unpacked(v, arrays, features) for k, v in value.items() if k != "kind"}
        for (owner, field), stored in _STORED_AS.items():
            if owner == kind:
                fields[field] = fields.pop(stored)
        return _KINDS[kind](**fields)
    if "number" in value:
        return float(value["number"])
    return _of_arrays(value, arrays, features)


def _of_arrays(value: dict[str, Any], arrays: dict[str, Tensor], features: Any) -> Any:
    if "array" in value:
        return arrays[value["array"]]
    if "complex" in value:
        return torch.view_as_complex(arrays[value["complex"]])
    module = features if value["trunk"] is None else default_trunk(**value["trunk"])
    return _module(value["module"], arrays, module)


def _trunk_shape(module: nn.Module) -> dict[str, int] | None:
    """Return what `default_trunk` builds this module from, if it was one."""
    layers = list(module.children())
    kinds = [nn.Linear, nn.Tanh] * (len(layers) // 2)
    if type(module) is not nn.Sequential or [type(layer) for layer in layers] != kinds:
        return None
    linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
    biased = all(layer.bias is not None for layer in linear)
    if not linear or not biased or len({layer.out_features for layer in linear}) > 1:
        return None
    first = linear[0]
    return {
        "in_features": first.in_features,
        "width": first.out_features,
        "depth": len(linear),
    }


def _module(name: str, arrays: dict[str, Tensor], features: Any) -> nn.Module:
    if not isinstance(features, nn.Module):
        raise TypeError("features of a module: pass it as load(path, features=module)")
    module = deepcopy(features).double().eval().requires_grad_(False)
    prefix = f"{name}."
    own = {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
    module.load_state_dict(own)
    return module


def read_record(folder: Path) -> dict[str, Any]:
    """Return `model.json` of a folder if its format and version are right.

    Raises:
        RunFolderError: They are not, or there is none.
    """
    place = folder / "model.json"
    if not place.is_file():
        raise RunFolderError(f"{folder} must be a folder written by `save`, but has no model.json")
    try:
        record = json.loads(place.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise RunFolderError(f"{place} must be readable JSON: {error}") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise RunFolderError(f"{place} must have the format {FORMAT!r}, got something else")
    if record.get("version") != FORMAT_VERSION:
        raise RunFolderError(
            f"{place} must have format version {FORMAT_VERSION}, got {record.get('version')!r}: "
            "use the version of zeroproof that wrote it"
        )
    return record


def _check_place(folder: Path) -> None:
    if folder.is_file():
        raise RunFolderError(f"{folder} must be a folder, got a file")
    if folder.is_dir():
        foreign = {path.name for path in folder.iterdir()} - {"model.json", "model.safetensors"}
        if foreign:
            raise RunFolderError(
                f"{folder} must be new, empty or a saved model, but holds {sorted(foreign)[0]}"
            )
