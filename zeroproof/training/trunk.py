"""Trunks: features trained for a projective head, which is then solved for in closed form."""

import math
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple, TypedDict, Unpack

import torch
from torch import Tensor, nn

from zeroproof._checks import one_of, pair_shapes, positive, whole
from zeroproof.autodiff.rewind import in_mode
from zeroproof.errors import DataError, RangeError, ShapeError, TrainingError
from zeroproof.layers.head import ProjectiveHead
from zeroproof.layers.mlp import ACTIVATIONS
from zeroproof.projective.angle import cross, norm
from zeroproof.projective.tuples import rescaled, squared
from zeroproof.solve import Readout, choose_rho, spectral_readout
from zeroproof.training.readout import head_weights, set_head, with_ones

__all__ = ["METHODS", "TrunkFit", "TrunkOptions", "default_trunk", "fit_trunk"]

METHODS = ("joint", "varpro", "hybrid")
_PHASES = {"hybrid": (("joint", 0.5), ("varpro", 1.0))}
_RATES = {"joint": 1e-2, "varpro": 3e-3}
_LAST_RATE = 1e-3  # of the cosine schedule, as a share of the first
_ROWS_PER_WEIGHT = 8  # in a batch that a head is solved on, or else it fits the batch alone
_FIRST_SWEEPS = 20  # of the head, whose start is random
_RHO_PER_ERROR = 1e-2  # smaller: the head uses directions that the next step takes away
_LEAST_RHO = 1e-10
_MEMORY = 0.9  # of the running mean of the error
_LARGEST_WEIGHT = 1e8  # of a row, times the median
_EARLY = 0.1  # share of the time up to which steps alone count


class TrunkOptions(TypedDict, total=False):
    """Options of `fit_trunk`.

    Attributes:
        steps: Optimizer steps at most, default 2000.
        time_budget: CPU seconds of training at most, looked at before each step; the closed-form
            readout comes on top. None (default): no limit.
        batch_size: Rows of a step, default 1024. Where the head is solved for in each step, at
            least eight rows for each of its weights.
        learning_rate: Adam's first rate, which falls to a thousandth along a cosine; default 1e-2
            for joint steps and 3e-3 with variable projection.
        held: Held-out rows, a boolean mask or indices; every fifth row by default.
        weight: Row weights, `(n,)`, at least 0.
        seed: Of the head's start and of the batches; default 0.
    """

    steps: int
    time_budget: float | None
    batch_size: int
    learning_rate: float | None
    held: Tensor | None
    weight: Tensor | None
    seed: int


class TrunkFit(NamedTuple):
    """A trained trunk and its head.

    Attributes:
        trunk: The module that was given, in float64.
        readout: The head on [trunk(x), 1], solved on all rows.
        error: Mean squared chordal distance on the held-out rows, solved on the others.
        method: One of `METHODS`.
        steps: Optimizer steps taken.
    """

    trunk: nn.Module
    readout: Readout
    error: float
    method: str
    steps: int


def default_trunk(
    in_features: int, *, width: int = 64, depth: int = 2, activation: str = "tanh", seed: int = 0
) -> nn.Sequential:
    """Build a multilayer perceptron x, `(n, in_features)` → h, `(n, width)`.

    Args:
        in_features: Number of input columns, which should be standardised.
        width: Of every layer, the last included.
        depth: Number of layers.
        activation: `"tanh"` or `"silu"`, after every layer.
        seed: The same seed gives the same weights; torch's own stream is left alone.

    Raises:
        RangeError: An argument is not legal.

    Examples:
        >>> default_trunk(8)(torch.zeros(5, 8)).shape
        torch.Size([5, 64])
    """
    whole(width, "width", low=1)
    whole(depth, "depth", low=1)
    one_of(activation, tuple(ACTIVATIONS), "activation")
    widths = [whole(in_features, "in_features", low=1)] + [width] * depth
    steps: list[nn.Module] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(whole(seed, "seed"))
        for before, after in pairwise(widths):
            steps += [nn.Linear(before, after), ACTIVATIONS[activation]()]
    return nn.Sequential(*steps)


