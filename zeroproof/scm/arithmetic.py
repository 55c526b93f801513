"""Addition, multiplication, negation, inverse and division, total on (payload, bottom).

Every kernel takes plain tensors, the mask `bottom` of entries that are ⊥ in any operand (in the
broadcast shape), and `fixed`, the policy code of a layer or -1 for the context. It returns
(payload, bottom): the payload is nan at ⊥, and what overflows becomes ⊥. Operations that only
absorb ⊥ mask gradients at ⊥ and leave all others alone; `inv` and `div`, which make ⊥, obey the
whole policy.

Laws: Bergstra & Ponse, arXiv:1406.6878; Bergstra & Tucker, arXiv:2307.04270.
"""

import torch
from torch import Tensor

from zeroproof.autodiff.compiled import either
from zeroproof.scm.division import divide
from zeroproof.scm.operation import Operation, evaluate

__all__ = ["add", "div", "fill", "inv", "mul", "neg", "sub"]


def _inverse_pullback(g: Tensor, x: Tensor) -> tuple[Tensor]:
    return (-(g / x.conj()) / x.conj(),)


_FILL = Operation(torch.clone, lambda g, _: (g,), safe=(0,))
_ADD = Operation(torch.add, lambda g, _x, _y: (g, g), safe=(0, 0))
_SUB = Operation(torch.sub, lambda g, _x, _y: (g, -g), safe=(0, 0))
_MUL = Operation(torch.mul, lambda g, x, y: (g * y.conj(), g * x.conj()), safe=(0, 0))
_NEG = Operation(torch.neg, lambda g, _: (-g,), safe=(0,))
_INV = Operation(torch.reciprocal, _inverse_pullback, safe=(1,), partial=True)


def fill(x: Tensor, bottom: Tensor, fixed: int = -1) -> tuple[Tensor, Tensor]:
    """Return x itself, nan at ⊥; entries that are not finite are ⊥."""
    return evaluate(_FILL, bottom, x, fixed=fixed)


def add(x: Tensor, y: Tensor, bottom: Tensor, fixed: int = -1) -> tuple[Tensor, Tensor]:
    """Return x + y; x + ⊥ = ⊥."""
    return evaluate(_ADD, bottom, x, y, fixed=fixed)


def sub(x: Tensor, y: Tensor, bottom: Tensor, fixed: int = -1) -> tuple[Tensor, Tensor]:
    """Return x - y; x - ⊥ = ⊥ - x = ⊥."""
    return evaluate(_SUB, bottom, x, y, fixed=fixed)


def mul(x: Tensor, y: Tensor, bottom: Tensor, fixed: int = -1) -> tuple[Tensor, Tensor]:
    """Return x · y; x · ⊥ = ⊥, for x = 0 too."""
    return evaluate(_MUL, bottom, x, y, fixed=fixed)


def neg(x: Tensor, bottom: Tensor, fixed: int = -1) -> tuple[Tensor, Tensor]:
    """Return -x; -⊥ = ⊥."""
    return evaluate(_NEG, bottom, x, fixed=fixed)


def inv(x: Tensor, bottom: Tensor, fixed: int = -1) -> tuple[Tensor, Tensor]:
    """Return x⁻¹; 0⁻¹ = ⊥⁻¹ = ⊥."""
    return evaluate(_INV, either(bottom, x == 0), x, fixed=fixed)


def div(x: Tensor, y: Tensor, bottom: Tensor, fixed: int = -1) -> tuple[Tensor, Tensor]:
    """Return x / y = x · y⁻¹; x / 0 = ⊥."""
    return divide(x, y, bottom, fixed)
