"""Homogeneous tuples ⟨N, D⟩: what stands for a value, ∞ included, while a model learns."""

from typing import NamedTuple

import torch
from torch import Tensor

from zeroproof._checks import same_shape
from zeroproof.autodiff.gate import gate
from zeroproof.scm.pytree import register_namedtuple

__all__ = ["Pair", "encode", "gated"]


class Pair(NamedTuple):
    """A tuple ⟨N, D⟩ standing for N / D; all non-zero multiples are the same value."""

    N: Tensor
    D: Tensor


register_namedtuple(Pair)


def encode(payload: Tensor, bottom: Tensor | None = None) -> Pair:
    """Lift values to tuples: φ(x) = ⟨x, 1⟩ and φ(⊥) = ⟨1, 0⟩.

    Args:
        payload: Values of any shape, real or complex; entries that are not finite are ⊥. The
            fields of an `SCM` value may be passed as they are: `encode(*x)`.
        bottom: Further entries that are ⊥, boolean, in the shape of `payload`.

    Returns:
        A pair in the shape of `payload`. Gradients reach `payload` at finite entries.

    Raises:
        ShapeError: `bottom` has another shape.

    Examples:
        >>> encode(torch.tensor([2.0, float("nan")]))
        Pair(N=tensor([2., 1.]), D=tensor([1., 0.]))
    """
    is_bottom = ~torch.isfinite(payload)
    if bottom is not None:
        same_shape(bottom, payload, "bottom", "payload")
        is_bottom = is_bottom | bottom
    return Pair(torch.where(is_bottom, 1, payload), (~is_bottom).to(payload.dtype))


def gated(N: Tensor, D: Tensor, fixed: int) -> Pair:
    """Let the policy registered on a layer act on dL/dN and dL/dD; without one they pass.

    A tuple is ⊥ where it is ⟨0, 0⟩ or not finite; ⟨±1, 0⟩ is an ordinary point at infinity.
    """
    if fixed < 0:
        return Pair(N, D)
    bottom = ((N == 0) & (D == 0)) | ~torch.isfinite(N) | ~torch.isfinite(D)
    return Pair(*gate(N, D, bottom, fixed))
