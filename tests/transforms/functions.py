"""Every public differentiable function, with inputs to call it on and reasons for what it has not.

The tests of this folder try each function in each cell of `CELLS`; a cell without a reason must
work, one with a reason must fail. docs/reference/transforms.md is made from the same table.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

__all__ = [
    "BATCH",
    "CELLS",
    "REAL",
    "WIDTH",
    "Function",
    "Input",
    "computed",
    "layer",
]

BATCH = (4,)
OUTPUTS = 2  # columns, where an input does not say how many it has
CELLS = {
    "compile": "`torch.compile(fullgraph=True)`, forward and backward",
    "export": "`torch.export`",
    "trace": "`torch.jit.trace`",
    "script": "`torch.jit.script`",
    "vmap": "`torch.func.vmap`, of the function and of its gradient",
    "grad": "`torch.func.grad`",
    "jacrev": "`torch.func.jacrev`",
    "jvp": "`torch.func.jvp` and dual tensors of `torch.autograd.forward_ad`",
    "jacfwd": "`torch.func.jacfwd`",
    "hessian": "`torch.func.hessian`",
    "double backward": "a gradient of gradients",
    "autocast bfloat16": "`torch.autocast` in bfloat16",
    "autocast float16": "`torch.autocast` in float16",
    "float16": "inputs and parameters in float16",
    "bfloat16": "inputs and parameters in bfloat16",
    "float32": "single precision against double",
    "float64": "`torch.autograd.gradcheck`; a size that is a constant to autograd is held",
    "complex": "complex inputs",
    "non-contiguous": "inputs in any memory layout",
    "broadcast": "expanded inputs; operands of different shapes where operators take them",
    "zero rows": "an empty batch",
    "0-d": "scalars in place of rows",
}

SCRIPT = (
    "The script compiler takes no keyword options, contexts and autograd functions. Trace or "
    "export it; a model that ends in ProjectiveHead is scripted as a StrictModule."
)
WIDTH = {"0-d": "It reads columns, and a scalar has none: a ShapeError."}
REAL = {
    "complex": "Its trunk and the scales of its inputs are real; a complex model has its own "
    "trunk under a ProjectiveHead."
}


class Input(NamedTuple):
    """Numbers of one argument: uniform in [low, high], with a sign if `signed`."""

    low: float = 0.5
    high: float = 2.0
    signed: bool = False
    bottom: float | None = None  # stands in entry 0 of the inputs that make ⊥
    width: int | None = None  # columns the argument must have
    learns: bool = True  # gradients are asked for

    def sound(self, place: int, dtype: torch.dtype, batch: tuple[int, ...]) -> Tensor:
        """Return numbers that stay away from ⊥."""
        shape = batch if batch == () and self.width is None else (*batch, self.width or OUTPUTS)
        generator = torch.Generator().manual_seed(place)
        uniform, turn = torch.rand(2, *shape, generator=generator, dtype=torch.float64)
        x = self.low + (self.high - self.low) * uniform
        if self.signed:
            x = torch.where(turn < 0.5, -x, x)
        if dtype.is_complex and self.learns:
            x = torch.polar(x.abs(), torch.where(x < 0, torch.pi, 0) + turn - 0.5)
        return x.to(dtype)


class Function(NamedTuple):
    """A function of tensors, or a layer, under the name that the tests and the page give it."""

    name: str
    family: str
    covers: tuple[Any, ...]  # public names that are tried with it
    inputs: tuple[Input, ...]
    build: Callable[[torch.dtype], Callable[..., Any]]  # of the precision of its parameters
    reasons: Mapping[str, str]
    broadcasts: bool = False  # takes operands of different shapes
    # where a size is a constant to autograd: the same function with that size at these inputs
    frozen: Callable[..., Callable[..., Any]] | None = None

    def sound(self, dtype: torch.dtype = torch.float32, batch: tuple[int, ...] = BATCH) -> Any:
        """Return inputs away from ⊥."""
        return tuple(x.sound(k, dtype, batch) for k, x in enumerate(self.inputs))

    def bottom(self, dtype: torch.dtype = torch.float32) -> Any:
        """Return inputs of which the first entry makes ⊥, or the sound ones where none can."""
        numbers = self.sound(dtype)
        for x, like in zip(numbers, self.inputs, strict=True):
            if like.bottom is not None:
                x.view(-1)[0] = like.bottom
        return numbers

    def smooth(self, dtype: torch.dtype, inputs: tuple[Tensor, ...]) -> Callable[..., Any]:
        """Return what finite differences at `inputs` are taken of."""
        return self.build(dtype) if self.frozen is None else self.frozen(*inputs)

    @property
    def learning(self) -> tuple[int, ...]:
        """The places of the arguments that learn."""
        return tuple(k for k, x in enumerate(self.inputs) if x.learns)


def computed(
    name: str,
    family: str,
    covers: tuple[Any, ...],
    call: Callable[..., Any],
    *inputs: Input,
    broadcasts: bool = False,
    frozen: Callable[..., Callable[..., Any]] | None = None,
    scripts: bool = False,
    reasons: Mapping[str, str] | None = None,
) -> Function:
    """Return the entry of a function without parameters."""
    known = {**({} if scripts else {"script": SCRIPT}), **(reasons or {})}
    return Function(name, family, covers, inputs, lambda _: call, known, broadcasts, frozen)


def layer(
    name: str,
    family: str,
    covers: tuple[Any, ...],
    make: Callable[[torch.dtype], nn.Module],
    *inputs: Input,
    scripts: bool = False,
    reasons: Mapping[str, str] | None = None,
) -> Function:
    """Return the entry of a layer; its parameters are drawn from one seed."""

    def build(dtype: torch.dtype) -> nn.Module:
        torch.manual_seed(0)
        return make(dtype).eval()

    known = {**({} if scripts else {"script": SCRIPT}), **(reasons or {})}
    return Function(name, family, covers, inputs, build, known)
