"""Counts that do not vary from run to run: calls into torch, and bytes kept for backward.

They are upper bounds. A change that needs more than one of them has made something slower.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from zeroproof.inference import InferenceConfig, strict_inference
from zeroproof.layers import Rational
from zeroproof.projective import decode, denominator_score, renormalize
from zeroproof.scm import SCM
from zeroproof.training import SCMTrainingLoss

ROWS = 1000  # one chunk


class Counts(NamedTuple):
    forward: int
    backward: int
    saved: float  # bytes for each row, each tensor counted once


class _Calls(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += 1
        return func(*args, **(kwargs or {}))


def counts(function: Callable[[Tensor, Tensor], Tensor], N: Tensor, D: Tensor) -> Counts:
    storages: dict[int, int] = {}

    def note(x: Tensor) -> Tensor:
        storages[x.untyped_storage().data_ptr()] = x.numel() * x.element_size()
        return x

    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x), _Calls() as forward:
        value = function(N, D)
    with _Calls() as backward:
        torch.autograd.grad(value, (N, D), torch.ones_like(value), allow_unused=True)
    return Counts(forward.calls, backward.calls, sum(storages.values()) / ROWS)


def operands(data: str) -> tuple[Tensor, Tensor]:
    N, D = torch.randn(ROWS), torch.rand(ROWS) + 0.5
    if data == "⊥":
        D[::100], D[1::100] = 0, 1e-5
    return N.requires_grad_(), D.requires_grad_()


ANGLE = InferenceConfig(score="angle")
RATIONAL = Rational((5, 4), "tensor")
LOSS = SCMTrainingLoss()
CASES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "strict": lambda N, D: strict_inference(N, D).decoded,
    "strict, angle": lambda N, D: strict_inference(N, D, ANGLE).decoded,
    "decode": lambda N, D: decode(N, D)[0],
    "angle": lambda N, D: denominator_score(N, D, "angle"),
    "renormalize": lambda N, D: torch.cat(renormalize(N, D)),
    "division": lambda N, D: (SCM(N) / SCM(D)).payload,
    "rational": lambda N, _: RATIONAL(N),
    "loss": lambda N, D: LOSS(outputs=(N, D), targets=(torch.ones(ROWS), torch.ones(ROWS))),
}
BOUNDS = {
    ("strict", "sound"): Counts(11, 13, 9),
    ("strict", "⊥"): Counts(11, 13, 9),
    ("strict, angle", "sound"): Counts(11, 13, 9),
    ("strict, angle", "⊥"): Counts(11, 13, 9),
    ("decode", "sound"): Counts(9, 13, 9),
    ("decode", "⊥"): Counts(9, 13, 9),
    ("angle", "sound"): Counts(33, 36, 26),
    ("renormalize", "sound"): Counts(12, 5, 4),
    ("renormalize", "⊥"): Counts(12, 5, 4),
    ("division", "sound"): Counts(31, 13, 9),
    ("division", "⊥"): Counts(31, 13, 9),
    ("rational", "sound"): Counts(12, 21, 4.1),
    ("loss", "sound"): Counts(10, 17, 16),
    ("loss", "⊥"): Counts(10, 17, 16),
}


@pytest.mark.parametrize(("name", "data"), BOUNDS)
def test_no_more_calls_and_bytes_than_before(name: str, data: str) -> None:
    found = counts(CASES[name], *operands(data))
    for much, bound in zip(found, BOUNDS[name, data], strict=True):
        assert much <= bound, f"{found} exceeds {BOUNDS[name, data]}"


@pytest.mark.parametrize("name", ["strict", "strict, angle", "decode", "angle", "division"])
def test_nothing_is_kept_where_no_gradient_is_wanted(name: str) -> None:
    with torch.no_grad():
        found = counts(lambda N, D: CASES[name](N, D).requires_grad_(), *operands("⊥"))
    assert found.saved == 0
