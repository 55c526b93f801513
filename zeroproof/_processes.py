"""In how many processes a program runs: what its launcher says, and what torch made of it."""

import os

import torch

__all__ = ["started", "world_sizes"]


def started() -> tuple[int, int]:
    """Return (rank, number of processes): those of `torch.distributed`, or what `torchrun` says.

    It says so in the environment, before there is a group; (0, 1) where nobody says anything.
    """
    if _grouped():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    found = [os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE")]
    return (int(found[0]), int(found[1])) if all(map(str.isdecimal, found)) else (0, 1)


def world_sizes() -> dict[str, int]:
    """Return the number of processes by everyone who tells one; they should agree."""
    said = os.environ.get("WORLD_SIZE", "")
    sizes = {"WORLD_SIZE": int(said)} if said.isdecimal() else {}
    return sizes | ({"torch.distributed": torch.distributed.get_world_size()} if _grouped() else {})


def _grouped() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()
