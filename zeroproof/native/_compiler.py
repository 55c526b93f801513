"""How kernels are compiled."""

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

from numba import njit

__all__ = ["bounded", "kernel", "summing"]

# a product and a sum may round once, as C compilers do; nan and inf keep their meaning
_CONTRACT = {"contract"}
# the order of a sum is free, so that it is made in lanes: for kernels that do nothing but sum
_SUM = {"contract", "reassoc", "nsz"}


# Numba would compile a kernel anew only when its own file changes, not when one that it calls does,
# nor when a formula does whose code it takes from another room
_ROOM = Path(__file__).parent
_SOURCES = sorted(
    [*_ROOM.glob("_*.py"), *_ROOM.parent.glob("*/*formulas.py"), *_ROOM.parent.glob("*/*loops.py")]
)
_STAMP = sha256(b"".join(path.read_bytes() for path in _SOURCES)).hexdigest()


def _compiled(function: Callable[..., Any], flags: set[str]) -> Any:
    options = {"nogil": True, "error_model": "numpy", "fastmath": flags}
    try:
        kept: Any = njit(cache=True, **options)(function)
    except RuntimeError:  # neither this folder nor the user's cache can be written
        return njit(**options)(function)
    index = getattr(getattr(kept, "_cache", None), "_cache_file", None)
    if index is not None:
        index._source_stamp = _STAMP  # noqa: SLF001 - Numba offers no other way
    return kept


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a function of arrays and numbers; it must not depend on the order of a sum."""
    return _compiled(function, _CONTRACT)


def summing(function: Callable[..., Any]) -> Any:
    """Compile a function that sums; sums of powers and products alone, without comparisons."""
    return _compiled(function, _SUM)


@kernel
def bounded(g, bound):  # pyright: ignore[reportMissingParameterType] - Numba finds them
    """Return g within ±bound; nan stays nan."""
    g = bound if g > bound else g
    return -bound if g < -bound else g
