"""Native kernels, an optional extra: one pass over memory where torch takes one for each operation.

`pip install "zeroproof-scm[native]"` brings Numba, which compiles them on first use (a few seconds,
kept on disk) and needs no compiler on the machine. They serve ordinary float32 tensors on a CPU in
eager mode; everything else, and an environment without Numba, is computed by torch. Results agree
to rounding. The environment variable `ZEROPROOF_NATIVE=0` turns them off.
"""

# A room keeps its kernels in a file `*loops.py`, beside the formulas that they run, and imports it
# by `loops_for` alone: the file imports Numba. Here stand what such files share, and which tensors
# kernels may take, also those that torch runs in chunks.

# pyright: reportPrivateUsage=false

import contextlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from hashlib import sha256
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

__all__ = [
    "array",
    "available",
    "disabled",
    "empty",
    "for_numbers",
    "in_parts",
    "is_forward_mode",
    "is_recording",
    "is_tracing",
    "is_transforming",
    "kernel",
    "loops_for",
    "ordinary",
    "served",
    "summing",
]

Result = TypeVar("Result")

# --- which tensors kernels may take ---------------------------------------------------------------

_REAL = (torch.float32, torch.float64)
_KINDS = (Tensor, nn.Parameter)  # a subclass may mean anything by an operation


def is_tracing() -> bool:
    """Tell whether `torch.jit.trace` is recording."""
    return torch._C._get_tracing_state() is not None


def is_transforming() -> bool:
    """Tell whether a transform of `torch.func` is at work."""
    return torch._C._are_functorch_transforms_active()


def is_forward_mode() -> bool:
    """Tell whether derivatives may travel forward: by dual tensors or `torch.func.jvp`.

    Not while compiling: torch's compiler refuses autograd functions with a `jvp`.
    """
    return not torch.compiler.is_compiling() and forward_ad._current_level >= 0


def is_recording() -> bool:
    """Tell whether `make_fx` records operations, for which tensors have no values."""
    return torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.PROXY) is not None


def ordinary(*tensors: Tensor) -> bool:
    """Tell whether these are real tensors on a CPU, of one type, that nobody but autograd watches.

    Compilers, `torch.func` and forward mode need operations which they know, and which do not
    depend on values; an accelerator would be waited for.
    """
    if torch.compiler.is_compiling() or torch.compiler.is_exporting():
        return False
    if is_tracing() or is_transforming() or is_forward_mode() or is_recording():
        return False
    dtype = tensors[0].dtype
    return dtype in _REAL and all(
        type(x) in _KINDS and x.is_cpu and x.dtype == dtype and _has_memory(x) for x in tensors
    )


def _has_memory(x: Tensor) -> bool:
    """Tell a tensor from a stand-in for many, as gradients taken in batches are."""
    try:
        x.data_ptr()
    except RuntimeError:
        return False
    return True


# --- whether Numba's are used ---------------------------------------------------------------------

_wanted = os.environ.get("ZEROPROOF_NATIVE", "1") != "0"


@cache
def _installed() -> bool:
    return find_spec("numba") is not None


@cache
def _module(name: str) -> ModuleType | None:
    try:
        return import_module(f"zeroproof.{name}")
    except ImportError:  # Numba may be there and refuse this version of NumPy or Python
        return None


class _Pauses:
    """How many `with disabled()` blocks are open, in all threads, since backward has its own."""

    def __init__(self) -> None:
        self.count, self._lock = 0, threading.Lock()

    def add(self, more: int) -> None:
        with self._lock:
            self.count += more


_pauses = _Pauses()


def available() -> bool:
    """Tell whether native kernels are installed and wanted.

    Examples:
        >>> with disabled():
        ...     available()
        False
    """
    return _wanted and not _pauses.count and _installed()


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


def loops_for(name: str, *tensors: Tensor) -> Any:
    """Return a module of kernels if it may take these tensors, else `None`.

    `loops_for("losses.loops", N, D)` may return `zeroproof.losses.loops`.
    """
    return _module(name) if served(*tensors) else None


