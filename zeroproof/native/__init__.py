"""Native kernels, an optional extra: one pass over memory where torch takes one for each operation.

`pip install "zeroproof-scm[native]"` brings Numba, which compiles them on first use (a few seconds,
kept on disk) and needs no compiler on the machine. They serve ordinary float32 tensors on a CPU in
eager mode; everything else, and an environment without Numba, is computed by torch. Results agree
to rounding. The environment variable `ZEROPROOF_NATIVE=0` turns them off.
"""

from zeroproof.native.door import available, disabled

__all__ = ["available", "disabled"]
