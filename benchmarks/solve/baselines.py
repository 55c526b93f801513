"""What others would do with the same rows: plain and projective networks, AAA, vector fitting.

Every network has two hidden layers of 64 tanh units and sees standardised inputs; Adam with a
cosine schedule takes the same number of steps, of 500 rows each, in float32.
"""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.solve.measure import Array, Effort, Predict, Problem, errors
from zeroproof.autodiff import GradientPolicy, gradient_policy
from zeroproof.layers import ProjectiveMLP
from zeroproof.solve import choose_rho, spectral_readout
from zeroproof.training import SCMTrainingLoss, lift_targets

HIDDEN, BATCH, RATE = (64, 64), 500, 3e-3
EPSILON = 1e-3  # of N / (|D| + ε)
TRAINED: tuple[str, ...] = ("MLP+MSE", "MLP+asinh", "rational+ε", "guide's loss")
LossOf = Callable[[Any, Tensor], Tensor]  # of the network's answer and the rows drawn


def baselines(problem: Problem, effort: Effort) -> dict[str, list[dict[str, float]]]:
    """Return the errors of the zero predictor and of the trained networks, by method and seed."""
    found: dict[str, list[dict[str, float]]] = {"zero": []}
    for seed in range(effort.trained_seeds):
        X, y = problem.sample(seed)
        found["zero"].append(errors(problem, lambda X, y=y: np.zeros((len(X), *y.shape[1:])), seed))
        for name in TRAINED:
            predict = trained(name, X, y, seed, effort.steps)
            found.setdefault(name, []).append(errors(problem, predict, seed))
    return found if effort.trained_seeds else {}


def trained(name: str, X: Array, y: Array, seed: int, steps: int) -> Predict:
    """Train one of `TRAINED`; a complex answer is learned as two real ones."""
    targets = y.reshape(len(y), -1)
    if np.iscomplexobj(y):
        targets = np.concatenate([np.real(targets), np.imag(targets)], 1)
    predict = _METHODS[name](X, torch.from_numpy(targets).double(), seed, steps)

    def answer(X: Array) -> Array:
        with torch.no_grad():
            z = predict(torch.from_numpy(X)).double().numpy()
        if np.iscomplexobj(y):
            k = z.shape[1] // 2
            z = z[:, :k] + 1j * z[:, k:]
        return z.reshape(len(X), *y.shape[1:])

    return answer


def _mse(X: Array, y: Tensor, seed: int, steps: int) -> Callable[[Tensor], Tensor]:
    mean, spread = y.mean(0), y.std(0)
    target = ((y - mean) / spread).float()
    net = network(X, y.shape[1], seed, plain=True)
    optimise(net, X, lambda out, rows: (out - target[rows]).square().mean(), seed, steps)
    return lambda X: net(X) * spread + mean


def _asinh(X: Array, y: Tensor, seed: int, steps: int) -> Callable[[Tensor], Tensor]:
    scale = _scale(y)
    target = (y / scale).asinh().float()
    net = network(X, y.shape[1], seed, plain=True)
    optimise(net, X, lambda out, rows: (out - target[rows]).square().mean(), seed, steps)
    return lambda X: scale * net(X).double().sinh()


def _rational(X: Array, y: Tensor, seed: int, steps: int) -> Callable[[Tensor], Tensor]:
    scale = _scale(y)
    target = (y / scale).float()
    net = network(X, y.shape[1], seed)

    def decoded(pair: tuple[Tensor, Tensor]) -> Tensor:
        return pair[0] / (pair[1].abs() + EPSILON)

    optimise(net, X, lambda out, rows: (decoded(out) - target[rows]).square().mean(), seed, steps)
    return lambda X: scale * decoded(net(X))


def _guide(X: Array, y: Tensor, seed: int, steps: int) -> Callable[[Tensor], Tensor]:
    scale, net = _scale(y), network(X, y.shape[1], seed)
    projective(net, X, y / scale, SCMTrainingLoss(), seed, steps)

    def decoded(X: Tensor) -> Tensor:
        N, D = net(X)
        return scale * N.double() / D.double()

    return decoded


_METHODS: dict[str, Callable[..., Callable[[Tensor], Tensor]]] = dict(
    zip(TRAINED, (_mse, _asinh, _rational, _guide), strict=True)
)


def projective(
    net: nn.Module, X: Array, y: Tensor, loss: SCMTrainingLoss, seed: int, steps: int
) -> None:
    """Train a projective network on lifted targets."""
    Y_n, Y_d = (part.float() for part in lift_targets(y))
    with gradient_policy(GradientPolicy.PROJECT):
        optimise(net, X, lambda out, rows: loss(out, (Y_n[rows], Y_d[rows])), seed, steps)


