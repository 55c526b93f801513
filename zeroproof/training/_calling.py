"""The forms in which models hand out tuples, and what a loss can be called with."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from zeroproof.errors import RangeError, TrainingError
from zeroproof.projective.gauge import widen
from zeroproof.projective.pair import encode
from zeroproof.scm import SCM

__all__ = ["accepted", "as_pair", "offered_to"]


def as_pair(outputs: Any) -> tuple[Tensor, Tensor]:
    """Return (N, D), in at least float32, of a pair, a mapping that holds them, or an `SCM` value.

    Values become ⟨x, 1⟩, and ⟨1, 0⟩ where they are ⊥.

    Raises:
        TrainingError: `outputs` is none of these.
    """
    if isinstance(outputs, SCM):
        return encode(widen(outputs.payload), outputs.bottom)
    if isinstance(outputs, tuple | list) and len(outputs) == 2:
        N, D = outputs
        if isinstance(N, Tensor) and isinstance(D, Tensor):
            return widen(N), widen(D)
    if isinstance(outputs, Mapping) and {"N", "D"} <= set(outputs):
        return as_pair((outputs["N"], outputs["D"]))
    came = f"a tensor of shape {tuple(outputs.shape)}" if isinstance(outputs, Tensor) else None
    raise TrainingError(
        "model must return a pair of tensors (N, D), a mapping that holds N and D, or an SCM, "
        f"got {came or type(outputs).__name__}; zeroproof.layers.ProjectiveHead makes such a pair"
    )


def accepted(loss_fn: Callable[..., Tensor]) -> tuple[str, ...]:
    """Tell which of `tau_train`, `mask`, `weight` a loss takes; a module is asked through forward.

    Raises:
        RangeError: It cannot be called as `loss_fn(outputs=..., targets=...)`.
    """
    if not callable(loss_fn):
        raise RangeError(f"loss_fn must be callable, got {type(loss_fn).__name__}")
    called = loss_fn.forward if isinstance(loss_fn, nn.Module) else loss_fn
    try:
        signature = inspect.signature(called)
    except ValueError:  # some built-in callables do not tell
        return ()
    names = signature.parameters
    anything = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in names.values())
    taken = tuple(name for name in ("tau_train", "mask", "weight") if anything or name in names)
    try:
        signature.bind(outputs=(), targets=(), **dict.fromkeys(taken))
    except TypeError as error:
        raise RangeError(
            f"loss_fn must accept loss_fn(outputs=(N, D), targets=(Y_n, Y_d)), got {signature}"
        ) from error
    return taken


def offered_to(taken: tuple[str, ...], offered: dict[str, Any]) -> dict[str, Any]:
    """Return what of `tau_train`, `mask` and `weight` a loss is given.

    Raises:
        TrainingError: Labels are weighted, and the loss takes no weights.
    """
    weight = offered.pop("weight")
    if weight is not None and "weight" in taken:
        offered["weight"] = weight
    elif weight is not None and bool((weight != 1).any()):
        raise TrainingError(
            "loss_fn must accept weight= to be trained on labels that are weighted or missing, "
            f"it takes {', '.join(taken) or 'outputs and targets alone'}"
        )
    return {name: value for name, value in offered.items() if name in taken}
