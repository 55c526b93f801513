"""Model, optimizer and scheduler of a run of the trainer, built from what a configuration says."""

from collections.abc import Callable
from inspect import signature
from pkgutil import resolve_name
from typing import Any, TypeVar

import torch
from torch import nn

from zeroproof._extras import require
from zeroproof.cli.loading import Loaded
from zeroproof.errors import RangeError, ZeroProofError
from zeroproof.layers.mlp import ProjectiveMLP

__all__ = ["build_model", "built", "is_own"]

Built = TypeVar("Built")


def is_own(spec: Any) -> bool:
    """Tell whether a model is the package's own network, which a run folder can hold."""
    return _class_of(spec) is ProjectiveMLP


def build_model(spec: Any, loaded: Loaded) -> nn.Module:
    """Build the model for these rows; inputs of the package's own network are standardised.

    Args:
        spec: `class_path` and `init_args`, checked; `in_features` and `out_features` are added
            where the class has them.
        loaded: The rows.

    Raises:
        RangeError: It cannot be built, or does not make (N, D) of the rows.
    """
    jsonargparse = require("jsonargparse", extra="cli")
    counts = {"in_features": len(loaded.features), "out_features": len(loaded.targets)}
    taken = signature(_class_of(spec)).parameters
    arguments = spec.get("init_args", {})
    arguments = dict(arguments.items() if isinstance(arguments, dict) else vars(arguments))
    arguments |= {name: count for name, count in counts.items() if name in taken}
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(nn.Module, "model")
    full = parser.parse_object(
        {"model": {"class_path": spec["class_path"], "init_args": arguments}}
    )
    instantiate = getattr(parser, "instantiate", None) or parser.instantiate_classes
    model = built("model", lambda: instantiate(full).model)
    if is_own(spec):
        _standardise(model, arguments, loaded)
    else:
        _probe(model, spec["class_path"], loaded)
    return model


def built(what: str, build: Callable[[], Built]) -> Built:
    """Build something from what a user wrote.

    Raises:
        RangeError: It is refused.
    """
    try:
        return build()
    except ZeroProofError:
        raise
    except (TypeError, ValueError, RuntimeError) as error:
        raise RangeError(
            f"{what} must be fit to be built, but says: {_line(_root(error))}"
        ) from error


def _root(error: BaseException) -> BaseException:
    """Return what an error was before a parser reported it."""
    while cause := error.__cause__ or error.__context__:
        error = cause
    return error


def _class_of(spec: Any) -> Any:
    return resolve_name(spec["class_path"])


def _standardise(model: ProjectiveMLP, arguments: dict[str, Any], loaded: Loaded) -> None:
    # in float64: the digits of a time stamp must survive until its mean is taken off
    for name, numbers in (("x_mean", loaded.spread.mean), ("x_std", loaded.spread.std)):
        if arguments.get(name) is None:
            setattr(model, name, numbers.double())


@torch.no_grad()
def _probe(model: nn.Module, name: str, loaded: Loaded) -> None:
    """Ask a model for a few rows, which also shapes lazy layers."""
    x, wanted = loaded.sample, (len(loaded.sample), len(loaded.targets))
    model.eval()
    try:
        answer = model(x)
    except (TypeError, ValueError, RuntimeError) as error:
        raise RangeError(
            f"{name} must take rows of the shape {tuple(x.shape)}, but says: {_line(error)}"
        ) from error
    model.train()
    pair = isinstance(answer, tuple | list) and len(answer) == 2
    if not pair or not all(isinstance(part, torch.Tensor) for part in answer):
        raise RangeError(f"{name} must return a pair (N, D), got {_kind(answer)}")
    if answer[0].shape != wanted:
        raise RangeError(
            f"{name} must return N of the shape of the targets, {wanted}, "
            f"got {tuple(answer[0].shape)}"
        )


def _kind(answer: Any) -> str:
    shape = f" of shape {tuple(answer.shape)}" if isinstance(answer, torch.Tensor) else ""
    return f"a {type(answer).__name__}{shape}"


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())