def fit_trunk(
    trunk: nn.Module,
    X: Tensor,
    Y_n: Tensor,
    Y_d: Tensor,
    *,
    method: str = "joint",
    **options: Unpack[TrunkOptions],
) -> TrunkFit:
    r"""Train a trunk so that a linear projective head on [trunk(x), 1] fits, then solve for it.

    | method | a step of Adam, in float32 |
    |---|---|
    | `"joint"` | on trunk and head, down the mean squared chordal distance |
    | `"varpro"` | on the trunk alone, down its logarithm, at a head solved for in every step |
    | `"hybrid"` | joint in the first half, varpro in the second |

    Varpro is variable projection (Golub & Pereyra, SIAM J. Numer. Anal. 10, 1973); the penalty of
    its head falls with the error. Each ends with the float64 readout, ρ chosen on the held-out
    rows. Which is best depends on the problem: try all, keep the lowest `error`.

    Args:
        trunk: Maps `(n, d)` to features `(n, k)`; trained in place and left in float64.
        X: Inputs, `(n, d)`, standardised.
        Y_n: Numerators of the targets, `(n,)` or `(n, m)`, real or complex.
        Y_d: Denominators, the same shape, or `(n, 1)`. Outputs share one denominator.
        method: One of `METHODS`.
        **options: See `TrunkOptions`.

    Returns:
        A `TrunkFit`; the same one for a seed on one machine unless the time budget struck.

    Raises:
        ShapeError: Arguments that do not belong together, or a trunk that does not return `(n, k)`.
        DataError: Inputs or targets that are not finite, no row to fit or to hold out.
        RangeError: An option that is not legal.
        TrainingError: Features that are not finite. Warnings: as `solve.spectral_readout`.

    Examples:
        >>> X = torch.rand(400, 2, dtype=torch.float64) * 2 - 1
        >>> Y_n, Y_d = 1 + X[:, 0], X[:, 1] - 0.3
        >>> fit = fit_trunk(default_trunk(2, width=16), X, Y_n, Y_d, method="varpro", steps=50)
        >>> fit.readout.a.shape, fit.error < 1e-2
        (torch.Size([17]), True)
    """
    one_of(method, METHODS, "method")
    settings = _Settings(**options)
    whole(settings.steps, "steps", low=1)
    whole(settings.batch_size, "batch_size", low=1)
    whole(settings.seed, "seed")
    for name in ("time_budget", "learning_rate"):
        if getattr(settings, name) is not None:
            positive(getattr(settings, name), name)
    _check_rows(X, Y_n, Y_d)
    held = _held_mask(settings.held, len(X))
    table = _table(X, Y_n, Y_d, settings.weight)
    with torch.random.fork_rng(devices=[]), in_mode(trunk, training=True):
        torch.manual_seed(settings.seed)
        trunk.float()
        outputs, kind = table.Y_n.shape[1], table.Y_n.dtype
        head = ProjectiveHead(_width(trunk, table.x), outputs, dtype=kind).to(X.device)
        clock = _Clock(settings)
        for steps, end in _PHASES.get(method, ((method, 1.0),)):
            _train(trunk, head, table.cut(~held), steps, clock, end, settings)
    with torch.no_grad(), in_mode(trunk, training=False):
        H = with_ones(trunk.double()(X.double()))
        if not torch.isfinite(H).all():
            raise TrainingError(
                "trunk must give finite features for every row, got others; lower the learning rate"
            )
        choice = choose_rho(H, Y_n, Y_d, ~held, held, weight=settings.weight)
        fit = spectral_readout(H, Y_n, Y_d, weight=settings.weight, rho=choice.rho)
    return TrunkFit(trunk, fit, choice.error, method, clock.steps)


class _Settings(NamedTuple):
    """`TrunkOptions` with their defaults."""

    steps: int = 2000
    time_budget: float | None = None
    batch_size: int = 1024
    learning_rate: float | None = None
    held: Tensor | None = None
    weight: Tensor | None = None
    seed: int = 0


class _Table(NamedTuple):
    """Rows to train on: inputs, tuples of unit size `(n, m)`, weights `(n, 1)`."""

    x: Tensor
    Y_n: Tensor
    Y_d: Tensor
    weight: Tensor

    def cut(self, rows: Tensor) -> "_Table":
        """Return the rows `rows`."""
        return _Table(*(part[rows] for part in self))