def network(X: Array, outputs: int, seed: int, *, plain: bool = False) -> nn.Module:
    """Build the network of every trained baseline, with a plain or a projective head."""
    torch.manual_seed(seed)
    mean, spread = torch.from_numpy(X.mean(0)), torch.from_numpy(X.std(0))
    net = ProjectiveMLP(X.shape[1], outputs, hidden=HIDDEN, x_mean=mean, x_std=spread)
    return _Plain(net, outputs) if plain else net


class _Plain(nn.Module):
    """The same trunk and inputs under a linear head."""

    def __init__(self, net: ProjectiveMLP, outputs: int) -> None:
        super().__init__()
        self.net, self.head = net, nn.Linear(HIDDEN[-1], outputs)

    def forward(self, X: Tensor) -> Tensor:
        return self.head(trunk_of(self.net, X))


def trunk_of(net: Any, X: Tensor) -> Tensor:
    """Return the features under the head of a projective network."""
    x = (X - net.x_mean) / net.x_std
    return net.trunk(x.to(net.head.numerator.weight.dtype))


def optimise(net: nn.Module, X: Array, loss_of: LossOf, seed: int, steps: int) -> None:
    """Take the same number of Adam steps for every baseline, on rows in random order."""
    x = torch.from_numpy(X)
    random = torch.Generator().manual_seed(seed)
    parameters = [p for p in net.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=RATE, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        rows = torch.randint(len(x), (BATCH,), generator=random)
        loss = loss_of(net(x[rows]), rows)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_([p for p in parameters if p.grad is not None], 1.0)
        optimizer.step()
        schedule.step()


def joint_readout(X: Array, y: Array, seed: int, steps: int) -> Predict:
    """Train trunk and head together on the chordal loss, then solve for the head in float64."""
    targets = torch.from_numpy(y.reshape(len(y), -1)).double()
    scale, net = _scale(targets), network(X, targets.shape[1], seed)
    loss = SCMTrainingLoss(normalizer="chordal", lambda_margin=0, lambda_sign=0, lambda_rejection=0)
    projective(net, X, targets / scale, loss, seed, steps)
    net.double()

    def features(X: Tensor) -> Tensor:
        with torch.no_grad():
            h = trunk_of(net, X)
        return torch.cat([torch.ones_like(h[:, :1]), h], 1)

    return solved(features, X, y)


def random_features(X: Array, y: Array, seed: int, width: int = 400) -> Predict:
    """Solve for the head on random tanh features; their scale is chosen on held-out rows."""
    mean, spread = (torch.from_numpy(part) for part in (X.mean(0), X.std(0)))
    random = torch.Generator().manual_seed(seed)
    W = torch.randn(X.shape[1], width, generator=random, dtype=torch.float64)
    c = torch.rand(width, generator=random, dtype=torch.float64) * 6 - 3
    some, held = slice(0, 2400), slice(2400, 4000)
    best, chosen = np.inf, 1.0
    for scale in (0.1, 0.2, 0.5, 1.0):  # on part of the rows and features: it need not be exact
        features = _tanh(mean, spread, scale * W[:, :200], scale * c[:200])
        z, truth = (
            part.reshape(len(part), -1)
            for part in (solved(features, X[some], y[some])(X[held]), y[held])
        )
        miss = np.linalg.norm(z - truth, axis=1) / np.linalg.norm(truth, axis=1)
        if np.median(miss) < best:
            best, chosen = float(np.median(miss)), scale
    return solved(_tanh(mean, spread, chosen * W, chosen * c), X, y)


def _tanh(mean: Tensor, spread: Tensor, W: Tensor, c: Tensor) -> Callable[[Tensor], Tensor]:
    def features(X: Tensor) -> Tensor:
        h = torch.tanh((X - mean) / spread @ W + c)
        return torch.cat([torch.ones_like(h[:, :1]), h], 1)

    return features


def solved(features: Callable[[Tensor], Tensor], X: Array, y: Array) -> Predict:
    """Solve for the projective head on given features, ρ chosen on held-out rows."""
    targets = torch.from_numpy(y.reshape(len(y), -1)).double()
    scale = _scale(targets)
    H, Y_n, Y_d = features(torch.from_numpy(X)), targets / scale, torch.ones(len(y), 1).double()
    split = int(0.8 * len(X))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # N and D may vanish together: that is the baseline's
        rho = choose_rho(H, Y_n, Y_d, slice(0, split), slice(split, None)).rho
        head = spectral_readout(H, Y_n, Y_d, rho=rho)

    def predict(X: Array) -> Array:
        H = features(torch.from_numpy(X))
        z = scale * (H @ head.a) / (H @ head.b)
        return z.numpy().reshape(len(X), *y.shape[1:])

    return predict


def _scale(y: Tensor) -> float:
    return float(y.abs().median())
