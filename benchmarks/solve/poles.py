"""Five functions with poles on [-1, 1], clean samples of them, and what scipy's AAA makes of these.

Errors are relative, medians over points beside the poles. AAA has its best tolerance in every
column, chosen with knowledge of the truth. Poles within 1e-6 of each other count once.
"""

import math
import warnings
from collections.abc import Callable
from typing import NamedTuple

import torch
from scipy.interpolate import AAA
from torch import Tensor

ROWS = 2000
TOLERANCES = (1e-15, 1e-14, 1e-13, 1e-12, 1e-11, 1e-9)
A = 0.137
THREE, RESIDUES = (
    torch.tensor(values, dtype=torch.float64) for values in ((-0.61, 0.137, 0.77), (0.5, -1.2, 0.8))
)
TAN = [-math.pi / 8, math.pi / 8]


class Problem(NamedTuple):
    """A function, its poles in [-1, 1] and how near the answer must come to them."""

    name: str
    f: Callable[[Tensor], Tensor]
    poles: list[float]
    bound: float  # of the pole position


class Score(NamedTuple):
    """How one fit did."""

    position: float  # largest distance of a true pole to the nearest found
    surplus: int  # poles found on [-1, 1] beyond the true number
    near: float  # 1e-3 to 1e-1 from a pole
    within: float  # 1e-6 to 1e-3
    far: float  # beyond 1e-1


PROBLEMS = (
    Problem("1/(x-a)", lambda x: 1 / (x - A), [A], 1e-11),
    Problem(
        "three poles", lambda x: (RESIDUES / (x[:, None] - THREE)).sum(1), THREE.tolist(), 1e-11
    ),
    Problem("tan 4x", lambda x: torch.tan(4 * x), TAN, 1e-11),
    Problem("1/(x-a)^2", lambda x: (x - A) ** -2, [A], 1e-6),
    Problem("tan + double", lambda x: torch.tan(4 * x) + (x - A) ** -2, [*TAN, A], 1e-6),
)


def samples(problem: Problem, seed: int, gap: float) -> tuple[Tensor, Tensor]:
    """Draw rows at random, none nearer to a pole than `gap`."""
    x = 2 * torch.rand(ROWS, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 1
    x = x[distance(problem, x) > gap]
    return x, problem.f(x)


def distance(problem: Problem, x: Tensor) -> Tensor:
    """Return the distance to the nearest pole."""
    return (x[:, None] - torch.tensor(problem.poles, dtype=torch.float64)).abs().amin(1)


def band(problem: Problem, low: float, high: float) -> Tensor:
    """Return points on both sides of every pole, evenly spread in the logarithm of the distance."""
    step = torch.logspace(math.log10(low), math.log10(high), 500, dtype=torch.float64)
    x = torch.cat([pole + side * step for pole in problem.poles for side in (-1, 1)])
    gap = distance(problem, x)
    return x[(x.abs() < 1) & (gap > low * 0.99) & (gap < high * 1.01)]


def score(problem: Problem, answer: Callable[[Tensor], Tensor], found: Tensor) -> Score:
    """Compare an answer and its poles on [-1, 1] with the truth."""
    even = torch.linspace(-1, 1, 4001, dtype=torch.float64)
    parts = (
        band(problem, 1e-3, 1e-1),
        band(problem, 1e-6, 1e-3),
        even[distance(problem, even) > 0.1],
    )
    errors = [float(((answer(x) - problem.f(x)) / problem.f(x)).abs().median()) for x in parts]
    gaps = [float((found - pole).abs().min()) if len(found) else math.inf for pole in problem.poles]
    return Score(max(gaps), len(found) - len(problem.poles), errors[0], errors[1], errors[2])


def aaa(problem: Problem, x: Tensor, y: Tensor) -> Score:
    """Return AAA's best value of every column over the tolerances."""
    scores = []
    for rtol in TOLERANCES:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a tolerance may be out of reach
            r = AAA(x.numpy(), y.numpy(), rtol=rtol)
        found = torch.from_numpy(r.poles()).to(torch.complex128)
        real = found.real[(found.imag.abs() < 1e-6) & (found.real.abs() < 1)].sort()[0]
        real = real[real.diff(prepend=torch.tensor([-math.inf])) > 1e-6]
        scores.append(score(problem, lambda x, r=r: torch.from_numpy(r(x.numpy())), real))
    position, surplus, near, within, far = zip(*scores, strict=True)
    return Score(min(position), min(surplus, key=abs), min(near), min(within), min(far))
