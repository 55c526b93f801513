"""Closed-form models in a folder: `model.json` and `model.safetensors`, in the one stored form.

Entries are the options of the estimator, the fit, and facts for readers.
"""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from zeroproof._files import folder_in_place
from zeroproof._record import Stored, load_tensors, said, unpack
from zeroproof.errors import RangeError, RunFolderError, ShapeError
from zeroproof.estimators.closed_form import ClosedForm, Compared
from zeroproof.estimators.fitted import Fitted
from zeroproof.estimators.labels import Edge, Labels, Region
from zeroproof.estimators.model import FormModel, ReadoutModel
from zeroproof.estimators.summary import summary
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

__all__ = ["load", "save", "write"]

_LARGEST = 2**20  # entries of a row of features; a size beyond is damage
_KINDS: dict[str, type] = {
    kind.__name__: kind
    for kind in (
        Branch, FormModel, ReadoutModel, CoefficientForm, FactoredForm, BarycentricForm,
        FractionForm, InverseForm, ExponentialForm, SigmoidForm, ConjugateForm, Column,
        GradedFeatures, RandomFeatures, ModuleFeatures, Recipe, ClosedForm, Compared, Fitted,
        Labels, Edge, Region, InferenceConfig,
    )
}  # fmt: skip
# names of fields in version 1
_RENAMED = {("FractionForm", "poles"): "p", ("FractionForm", "residues"): "r"}


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
    entries = {
        "options": {name: _option(value) for name, value in options.items()},
        "fitted": fitted,
        "facts": facts or {},
    }
    _stored().write(folder, entries)


def load(folder: Path, features: Any = None) -> tuple[Fitted, dict[str, Any], dict[str, Any]]:
    """Return fit, options and facts that `write` wrote.

    Args:
        folder: Where it is.
        features: The module whose weights are to be filled in, if features were one.

    Raises:
        RunFolderError: It is no such folder, damaged, or of another version.
    """
    if not (folder / "model.json").is_file():
        raise RunFolderError(f"{folder} must be a folder written by `save`, but has no model.json")
    entries = _stored(features).read(folder)
    try:
        fitted, options, facts = (entries[name] for name in ("fitted", "options", "facts"))
        options = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
        if options["features"] == "module":
            options["features"] = features
        _check(fitted, facts)
        if "older" not in entries:  # some of version 1 answer, but cannot be described
            summary(fitted)
    except Exception as error:  # a fit that cannot answer is not as it was written
        raise RunFolderError(f"{folder} must hold a whole model, but has {said(error)}") from error
    return fitted, options, facts


def _check(fitted: Fitted, facts: Any) -> None:
    """Have a fit answer its own corners: what does not belong together shows there."""
    if not isinstance(fitted, Fitted) or not isinstance(facts, dict):
        raise RangeError("something else for a fit or for its facts")
    wide = (2, len(fitted.columns))
    if fitted.domain.shape != wide or len(fitted.names) != wide[1]:
        raise ShapeError(f"a domain of shape {tuple(fitted.domain.shape)} for {wide[1]} columns")
    if not fitted.domain.is_floating_point() or not torch.isfinite(fitted.domain).all():
        raise RangeError("a domain that is not finite")
    seen = fitted.seen if isinstance(fitted.seen, int) else len(fitted.seen)
    if not all(0 <= column < seen for column in fitted.columns):
        raise RangeError(f"columns {fitted.columns} of {seen}")
    model = fitted.fit.model
    parts = (model, *fitted.fit.alternates)
    for features in (H for part in parts if isinstance(part, ReadoutModel) for H in part[:2]):
        places = features.places if isinstance(features, GradedFeatures) else torch.zeros(1, 0)
        if places.numel() and not 0 <= int(places.min()) <= int(places.max()) < _LARGEST:
            raise RangeError("places beyond all functions")
        highest = features.highest if isinstance(features, GradedFeatures) else ()
        if highest and highest != tuple(places.amax(0).tolist()):
            raise RangeError("other highest places than its places have")
    found = fitted.strict(fitted.domain)
    if fitted.outputs and len(fitted.outputs) != found.decoded.shape[1]:
        raise ShapeError(f"{len(fitted.outputs)} names of {found.decoded.shape[1]} outputs")


