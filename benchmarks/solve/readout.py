"""How near to a pole the closed form stays right: python -m benchmarks.solve.readout [--seeds 5].

2000 clean samples of one variable on [-1, 1], no singular label; relative errors on a fine grid:
near (1e-3 … 1e-1 from a pole), within 1e-3, elsewhere; the error of the pole itself. Medians over
seeds, the worst seed in brackets. Beside it: least squares on the same random features, AAA with
its rtol swept and the best of it taken.
"""

import argparse
import warnings
from collections.abc import Callable
from typing import NamedTuple

import torch
from scipy.interpolate import AAA
from torch import Tensor

from zeroproof.layers.basis import chebyshev_basis
from zeroproof.projective import target_scale
from zeroproof.solve import Readout, choose_rho, spectral_readout
from zeroproof.solve.line import race_line

WIDTH, ROWS = 100, 2000
RTOLS = (1e-13, 1e-12, 1e-11, 1e-10, 1e-8)
TRAIN, HELD = slice(0, 1600), slice(1600, None)


class Task(NamedTuple):
    """A function with poles in [-1, 1]."""

    name: str
    truth: Callable[[Tensor], Tensor]
    poles: Tensor


class Errors(NamedTuple):
    """Median relative errors by distance from the nearest pole; the largest pole error."""

    near: float
    within: float
    elsewhere: float
    pole: float


Model = Callable[[Tensor], tuple[Tensor, Tensor]]  # x to (N, D)


def tasks() -> list[Task]:
    """Return the five functions."""

    def at(*poles: float) -> Tensor:
        return torch.tensor(poles, dtype=torch.float64)

    three, residues, pi = at(-0.61, 0.137, 0.77), at(0.5, -1.2, 0.8), torch.pi
    return [
        Task("1/(x-a)", lambda x: 1 / (x - 0.3), at(0.3)),
        Task("three poles", lambda x: (residues / (x[:, None] - three)).sum(1), three),
        Task("tan 5x", lambda x: (5 * x).tan(), at(-0.3 * pi, -0.1 * pi, 0.1 * pi, 0.3 * pi)),
        Task("1/(x-a)²", lambda x: 1 / (x - 0.3) ** 2, at(0.3)),
        Task("tan+double", lambda x: (3 * x).tan() + 1 / (x - 0.1) ** 2, at(-pi / 6, 0.1, pi / 6)),
    ]


def gap(x: Tensor, task: Task) -> Tensor:
    """Return the distance from the nearest pole."""
    return (x[:, None] - task.poles).abs().amin(1)


def samples(task: Task) -> tuple[Tensor, Tensor]:
    """Return x and y, none within 1e-3 of a pole."""
    x = torch.rand(ROWS, dtype=torch.float64) * 2 - 1
    x = x[gap(x, task) > 1e-3]
    return x, task.truth(x)


def random_features() -> Callable[[Tensor], Tensor]:
    """Draw tanh features and a constant."""
    W = torch.randn(1, WIDTH, dtype=torch.float64) * 3
    c = torch.rand(WIDTH, dtype=torch.float64) * 6 - 3
    return lambda x: torch.cat([torch.ones_like(x)[:, None], torch.tanh(x[:, None] @ W + c)], 1)


def measured(model: Model, task: Task) -> Errors:
    """Compare a model with the truth on a grid."""
    x = torch.linspace(-1, 1, 200_001, dtype=torch.float64)
    d = gap(x, task)
    x, d = x[d > 0], d[d > 0]
    N, D = model(x)
    truth = task.truth(x)
    error = ((N / D - truth) / truth).abs()
    near = (d > 1e-3) & (d < 0.1)
    parts = [error[mask].median().item() for mask in (near, d <= 1e-3, d >= 0.1)]
    return Errors(*parts, max(pole_error(model, pole.item()) for pole in task.poles))


