"""What the losses cost: forward and backward, as multiples of MSE(N / D) in the same process.

python -m benchmarks.speed.losses [--compiled] [--sizes 256,1000000] [--only NAME]
"""

import argparse
import ctypes
import os
import statistics
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor

from zeroproof.losses import implicit_loss, margin_loss, sign_consistency_loss
from zeroproof.training import SCMTrainingLoss, lift_targets

REPEATS = 21
clock = time.thread_time  # of this thread: other programs on the machine count for less
Step = Callable[[], object]


class Data(NamedTuple):
    """Outputs, targets as numbers and as tuples, and where the sign of a target is known."""

    N: Tensor
    D: Tensor
    y: Tensor
    Y_n: Tensor
    Y_d: Tensor
    known: Tensor


def data(n: int, bottom: float = 0.01, poles: float = 0.0, bad: float = 0.0) -> Data:
    """Return n rows: `bottom` of the targets are ±inf or nan, `poles` of D are below τ_train."""
    make = torch.Generator().manual_seed(0)
    N, D, y = torch.randn(3, n, generator=make)
    D = torch.where(torch.rand(n, generator=make) < poles, 1e-5 * D, D)
    N = torch.where(torch.rand(n, generator=make) < bad, torch.nan, N)
    picked = torch.rand(n, generator=make) < bottom
    kinds = torch.tensor([torch.inf, -torch.inf, torch.nan])
    lifted = torch.where(picked, kinds[torch.arange(n) % 3], y)
    Y_n, Y_d = lift_targets(lifted)
    return Data(N.requires_grad_(), D.requires_grad_(), y, Y_n, Y_d, ~torch.isnan(lifted))


def anchor(x: Data) -> Tensor:
    """Return MSE(N / D)."""
    return (x.N / x.D - x.y).square().mean()


def combined(**options: object) -> Callable[[Data], Tensor]:
    """Return the combined loss with these options, of data."""
    loss_fn = SCMTrainingLoss(**options)  # pyright: ignore[reportArgumentType]
    return lambda x: loss_fn(outputs=(x.N, x.D), targets=(x.Y_n, x.Y_d))


ANGLE = {"score": "angle", "relative_margin": True, "sign_variant": "angle"}
LOSSES: Mapping[str, Callable[[Data], Tensor]] = {
    "all parts": combined(),
    "all parts, masked": lambda x: SCMTrainingLoss()(
        outputs=(x.N, x.D), targets=(x.Y_n, x.Y_d), mask=x.known
    ),
    "all parts, low coverage": combined(target_coverage=1.0),
    "chordal": combined(normalizer="chordal"),
    "chordal, angle": combined(normalizer="chordal", **ANGLE),
    "attached": combined(normalizer="attached"),
    "fit alone": combined(lambda_margin=0, lambda_sign=0, lambda_rejection=0),
    "oriented": combined(oriented=True),
    "implicit_loss": lambda x: implicit_loss(x.N, x.D, x.Y_n, x.Y_d),
    "margin_loss": lambda x: margin_loss(x.D, N=x.N),
    "sign_consistency_loss": lambda x: sign_consistency_loss(x.N, x.D, x.Y_n, x.Y_d),
}
ROWS = {
    "1 % ⊥": {},
    "50 % ⊥": {"bottom": 0.5},
    "50 % poles": {"bottom": 0.5, "poles": 0.5},
    "0.1 % nan": {"bad": 0.001},
}


def fixed_memory() -> None:
    """Keep freed memory in the process: page faults would swing every timing."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        trim_threshold, mmap_threshold = -1, -3
        libc.mallopt(mmap_threshold, 1 << 30)
        libc.mallopt(trim_threshold, (1 << 31) - 1)


def step(loss: Callable[[Data], Tensor], x: Data) -> Step:
    """Return one forward and backward."""
    return lambda: torch.autograd.grad(loss(x), (x.N, x.D), allow_unused=True)


def times(steps: list[Step], calls: int) -> list[list[float]]:
    """Time the steps in turn, `REPEATS` times, each the mean of some calls, in microseconds."""
    for run in steps:
        for _ in range(3):
            run()
    taken: list[list[float]] = [[] for _ in steps]
    for _ in range(REPEATS):
        for run, mine in zip(steps, taken, strict=True):
            start = clock()
            for _ in range(calls):
                run()
            mine.append(1e6 * (clock() - start) / calls)
    return taken


def saved_bytes(loss: Callable[[Data], Tensor], x: Data) -> int:
    """Return the bytes of the storages that forward keeps for backward."""
    kept: dict[int, int] = {}

    def keep(saved: Tensor) -> Tensor:
        kept[saved.untyped_storage().data_ptr()] = saved.untyped_storage().nbytes()
        return saved

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda saved: saved):
        loss(x)
    return sum(kept.values())


def line(name: str, loss: Callable[[Data], Tensor], x: Data) -> str:
    """Return one line of the table."""
    n = x.N.numel()
    mine, base = times([step(loss, x), step(anchor, x)], max(1, 20_000 // n))
    ratio = statistics.median(a / b for a, b in zip(mine, base, strict=True))
    return (
        f"{name:38}{n:9}{statistics.median(mine):11.0f}{min(mine):10.0f}"
        f"{statistics.median(base):10.0f}{ratio:8.2f}{min(mine) / min(base):8.2f}"
        f"{saved_bytes(loss, x) / 1e6:9.2f}"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--sizes", default="256,4096,65536,1000000,10000000")
    parser.add_argument("--only", default="")
    parser.add_argument("--rows", default="1 % ⊥", help=f"one of {', '.join(ROWS)}, or all")
    options = parser.parse_args()
    torch.set_num_threads(1)
    fixed_memory()
    print(f"µs, {REPEATS} repeats in turn with MSE(N / D); ratio: median of ratios, and of minima")
    print(
        f"{'loss':38}{'rows':>9}{'median':>11}{'min':>10}{'MSE':>10}{'ratio':>8}{'min':>8}"
        f"{'MB kept':>9}"
    )
    kinds = ROWS if options.rows == "all" else {options.rows: ROWS[options.rows]}
    for name, loss in LOSSES.items():
        if options.only not in name:
            continue
        run = torch.compile(loss, fullgraph=True) if options.compiled else loss
        for size in map(int, options.sizes.split(",")):
            for kind, rows in kinds.items():
                print(line(f"{name}; {kind}", run, data(size, **rows)), flush=True)


if __name__ == "__main__":
    main()
