"""The door to native kernels: whether they are wanted and installed, and who shares the work."""

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any, TypeVar

import torch
from torch import Tensor

from zeroproof.autodiff.eager import ordinary

__all__ = ["array", "available", "disabled", "empty", "in_parts", "native", "served"]

Result = TypeVar("Result")

_GRAIN = 65_536  # entries worth a thread
_wanted = os.environ.get("ZEROPROOF_NATIVE", "1") != "0"


@cache
def _installed() -> bool:
    return find_spec("numba") is not None


@cache
def _module(name: str) -> ModuleType | None:
    try:
        return import_module(name if "." in name else f"zeroproof.native.{name}")
    except ImportError:  # Numba may be there and refuse this version of NumPy or Python
        return None


def available() -> bool:
    """Tell whether native kernels are installed and wanted.

    Examples:
        >>> with disabled():
        ...     available()
        False
    """
    return _wanted and not _pauses.count and _installed()


class _Pauses:
    """How many `with disabled()` blocks are open, in all threads, since backward has its own."""

    def __init__(self) -> None:
        self.count, self._lock = 0, threading.Lock()

    def add(self, more: int) -> None:
        with self._lock:
            self.count += more


_pauses = _Pauses()


@contextlib.contextmanager
def disabled() -> Iterator[None]:
    """Leave everything to torch inside the `with` block, in all threads; blocks may overlap.

    Examples:
        >>> with disabled():
        ...     pass  # compare, or time, what torch alone does
    """
    _pauses.add(1)
    try:
        yield
    finally:
        _pauses.add(-1)


def served(*tensors: Tensor) -> bool:
    """Tell whether native kernels may take these: ordinary float32 tensors on a CPU, in eager."""
    # `ordinary` first: nothing of this file shall enter a traced graph
    return ordinary(*tensors) and tensors[0].dtype is torch.float32 and available()


def native(name: str, *tensors: Tensor) -> Any:
    """Return a module of kernels if it may take these tensors, else `None`.

    It is `zeroproof.native.NAME`, or the module of that dotted name in a room above.
    """
    return _module(name) if served(*tensors) else None


def array(x: Tensor) -> Any:
    """Return the entries of a tensor in one row, as NumPy sees them."""
    return x.detach().resolve_neg().contiguous().numpy().reshape(-1)


def empty(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Return a tensor for a kernel to fill, whatever torch's default device is."""
    return torch.empty(shape, dtype=dtype, device="cpu")


class _Pool:
    """Threads of this process: a fork has none of its parent's."""

    def __init__(self) -> None:
        self._lock, self._threads, self._size = threading.Lock(), None, 0
        if hasattr(os, "register_at_fork"):  # there are platforms without forks
            os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self._lock, self._threads, self._size = threading.Lock(), None, 0

    def of(self, size: int) -> ThreadPoolExecutor:
        with self._lock:
            if self._threads is None or self._size < size:
                self._threads, self._size = ThreadPoolExecutor(size, "zeroproof-native"), size
            return self._threads


_pool = _Pool()


def in_parts(run: Callable[[int, int], Result], n: int, rows: int = 1) -> list[Result]:
    """Run `run(start, stop)` on parts of n entries, on as many threads as torch uses.

    Kernels release Python's lock. Parts start at multiples of `rows`, and their results come in
    order, so that sums of them depend on the number of threads alone.
    """
    threads = min(torch.get_num_threads(), n // _GRAIN)
    if threads < 2:
        return [run(0, n)]
    step = -(-n // (threads * rows)) * rows
    cuts = [(start, min(start + step, n)) for start in range(0, n, step)]
    try:
        waiting = [_pool.of(threads).submit(run, *cut) for cut in cuts[1:]]
    except RuntimeError:  # the interpreter is about to end, and starts no threads
        return [run(0, n)]
    return [run(*cuts[0]), *(other.result() for other in waiting)]