class _Clock:
    """How much of the steps, or of the time, is spent."""

    def __init__(self, settings: _Settings) -> None:
        self._settings, self._start, self.steps = settings, time.process_time(), 0

    def spent(self) -> float:
        """Return the share that is spent, 1 at the end."""
        by_steps = self.steps / self._settings.steps
        if self._settings.time_budget is None:
            return by_steps
        by_time = (time.process_time() - self._start) / self._settings.time_budget
        # before the first steps are made time is always ahead, and rates would differ between runs
        return max(by_steps, by_time) if by_time > _EARLY else by_steps


def _check_rows(X: Tensor, Y_n: Tensor, Y_d: Tensor) -> None:
    if X.ndim != 2 or Y_n.ndim not in {1, 2} or len(X) != len(Y_n):
        raise ShapeError(
            f"X must be (n, d) and Y_n (n,) or (n, m), got {tuple(X.shape)} and {tuple(Y_n.shape)}"
        )
    pair_shapes(Y_n, Y_d, "Y_n and Y_d")
    for name, part in (("X", X), ("Y_n", Y_n), ("Y_d", Y_d)):
        wrong = ~torch.isfinite(part).reshape(len(X), -1).all(1)
        if wrong.any():
            raise DataError(
                f"{name} must be finite, got otherwise in row {int(wrong.nonzero()[0])}"
            )


def _held_mask(held: Tensor | None, rows: int) -> Tensor:
    mask = torch.zeros(rows, dtype=torch.bool)
    mask[slice(None, None, 5) if held is None else held.cpu()] = True
    if mask.all() or not mask.any():
        raise DataError(
            f"rows must remain both to fit and to hold out, got {int(mask.sum())} of {rows} held"
        )
    return mask


def _table(X: Tensor, Y_n: Tensor, Y_d: Tensor, weight: Tensor | None) -> _Table:
    Y_n, Y_d = (Y.reshape(len(X), -1) for Y in (Y_n, Y_d))
    Y_n, Y_d, _ = rescaled(Y_n, Y_d.expand_as(Y_n))
    size = norm(Y_n, Y_d)
    narrow = torch.complex64 if Y_n.is_complex() or Y_d.is_complex() else torch.float32
    weight = torch.ones(len(X), device=X.device) if weight is None else weight
    if weight.shape != (len(X),):
        raise ShapeError(f"weight must be (n,), ({len(X)},), got {tuple(weight.shape)}")
    if not bool((weight >= 0).all()):
        raise RangeError("weight must be at least 0 in every row")
    return _Table(
        X.float(), (Y_n / size).to(narrow), (Y_d / size).to(narrow), weight.float()[:, None]
    )


@torch.no_grad()
def _width(trunk: nn.Module, x: Tensor) -> int:
    probe = x[:2]
    with in_mode(trunk, training=False):
        h = trunk(probe)
    if not isinstance(h, Tensor) or h.ndim != 2 or len(h) != len(probe) or not h.shape[1]:
        came = tuple(h.shape) if isinstance(h, Tensor) else type(h).__name__
        raise ShapeError(
            f"trunk must map inputs {tuple(probe.shape)} to features ({len(probe)}, k), got {came}"
        )
    return h.shape[1]


# --- the steps: joint with the head, or with the head solved for in each


