"""Rows larger than memory, and what the factorisations cost: python -m benchmarks.solve.stream.

1. 10 million rows of 64 features are made block by block and solved; the peak resident memory of
   the process is printed (bound 1 GB).
2. One sweep over n = 1e5 rows against one `torch.linalg.qr` of the matrix that it factors (bound
   2), and 17 values of ρ along a path against 17 solutions (bound 1/5).
"""

import argparse
import resource
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zeroproof.solve import RHOS, readout_path, spectral_readout, streamed_readout
from zeroproof.solve.spectral import Settings, best_pair, path_pairs, sweep

POLE = 0.137
BLOCK = 100_000


class Made:
    """Blocks of samples of 1 / (x - a) on random features, the same at every reading."""

    def __init__(self, rows: int, features: int) -> None:
        self.blocks, self.features = rows // BLOCK, features
        self.W = torch.randn(1, features - 1, dtype=torch.float64) * 3
        self.c = torch.rand(features - 1, dtype=torch.float64) * 6 - 3

    def of(self, x: Tensor) -> Tensor:
        """Return the features of x."""
        hidden = torch.addmm(self.c, x[:, None], self.W).tanh_()
        return torch.cat([torch.ones_like(x)[:, None], hidden], 1)

    def __iter__(self) -> Iterator[tuple[Tensor, None, Tensor, Tensor]]:
        for number in range(self.blocks):
            random = torch.Generator().manual_seed(number)
            x = torch.rand(BLOCK, generator=random, dtype=torch.float64) * 2 - 1
            yield self.of(x), None, torch.ones_like(x), x - POLE


def stream(rows: int) -> None:
    """Solve more rows than fit in memory and print what it took."""
    torch.manual_seed(0)
    made = Made(rows, 64)
    before = peak()
    start = time.perf_counter()
    fit = streamed_readout(made, rho=1e-30, sweeps=2)
    seconds = time.perf_counter() - start
    x = torch.linspace(-1, 1, 20_001, dtype=torch.float64)
    near = ((x - POLE).abs() > 1e-3) & ((x - POLE).abs() < 0.1)
    H = made.of(x[near])
    error = ((H @ fit.a) / (H @ fit.b) * (x[near] - POLE) - 1).abs().median()
    size = rows * 64 * 8 / 1e9
    print(f"{made.blocks * BLOCK:.0e} rows x 64 features ({size:.1f} GB), 2 sweeps, 3 readings:")
    print(f"  peak resident memory {peak():.2f} GB (bound 1; {before:.2f} before), {seconds:.0f} s")
    print(f"  median relative error 1e-3 ... 1e-1 from the pole {error:.1e}")


def peak() -> float:
    """Return the peak resident memory in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def timed(work: Callable[[], Any], repeats: int = 3) -> float:
    """Return the least of several times, in seconds."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


class Cost(NamedTuple):
    """Seconds of a sweep and of a path, and of what they are compared with."""

    sweep: float
    qr: float  # torch.linalg.qr of [t Y_d H, -t Y_n H]
    triangle: float  # the same, mode="r"
    qr_features: float  # torch.linalg.qr of H alone
    path: float  # 17 values of ρ, from the factors
    singles: float  # 17 solutions from the same factors
    whole: float  # the path, with the rows
    readouts: float  # 17 readouts, with the rows


def ratios(n: int, features: int) -> Cost:
    """Time a sweep and a path over n rows."""
    torch.manual_seed(0)
    made = Made(BLOCK, features)
    x = torch.rand(n, dtype=torch.float64) * 2 - 1
    H, Y_n, Y_d = made.of(x), torch.ones_like(x), x - POLE
    A = torch.cat([H * Y_d[:, None], -H * Y_n[:, None]], 1)
    # the first reading also reduces H; what a further sweep adds is one sweep
    one, four = (
        timed(lambda s=s: spectral_readout(H, Y_n, Y_d, sweeps=s), repeats=2) for s in (1, 4)
    )
    _, (found,) = sweep([(H[:5000], None, Y_n[:5000], Y_d[:5000])], Settings())
    return Cost(
        sweep=(four - one) / 3,
        qr=timed(lambda: torch.linalg.qr(A)),
        triangle=timed(lambda: torch.linalg.qr(A, mode="r")),
        qr_features=timed(lambda: torch.linalg.qr(H)),
        path=timed(lambda: list(path_pairs(found.factors, RHOS))),
        singles=timed(lambda: [best_pair(found.factors, rho) for rho in RHOS], repeats=1),
        whole=timed(lambda: readout_path(H, Y_n, Y_d), repeats=1),
        readouts=timed(lambda: spectral_readout(H, Y_n, Y_d), repeats=1) * len(RHOS),
    )


def show(n: int, features: int) -> None:
    """Print what a sweep and a path cost."""
    cost = ratios(n, features)
    print(f"n = {n:.0e}, {2 * features} columns (2 x {features} features):")
    print(
        f"  a sweep {cost.sweep:.2f} s = {cost.sweep / cost.qr:.2f} of torch.linalg.qr (bound 2), "
        f"{cost.sweep / cost.triangle:.2f} of its mode='r', "
        f"{cost.sweep / cost.qr_features:.2f} of torch.linalg.qr of H alone"
    )
    print(
        f"  17 values of rho from the factors {cost.path:.3f} s = {cost.path / cost.singles:.3f} "
        "of 17 solutions from the same factors (bound 0.2)"
    )
    print(f"  with the rows: path {cost.whole:.1f} s = {cost.whole / cost.readouts:.3f} of 17")


def main() -> None:
    """Print memory and times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    stream(arguments.rows)
    for features in (100, 200):
        show(100_000, features)


if __name__ == "__main__":
    main()
