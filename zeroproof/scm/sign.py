"""The weak sign: direction without size, total on the meadow."""

import torch
from torch import Tensor

from zeroproof.scm.operation import Operation, evaluate
from zeroproof.scm.value import SCM, Operand, as_scm, trusted

__all__ = ["weak_sign"]


def _pullback(g: Tensor, z: Tensor) -> tuple[Tensor]:
    if not z.is_complex():
        return (torch.zeros_like(g * z),)
    s = torch.sgn(z)
    # along the circle only: the part of g that points along z is removed
    return ((g - s * (s.conj() * g).real) / z.abs(),)


_SIGN = Operation(torch.sgn, _pullback, safe=(1,), steep=lambda z: z == 0, holomorphic=False)


def weak_sign(x: Operand) -> SCM:
    r"""Return s(z) = z / \|z\|, s(0) = 0, s(⊥) = ⊥.

    Real values give -1, 0, 1 or ⊥ (the 4-valued sign), complex ones a point of the unit circle, 0
    or ⊥.
    The gradient is 0 for real values and at 0, and tangential to the circle for complex ones.

    Source: Bergstra & Tucker 2024, doi 10.36285/tm.97.

    Examples:
        >>> weak_sign(torch.tensor([-3.0, 0.0, float("nan")]))
        SCM(payload=tensor([-1.,  0., nan]), bottom=tensor([False, False,  True]))
    """
    x = as_scm(x)
    return trusted(*evaluate(_SIGN, x.bottom, x.payload))
