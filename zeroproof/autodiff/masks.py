"""Bytes and booleans of compiled graphs turned into each other, outside of the kernels.

Import this file where they are called: to register three operations takes as long as a room.
"""

import torch
from torch import Tensor

__all__ = ["as_bytes", "as_mask", "as_two_masks"]


@torch.library.custom_op("zeroproof::as_mask", mutates_args=())
def as_mask(flags: Tensor) -> Tensor:
    """Return bytes as booleans, outside of the kernel that made them."""
    return flags.view(torch.bool).clone()


@as_mask.register_fake
def _(flags: Tensor) -> Tensor:
    return torch.empty_like(flags, dtype=torch.bool)


@torch.library.custom_op("zeroproof::as_two_masks", mutates_args=())
def as_two_masks(flags: Tensor) -> tuple[Tensor, Tensor]:
    """Return where the lowest bit of a byte is set, and where the next one is: of 0, 1 and 2."""
    return (flags & 1).view(torch.bool), (flags >> 1).view(torch.bool)


@as_two_masks.register_fake
def _(flags: Tensor) -> tuple[Tensor, Tensor]:
    mask = torch.empty_like(flags, dtype=torch.bool)
    return mask, torch.empty_like(mask)


@torch.library.custom_op("zeroproof::as_bytes", mutates_args=())
def as_bytes(mask: Tensor) -> Tensor:
    """Return booleans as bytes, outside of the kernel that reads them."""
    return mask.view(torch.uint8).clone()


@as_bytes.register_fake
def _(mask: Tensor) -> Tensor:
    return torch.empty_like(mask, dtype=torch.uint8)