def _train(
    trunk: nn.Module,
    head: ProjectiveHead,
    table: _Table,
    method: str,
    clock: _Clock,
    end: float,
    settings: _Settings,
) -> None:
    """Make steps of one method until the share `end` of the clock is spent."""
    joint, begin, error = method == "joint", clock.spent(), 1.0
    head.requires_grad_(joint)
    weights = [p for p in (*trunk.parameters(), *head.parameters()) if p.requires_grad]
    if not weights:
        return
    rate = settings.learning_rate or _RATES[method]
    optimizer = torch.optim.Adam(weights, lr=rate)
    unknowns = head.in_features * (head.out_features + 1)
    size = settings.batch_size if joint else max(settings.batch_size, _ROWS_PER_WEIGHT * unknowns)
    for part in _batches(table, size):
        spent = clock.spent()
        if spent >= end:
            break
        share = (spent - begin) / (end - begin)
        optimizer.param_groups[0]["lr"] = rate * max(
            (1 + math.cos(math.pi * share)) / 2, _LAST_RATE
        )
        h = trunk(part.x)
        if not joint:
            wide = torch.complex128 if part.Y_n.is_complex() else torch.float64
            a, b = head_weights(head)
            pair = a.to(wide), b.to(wide)
            rows = with_ones(h.detach()).to(wide), part.Y_n.to(wide), part.Y_d.to(wide)
            rho = max(_RHO_PER_ERROR * error, _LEAST_RHO)
            for _ in range(_FIRST_SWEEPS if error == 1 else 1):
                pair = resolved_head(pair, *rows, part.weight.double(), rho)
            set_head(head, *pair)
        N, D = head(h)
        square = squared(cross(N, D, part.Y_n, part.Y_d) / norm(N, D)).mean(1, keepdim=True)
        mean = (part.weight * square).sum() / part.weight.sum()
        loss = mean if joint else mean.clamp_min(torch.finfo(mean.dtype).tiny).log()
        optimizer.zero_grad()
        loss.backward()
        if torch.isfinite(nn.utils.clip_grad_norm_(weights, 1.0)):
            optimizer.step()
            error = _MEMORY * error + (1 - _MEMORY) * mean.item()
        clock.steps += 1


def _batches(table: _Table, size: int) -> Iterator[_Table]:
    rows = len(table.x)
    while size >= rows:
        yield table
    while True:
        order = torch.randperm(rows).to(table.x.device)
        for start in range(0, rows - size + 1, size):
            yield table.cut(order[start : start + size])


@torch.no_grad()
def resolved_head(
    pair: tuple[Tensor, Tensor], H: Tensor, Y_n: Tensor, Y_d: Tensor, weight: Tensor, rho: float
) -> tuple[Tensor, Tensor]:
    """Return a head near the best one for features that moved a little, in Gram matrices.

    Two steps of inverse iteration on (‖A z‖² + ρ tr(G) / k ‖z‖²) / ‖M z‖² as in `solve`, from the
    head `pair`, (k, m) and (k, 1), which also weighs the rows. Starting from scratch in every step
    of a training would let the head jump between answers that are equally good.
    """
    (a, b), (k, m) = pair, pair[0].shape
    t2 = 1 / (squared(H @ a) + squared(H @ b)).clamp_min(torch.finfo(weight.dtype).tiny)
    t2 = (t2 / t2.median()).clamp_max(_LARGEST_WEIGHT) * (weight / weight.mean())
    G_H = _gram(H, weight / weight.mean())
    A = _normal_matrix(H, Y_n, Y_d, t2)
    A.diagonal().add_(rho * G_H.trace().real / k)
    L, failed = torch.linalg.cholesky_ex(A)
    if failed:
        return pair
    z = torch.cat([a.T, b.T])  # one row for each a_j, the last for b
    for _ in range(2):
        z = z @ G_H.T
        if m > 1:
            z[:m] = 0  # outputs that share D: the size of D alone, as in `solve`
        z = torch.cholesky_solve(z.reshape(-1, 1), L).reshape(m + 1, k)
        z = z / (z.conj() * (z @ G_H.T)).sum().real.sqrt()
    return z[:m].T, z[m:].T


def _normal_matrix(H: Tensor, Y_n: Tensor, Y_d: Tensor, t2: Tensor) -> Tensor:
    """Return AᴴA, `((m + 1) k, (m + 1) k)`, of the rows t [Y_d H, -Y_n H] of all outputs."""
    k, m = H.shape[1], Y_n.shape[1]
    A = H.new_zeros((m + 1) * k, (m + 1) * k)
    corner = A[m * k :, m * k :]
    corner += _gram(H, (t2 * squared(Y_n)).sum(1, keepdim=True))
    for j in range(m):
        at = slice(j * k, (j + 1) * k)
        A[at, at] = _gram(H, (t2 * squared(Y_d))[:, [j]])
        A[at, m * k :] = -_gram(H, (t2 * Y_d.conj() * Y_n)[:, [j]])
        A[m * k :, at] = A[at, m * k :].mH
    return A


def _gram(H: Tensor, weight: Tensor) -> Tensor:
    return H.mH @ (H * weight) / len(H)