def _option(value: Any) -> Any:
    """Return an option as JSON has it; what is no plain value was used up by the fit."""
    if isinstance(value, nn.Module):
        return "module"
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, tuple | list | np.ndarray):
        return [_option(item) for item in value]
    return value if isinstance(value, str | int | float | bool | None) else None


def _stored(features: Any = None) -> Stored:
    """Return the stored form, with the module whose weights are to be filled in."""

    def module(trunk: dict[str, Any] | None, weights: dict[str, Any]) -> nn.Module:
        return _module(trunk, weights, features)

    return Stored(
        "model", "model.json", "model.safetensors", RunFolderError,
        kinds={**_KINDS, "Module": module},
        described=_described,
        older={"zeroproof-regressor": _older(module)},
    )  # fmt: skip


def _described(value: Any) -> tuple[str, dict[str, Any]] | None:
    if not isinstance(value, nn.Module):
        return None
    return "Module", {"trunk": _trunk_shape(value), "weights": dict(value.state_dict())}


def _module(trunk: dict[str, Any] | None, weights: dict[str, Any], features: Any) -> nn.Module:
    if trunk is None:
        if not isinstance(features, nn.Module):
            raise RangeError("features of a module: pass it as load(path, features=module)")
        module = deepcopy(features).double().eval().requires_grad_(False)
        module.load_state_dict(weights)
        return module
    # sizes are believed once the weights have them
    first = weights["0.weight"]
    if sorted(trunk) != ["depth", "in_features", "width"] or len(weights) != 2 * trunk["depth"]:
        raise RangeError(f"a trunk {trunk} with {len(weights)} weights")
    if tuple(first.shape) != (trunk["width"], trunk["in_features"]):
        raise ShapeError(f"a trunk {trunk} with weights of shape {tuple(first.shape)}")
    module = default_trunk(**trunk).double().eval().requires_grad_(False)
    module.load_state_dict(weights)
    return module


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


def _older(module: Callable[..., nn.Module]) -> Callable[[dict[str, Any], Path], dict[str, Any]]:
    """Return what reads version 1, which had no checksum, and other marks for what JSON lacks."""

    def entries(record: dict[str, Any], folder: Path) -> dict[str, Any]:
        if record.get("version") != 1:
            raise RangeError(
                f"format version {record.get('version')!r}: use the version of zeroproof that "
                "wrote it"
            )
        tensors = load_tensors(folder / "model.safetensors")
        fields = dict(record["fitted"])
        fields["thresholds"] = {"kind": "InferenceConfig", **record["thresholds"]}
        fitted = unpack(_renamed(fields, tensors), tensors, {**_KINDS, "Module": module})
        facts = record.get("facts", {})
        return {"older": True, "fitted": fitted, "options": record["options"], "facts": facts}

    return entries


def _renamed(value: Any, tensors: dict[str, Tensor]) -> Any:  # noqa: PLR0911 - one for each
    """Return a value of version 1 with the marks of today."""
    if isinstance(value, list):
        return {"$tuple": [_renamed(item, tensors) for item in value]}
    if not isinstance(value, dict):
        return value
    match value:
        case {"kind": kind}:
            fields = {k: _renamed(v, tensors) for k, v in value.items() if k != "kind"}
            fields = {_RENAMED.get((kind, name), name): item for name, item in fields.items()}
            return {f"${kind}": fields}
        case {"array": name}:
            return {"$tensor": name}
        case {"complex": name}:
            return {"$complex": name}
        case {"number": text}:
            return {"$float": text}
        case {"module": name, "trunk": trunk}:
            keys = (key for key in tensors if key.startswith(f"{name}."))
            weights = {key.removeprefix(f"{name}."): {"$tensor": key} for key in keys}
            return {"$Module": {"trunk": trunk, "weights": weights}}
    raise RangeError(f"an entry that nothing reads, {sorted(value)[:3]}")


def _check_place(folder: Path) -> None:
    if folder.is_file():
        raise RunFolderError(f"{folder} must be a folder, got a file")
    if folder.is_dir():
        foreign = {path.name for path in folder.iterdir()} - {"model.json", "model.safetensors"}
        if foreign:
            raise RunFolderError(
                f"{folder} must be new, empty or a saved model, but holds {sorted(foreign)[0]}"
            )
