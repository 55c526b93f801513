"""The whole matrix of transforms: every function, and how a test is made of it and a cell."""

from collections.abc import Callable, Container

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from tests.transforms.functions import CELLS, Function
from tests.transforms.layers import LAYERS
from tests.transforms.losses import LOSSES
from tests.transforms.meadow import MEADOW
from tests.transforms.tuples import TUPLES
from zeroproof.autodiff import GradientPolicy, gradient_policy

__all__ = [
    "BY_NAME",
    "FUNCTIONS",
    "POLICIES",
    "assert_same",
    "each_in",
    "gradients",
    "numbers",
    "of_learning",
    "scalar",
    "tangents_of",
    "tensors",
    "tried",
]

FUNCTIONS = (*MEADOW, *TUPLES, *LOSSES, *LAYERS)
BY_NAME = {function.name: function for function in FUNCTIONS}
POLICIES = (GradientPolicy.PROJECT, GradientPolicy.CLAMP)
FAILURES = (ArithmeticError, AssertionError, RuntimeError, TypeError, UserWarning, ValueError)


def each_in(*cells: str, among: Container[str] | None = None) -> pytest.MarkDecorator:
    """Parametrise a test by (function, cell); functions not named in `among` are slow cases."""
    assert set(cells) <= set(CELLS)
    return pytest.mark.parametrize(
        ("function", "cell"),
        [
            pytest.param(
                function,
                cell,
                id=f"{cell}: {function.name}",
                marks=[] if among is None or function.name in among else pytest.mark.slow,
            )
            for cell in cells
            for function in FUNCTIONS
        ],
    )


def tried(
    check: Callable[[Function], None],
    function: Function,
    cell: str,
    fails: tuple[type[Exception], ...] = FAILURES,
) -> None:
    """Run a check, which must fail where the table gives a reason for it to fail."""
    if cell not in function.reasons:
        check(function)
        return
    with pytest.raises(fails):  # a reason outlived by its cause has to go
        check(function)


def tensors(output: object) -> list[Tensor]:
    """Return all tensors of an output, masks included."""
    return [x for x in pytree.tree_leaves(output) if isinstance(x, Tensor)]


def numbers(output: object) -> list[Tensor]:
    """Return the tensors of an output that have derivatives."""
    return [x for x in tensors(output) if x.is_floating_point() or x.is_complex()]


def scalar(output: object) -> Tensor:
    """Weigh all numbers of an output into one; ⊥ takes no part."""
    total = torch.zeros(())
    for k, x in enumerate(numbers(output)):
        known = torch.where(torch.isfinite(x), x, 0)
        known = known.real + 0.5 * known.imag if x.is_complex() else known
        weights = torch.linspace(1, 2 + k, max(x.numel(), 1), dtype=known.dtype)[: x.numel()]
        total = total + (weights.reshape(x.shape) * known).sum()
    return total


def gradients(
    function: Callable[..., object],
    inputs: tuple[Tensor, ...],
    learning: tuple[int, ...],
    policy: GradientPolicy = GradientPolicy.PROJECT,
) -> tuple[list[Tensor], list[Tensor]]:
    """Return (outputs, gradients of their `scalar` by the inputs that learn and by parameters)."""
    leaves = [x.detach().requires_grad_(k in learning) for k, x in enumerate(inputs)]
    output = function(*leaves)
    wanted = [leaves[k] for k in learning]
    if isinstance(function, torch.nn.Module):
        wanted += list(function.parameters())
    with gradient_policy(policy):
        found = torch.autograd.grad(scalar(output), wanted, allow_unused=True)
    found = [torch.zeros_like(x) if g is None else g for g, x in zip(found, wanted, strict=True)]
    return [x.detach() for x in tensors(output)], found


def of_learning(function: Function, call: Callable[..., object], inputs: tuple[Tensor, ...]):
    """Return (a function of the inputs that learn, those inputs)."""

    def act(*learning: Tensor) -> object:
        full = list(inputs)
        for k, x in zip(function.learning, learning, strict=True):
            full[k] = x
        return call(*full)

    return act, tuple(inputs[k] for k in function.learning)


def tangents_of(like: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return a direction for each tensor, the same at every call."""
    generator = torch.Generator().manual_seed(3)
    return tuple(torch.randn(x.shape, generator=generator, dtype=x.dtype) for x in like)


def assert_same(got: object, expected: object, **tolerance: float) -> None:
    """Assert equal structure and close numbers, nan at the same places."""
    torch.testing.assert_close(got, expected, equal_nan=True, **tolerance)