# --- how they are compiled ------------------------------------------------------------------------

# a product and a sum may round once, as C compilers do; nan and inf keep their meaning
_CONTRACT = {"contract"}
# the order of a sum is free, so that it is made in lanes: for kernels that do nothing but sum
_SUM = {"contract", "reassoc", "nsz"}

# Numba would compile a kernel anew only when its own file changes, not when one that it calls does,
# nor when a formula does whose code it takes from another file
_ROOMS = Path(__file__).parent
_SOURCES = [
    Path(__file__),
    _ROOMS / "scm" / "division.py",
    *sorted(_ROOMS.glob("*/*formulas.py")),
    *sorted(_ROOMS.glob("*/*loops.py")),
]


@cache
def _stamp() -> str:
    return sha256(b"".join(path.read_bytes() for path in _SOURCES)).hexdigest()


class _Kept:
    """Numba's cache of a kernel on disk: one that cannot be read is made anew, or done without."""

    def __init__(self, cache: Any) -> None:
        self._cache = cache
        cache._cache_file._source_stamp = _stamp()  # Numba offers no other way

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cache, name)

    def load_overload(self, signature: Any, context: Any) -> Any:
        try:
            return self._cache.load_overload(signature, context)
        except Exception:  # what was cut off may fail in any way when it is read
            try:
                self._cache.flush()
            except OSError:
                self._cache.disable()
            return None

    def save_overload(self, signature: Any, compiled: Any) -> None:
        with contextlib.suppress(OSError):  # as of a full disk: the kernel itself is there
            self._cache.save_overload(signature, compiled)


def _compiled(function: Callable[..., Any], flags: set[str]) -> Any:
    from numba import njit

    options = {"nogil": True, "error_model": "numpy", "fastmath": flags}
    try:
        kept: Any = njit(cache=True, **options)(function)
    except RuntimeError:  # neither this folder nor the user's cache can be written
        return njit(**options)(function)
    if hasattr(kept, "_cache"):  # not with compilation switched off, NUMBA_DISABLE_JIT
        kept._cache = _Kept(kept._cache)
    return kept


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a function of arrays and numbers; it must not depend on the order of a sum."""
    return _compiled(function, _CONTRACT)


def summing(function: Callable[..., Any]) -> Any:
    """Compile a function that sums; sums of powers and products alone, without comparisons."""
    return _compiled(function, _SUM)


def for_numbers(
    formulas: Iterable[Any], helpers: dict[str, Any], exact: Sequence[str] = ()
) -> dict[str, Any]:
    """Return formulas of tensors for use in kernels, by name: the same code objects.

    Args:
        formulas: Functions that call only each other and helpers; what is none is left out.
        helpers: Twins for numbers of what else a formula looks up, such as `torch.where`.
        exact: Formulas whose products and sums are rounded one after the other.
    """
    from numba import njit

    names = dict(helpers)
    for formula in formulas:
        name = getattr(formula, "__name__", "")
        if name in helpers or not isinstance(formula, FunctionType):
            continue
        # inlined, it takes the flags of the kernel
        options: dict[str, Any] = {"fastmath": False} if name in exact else {"inline": "always"}
        copied = FunctionType(formula.__code__, names, name)
        names[name] = njit(error_model="numpy", **options)(copied)
    return names


# --- tensors as arrays, and who shares the work ---------------------------------------------------


def array(x: Tensor) -> Any:
    """Return the entries of a tensor in one row, as NumPy sees them."""
    x = x.detach() if x.requires_grad else x
    return x.resolve_neg().contiguous().numpy().reshape(-1)


def empty(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Return a tensor for a kernel to fill, whatever torch's default device is."""
    return torch.empty(shape, dtype=dtype, device="cpu")


_GRAIN = 65_536  # entries worth a thread


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
