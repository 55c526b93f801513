"""What torch offers only under private names, in one place."""

# pyright: reportPrivateUsage=false

from typing import Any

import torch

__all__ = ["is_tracing", "stash", "stashed"]


def stash(key: str, entry: Any) -> None:
    """Put an entry into torch's thread-local store, which autograd's worker threads inherit."""
    torch._C._stash_obj_in_tls(key, entry)


def stashed(key: str) -> Any:
    """Return what is stored under `key` in this thread, or `None`."""
    return torch._C._get_obj_in_tls(key) if torch._C._is_key_in_tls(key) else None


def is_tracing() -> bool:
    """Tell whether `torch.jit.trace` is recording."""
    return torch._C._get_tracing_state() is not None
