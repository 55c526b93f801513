"""Whether the training guide's recipe learns a pole: its single losses, as in its manual loop.

1 / (x - a) on 513 rows of [-1, 1], tanh layers (32, 32), Adam, batches of 32, 100 epochs. The near
error is the median of |answer - truth| / |truth| over those of 4000 fresh rows of [-1, 1] that lie
1e-3 to 0.1 from the pole. A run is one pole of three, one sign and one seed; ±inf labels stand
within 0.004 of the pole, by the side.

    python -m benchmarks.train.recipe 'own two heads' --seeds 0 5     # some lines, from 0 to 4
"""

import argparse
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from benchmarks.train.rows import Row
from zeroproof.autodiff.policies import GradientPolicy, gradient_policy
from zeroproof.layers import ProjectiveMLP
from zeroproof.losses.implicit import implicit_loss
from zeroproof.losses.margin import margin_loss
from zeroproof.losses.sign import sign_consistency_loss
from zeroproof.training.targets import lift_targets

POLES, SIGNS = (-0.5, 0.1, 0.3), (1.0, -1.0)
EPOCHS, BATCH = 100, 32
REACH = 0.004  # within which a row is labelled ±inf
BOUND = 0.1  # of the near error, in 95 % of the runs
Guide = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


class TwoHeads(nn.Module):
    """A net of one's own: two plain linear layers on one trunk."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh())
        self.N, self.D = nn.Linear(32, 1), nn.Linear(32, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return (N, D)."""
        h = self.trunk(x)
        return self.N(h), self.D(h)


def package() -> nn.Module:
    """Return the package's model."""
    return ProjectiveMLP(1, 1, hidden=(32, 32))


def whole() -> nn.Module:
    """Return the same with the whole gradient, radial part and all."""
    model = ProjectiveMLP(1, 1, hidden=(32, 32))
    model.head.radial = True
    return model


def guide(N: Tensor, D: Tensor, Y_n: Tensor, Y_d: Tensor, _: Tensor) -> Tensor:
    """Return the guide's sum, word for word."""
    loss_fit = implicit_loss(N, D, Y_n, Y_d)
    loss_margin = margin_loss(D, tau_train=1e-4)
    loss_sign = sign_consistency_loss(N, D, Y_n, Y_d)
    return loss_fit + 0.1 * loss_margin + 1.0 * loss_sign


def chordal(N: Tensor, D: Tensor, Y_n: Tensor, Y_d: Tensor, _: Tensor) -> Tensor:
    """Return the same with the one line that helps models of one's own."""
    loss_fit = implicit_loss(N, D, Y_n, Y_d, normalizer="chordal")
    loss_margin = margin_loss(D, tau_train=1e-4)
    loss_sign = sign_consistency_loss(N, D, Y_n, Y_d)
    return loss_fit + 0.1 * loss_margin + 1.0 * loss_sign


def turned(N: Tensor, D: Tensor, Y_n: Tensor, Y_d: Tensor, _: Tensor) -> Tensor:
    """Return the guide's sum with sign targets on the side of D."""
    loss_fit = implicit_loss(N, D, Y_n, Y_d)
    loss_margin = margin_loss(D, tau_train=1e-4)
    loss_sign = sign_consistency_loss(N, D, Y_n, Y_d, turned=True)
    return loss_fit + 0.1 * loss_margin + 1.0 * loss_sign


def near_error(
    pole: float,
    sign: float,
    seed: int,
    *,
    inf: bool,
    make: Callable[[], nn.Module],
    loss: Guide,
    rate: float,
    epochs: int = EPOCHS,
) -> float:
    """Train one model and return its near error."""
    torch.manual_seed(seed)
    x = torch.linspace(-1, 1, 513)[:, None]
    y = sign / (x - pole)
    if inf:
        y = torch.where((x - pole).abs() < REACH, y.sign() * math.inf, y)
    model = make()
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(BATCH):
            Y_n, Y_d = lift_targets(y[rows])
            total = loss(*model(x[rows]), Y_n, Y_d, y[rows])
            optimizer.zero_grad()
            with gradient_policy(GradientPolicy.PROJECT):
                total.backward()
            optimizer.step()
    fresh = torch.linspace(-0.999, 0.999, 4000)[:, None]
    off = (fresh - pole).abs().squeeze(1)
    fresh = fresh[(off > 1e-3) & (off < 0.1)]
    with torch.no_grad():
        N, D = model(fresh)
    return float((N / D * (fresh - pole) / sign - 1).abs().median())


def runs(seeds: range, **options: object) -> list[float]:
    """Return the near errors of all poles, signs and seeds."""
    return [
        near_error(pole, sign, seed, **options)  # pyright: ignore[reportArgumentType]
        for seed in seeds
        for pole in POLES
        for sign in SIGNS
    ]


LINES = {  # the model, the loss, Adam's rate, whether the bound is promised
    "ProjectiveMLP": (package, guide, 1e-2, True),
    "ProjectiveMLP, radial=True": (whole, guide, 1e-2, False),
    "ProjectiveMLP, turned": (package, turned, 1e-2, False),
    "ProjectiveMLP, lr 1e-3": (package, guide, 1e-3, False),
    "own two heads": (TwoHeads, guide, 1e-2, False),
    "own two heads, lr 1e-3": (TwoHeads, guide, 1e-3, False),
    "own two heads, chordal": (TwoHeads, chordal, 1e-2, False),
}


def recipe(
    *, quick: bool, names: tuple[str, ...] = tuple(LINES), seeds: range = range(10)
) -> Iterator[Row]:
    """Count the runs that learn the pole; in quick ones none has the time to."""
    for name in names:
        make, loss, rate, promised = LINES[name]
        for inf in (False, True):
            epochs = 1 if quick else EPOCHS
            options = {"make": make, "loss": loss, "rate": rate, "epochs": epochs}
            errors = sorted(runs(range(1) if quick else seeds, inf=inf, **options))
            learned = 100 * sum(error <= BOUND for error in errors) / len(errors)
            labels = "±inf" if inf else "finite"
            middle = errors[len(errors) // 2]
            note = f"{len(errors)} runs; near error {middle:.3g}, at worst {errors[-1]:.3g}"
            measure = f"{name}, {labels} labels, % learned"
            yield Row("recipe", measure, [learned], 95 if promised else None, note, least=True)


def main() -> None:
    """Print some lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(LINES), metavar="line")
    parser.add_argument("--seeds", type=int, nargs=2, default=(0, 10), metavar=("FIRST", "END"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for row in recipe(quick=False, names=tuple(arguments.names), seeds=range(*arguments.seeds)):
        print(row.measure, row.figures[0], row.note, flush=True)


if __name__ == "__main__":
    main()