def pole_error(model: Model, pole: float) -> float:
    """Distance of the nearest minimum of |D| / ‖(N, D)‖, by sections of ten; nan without one."""
    low, high = pole - 0.02, pole + 0.02
    while True:
        x = torch.linspace(low, high, 41, dtype=torch.float64)
        N, D = model(x)
        score = D.abs() / torch.hypot(N, D)
        at = int(score.argmin())
        found = x[at].item()
        step = (high - low) / 40
        if step < 1e-17 or at in {0, 40}:
            return abs(found - pole) if at not in {0, 40} or step < 1e-15 else float("nan")
        low, high = found - step, found + step


def head(fit: Readout, features_N: Callable, features_D: Callable, scale: float) -> Model:
    """Return the model of a readout in the units of y."""
    return lambda x: (scale * (features_N(x) @ fit.a), features_D(x) @ fit.b)


def fits(task: Task) -> dict[str, Errors]:
    """Fit one draw of samples and features with every method."""
    x, y = samples(task)
    scale, phi = target_scale(y), random_features()
    H, Y_n, Y_d = phi(x), y / scale, torch.ones_like(y)
    rho = choose_rho(H, Y_n, Y_d, TRAIN, HELD).rho
    fit = spectral_readout(H, Y_n, Y_d, rho=rho)
    domain = x.min().item(), x.max().item()
    best = race_line(x.numpy(), y[:, None].numpy(), plain=True).entry.candidate
    degrees = best.p, best.q
    bases = [lambda x, d=d: chebyshev_basis(x, d, domain=domain) for d in degrees]
    polynomial = spectral_readout(bases[0](x), Y_n, Y_d, H_D=bases[1](x), rho=1e-32)
    small = spectral_readout(H.float(), Y_n.float(), Y_d.float(), dtype=torch.float32)
    small = small._replace(a=small.a.double(), b=small.b.double())

    def squares(target: Tensor, back: Callable[[Tensor], Tensor]) -> Model:
        c = torch.linalg.lstsq(H, target[:, None], driver="gelsd").solution[:, 0]
        return lambda x: (back(phi(x) @ c), torch.ones_like(x))

    return {
        "readout, 100 tanh features": measured(head(fit, phi, phi, scale), task),
        "readout, Chebyshev, degrees chosen": measured(head(polynomial, *bases, scale), task),
        "readout, 100 tanh, all float32": measured(head(small, phi, phi, scale), task),
        "least squares, same features": measured(squares(y, lambda z: z), task),
        "least squares of asinh y": measured(squares(y.asinh(), torch.sinh), task),
        "AAA, best rtol": best_aaa(x, y, task),
    }


def best_aaa(x: Tensor, y: Tensor, task: Task) -> Errors:
    """Fit AAA with several rtol and take the best near the poles."""
    found = []
    for rtol in RTOLS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fit = AAA(x.numpy(), y.numpy(), rtol=rtol)
            poles = torch.from_numpy(fit.poles())
            errors = measured(
                lambda x, fit=fit: (torch.from_numpy(fit(x.numpy())), torch.ones_like(x)), task
            )
        nearest = (poles[:, None] - task.poles).abs().amin(0).max().item()
        found.append(errors._replace(pole=nearest))
    return min(found, key=lambda errors: errors.near)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    seeds = parser.parse_args().seeds
    torch.set_num_threads(1)  # small matrices: threads only wait for each other
    print(f"{ROWS} clean samples, {seeds} seeds: median (worst)\n")
    print("| task | method | near | within 1e-3 | elsewhere | pole |\n|---|---|---|---|---|---|")
    for task in tasks():
        runs = []
        for seed in range(seeds):
            torch.manual_seed(seed)
            runs.append(fits(task))
        for method in runs[0]:
            table = torch.tensor([run[method] for run in runs])
            cells = [cell(column) for column in table.unbind(1)]
            print(f"| {task.name} | {method} | " + " | ".join(cells) + " |", flush=True)


def cell(values: Tensor) -> str:
    """Return median and worst."""
    if values.isnan().any():
        return "none"
    return f"{values.median():.1e} ({values.max():.1e})"


if __name__ == "__main__":
    main()
