"""The policy in force as three numbers: an operation that a compiled graph calls at run time."""

import torch
from torch import Tensor

from zeroproof.autodiff.in_force import ruling_in_force

__all__ = ["policy_scalars"]


@torch.library.custom_op("zeroproof::policy_scalars", mutates_args=())
def policy_scalars(gradient: Tensor, fixed: int) -> Tensor:
    """Return what `ruling_in_force` returns, where `gradient` is."""
    return torch.tensor([float(x) for x in ruling_in_force(fixed)], device=gradient.device)


@policy_scalars.register_fake
def _(gradient: Tensor, fixed: int) -> Tensor:
    return torch.empty(3, dtype=torch.float32, device=gradient.device)


def _vmap(info: object, in_dims: object, gradient: Tensor, fixed: int) -> tuple[Tensor, None]:
    return policy_scalars(gradient, fixed), None


torch.library.register_vmap("zeroproof::policy_scalars", _vmap)
