"""Time the rational layers forward and backward beside relu and a hand-written Horner pair.

Run: OMP_NUM_THREADS=1 python -m benchmarks.speed.rational [--size 1000000] [--repeats 15]

All contestants take turns in one process, on one thread. The allocator keeps its memory: otherwise
relu pays for page faults and swings tenfold from one process to the next.
"""

import argparse
import ctypes
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from zeroproof.layers import ProjectiveRational, Rational
from zeroproof.scm import SCM

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
COEFFICIENTS = ([0.0, 1.0, 0.1, 0.2, 0.1, 0.1], [1.0, 0.1, 0.2, 0.1, 0.1])


def keep_memory() -> bool:
    """Tell glibc not to hand memory back; false where there is no glibc."""
    try:
        libc = ctypes.CDLL("libc.so.6")
    except OSError:
        return False
    options = ((_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, 2**28), (_M_MMAP_THRESHOLD, 2**25))
    return all(libc.mallopt(*option) for option in options)


def horner_pair(x: Tensor, P: Tensor, Q: Tensor) -> tuple[Tensor, Tensor]:
    """Evaluate two polynomials as one would by hand."""
    values = []
    for c in (P, Q):
        value = c[-1] * x + c[-2]
        for k in range(len(c) - 3, -1, -1):
            value = value * x + c[k]
        values.append(value)
    return values[0], values[1]


def _gradients(function: Callable[..., object], x: Tensor, module: nn.Module | None = None) -> None:
    y = function(x)
    outputs = (y.payload,) if isinstance(y, SCM) else (y,) if isinstance(y, Tensor) else tuple(y)
    parameters = () if module is None else tuple(module.parameters())
    torch.autograd.grad(outputs, (x, *parameters), [torch.ones_like(z) for z in outputs])


def contestants(n: int, compiled: bool) -> dict[str, Callable[[], object]]:
    """Return what is timed, by name."""
    x = torch.randn(n, requires_grad=True)
    column = x.detach().unsqueeze(-1).requires_grad_()
    source, target = torch.randn(n), torch.empty(n)
    with_mask = Rational((5, 4), init=COEFFICIENTS)
    without = Rational((5, 4), "tensor", init=COEFFICIENTS)
    pair = ProjectiveRational((3, 2), out_features=2)
    by_hand = nn.Module()
    by_hand.P, by_hand.Q = nn.Parameter(torch.randn(4, 2)), nn.Parameter(torch.randn(3, 1))
    entries: dict[str, Callable[[], object]] = {
        "relu": lambda: _gradients(torch.relu, x),
        "gelu": lambda: _gradients(nn.functional.gelu, x),
        "copy": lambda: target.copy_(source),
        "Rational, mask": lambda: _gradients(with_mask, x, with_mask),
        "Rational, tensor": lambda: _gradients(without, x, without),
        "Horner pair": lambda: _gradients(
            lambda x: horner_pair(x, by_hand.P, by_hand.Q), column, by_hand
        ),
        "ProjectiveRational": lambda: _gradients(pair, column, pair),
    }
    if compiled:
        fast = [torch.compile(m, fullgraph=True) for m in (with_mask, without, pair)]
        hand = torch.compile(lambda x: horner_pair(x, by_hand.P, by_hand.Q), fullgraph=True)
        entries |= {
            "Rational, mask, compiled": lambda: _gradients(fast[0], x, with_mask),
            "Rational, tensor, compiled": lambda: _gradients(fast[1], x, without),
            "ProjectiveRational, compiled": lambda: _gradients(fast[2], column, pair),
            "Horner pair, compiled": lambda: _gradients(hand, column, by_hand),
        }
    return entries


def measure(entries: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Return milliseconds of each, taken in turns."""
    for run in entries.values():
        run()
        run()
    times: dict[str, list[float]] = {name: [] for name in entries}
    for _ in range(repeats):
        for name, run in entries.items():
            start = time.perf_counter()
            run()
            times[name].append((time.perf_counter() - start) * 1e3)
    return times


def saved_bytes(n: int) -> float:
    """Return the bytes for each entry that `Rational` keeps for backward."""
    sizes: list[int] = []

    def note(t: Tensor) -> Tensor:
        sizes.append(t.numel() * t.element_size())
        return t

    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        Rational((5, 4), init=COEFFICIENTS)(torch.randn(n, requires_grad=True))
    return sum(sizes) / n


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=10**6)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--eager", action="store_true", help="leave out compiled contestants")
    arguments = parser.parse_args()
    kept = keep_memory()
    torch.set_num_threads(1)
    times = measure(contestants(arguments.size, not arguments.eager), arguments.repeats)
    print(f"allocator keeps memory: {kept}; bytes saved: {saved_bytes(arguments.size):.2f}")
    print(f"{'':30} {'min ms':>8} {'median':>8} {'x relu':>8} {'x Horner pair':>14}")
    low = {name: min(values) for name, values in times.items()}
    for name, values in times.items():
        ratios = [low[name] / low[anchor] for anchor in ("relu", "Horner pair")]
        middle = statistics.median(values)
        print(f"{name:30} {low[name]:8.3f} {middle:8.3f} {ratios[0]:8.2f} {ratios[1]:14.2f}")


if __name__ == "__main__":
    main()
