"""Levenberg-Marquardt for quotients: what enters linearly is eliminated at every step."""

from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from zeroproof.solve._linearized import outside, pseudo_solve

EPS = torch.finfo(torch.float64).eps
Point = TypeVar("Point")


class State(NamedTuple, Generic[Point]):
    """Where an iteration stands: N is the best for the D at hand."""

    point: Point  # what D follows from
    D: Tensor  # (n,)
    a: Tensor  # (m, k); 0 along directions that the features of N do not have
    answer: Tensor  # weighted N / D, (m, n)
    residual: Tensor  # weighted, (m, n)
    basis: Tensor  # orthonormal columns that the answers can reach, (m, n, k)
    objective: float  # infinite where D is 0 in a row

    @classmethod
    def of(cls, point: Point, D: Tensor, H_N: Tensor, y: Tensor, root: Tensor) -> "State[Point]":
        """Fit H_N a / D, H_N `(n, k)`, to y `(n, m)`; `root` is that of the weights, `(n, m)`."""
        zero, target = D == 0, (root * y).T
        F = (root / torch.where(zero, 1, D)[:, None]).T[..., None] * H_N
        Q, R = torch.linalg.qr(F)
        U, S, Vh = torch.linalg.svd(R)
        a = pseudo_solve(U, S, Vh, Q.mH @ target[..., None], len(D))
        answer = (F @ a)[..., 0]
        basis = Q @ U * (S[..., :1] * len(D) * EPS < S)[..., None, :]
        objective = float((answer - target).abs().square().sum())
        if bool(zero.any()) or not objective < torch.inf:
            objective = torch.inf
        return cls(point, D, a[..., 0], answer, answer - target, basis, objective)

    def jacobian(self, slopes: Tensor) -> Tensor:
        """Return Kaufman's Jacobian `(m n, l)`: what a cannot mend of the slopes, `(m, n, l)`."""
        return outside(self.basis, slopes).flatten(0, 1)


class Model(NamedTuple):
    """The linear model of the residual around a state."""

    frame: Tensor  # directions to move in, as columns
    S: Tensor
    Vh: Tensor
    slope: Tensor  # Uᴴ r
    cosine: float  # of the largest angle between r and a direction of the model

    @classmethod
    def of(cls, J: Tensor, residual: Tensor, frame: Tensor) -> "Model":
        """Decompose the Jacobian J along the frame."""
        Q, R = torch.linalg.qr(J @ frame)
        U, S, Vh = torch.linalg.svd(R)
        slope = U.mH @ (Q.mH @ residual.flatten())
        length = float(torch.linalg.vector_norm(residual))
        cosine = float(slope.abs().max()) / length if length and len(slope) else 0.0
        return cls(frame, S, Vh, slope, cosine)

    def step(self, damping: float) -> tuple[Tensor, float]:
        """Return the damped step and the decrease of the objective that it promises."""
        S = self.S
        coordinate = -S * self.slope / (S.square() + damping * S[0].square())
        left = self.slope + S * coordinate
        promised = self.slope.abs().square().sum() - left.abs().square().sum()
        return self.frame @ (self.Vh.mH @ coordinate), float(promised)


def minimise(
    state: State[Point],
    model_of: Callable[[State[Point]], Model],
    moved: Callable[[Point, Tensor], State[Point]],
    max_iterations: int,
    *,
    damping: float,
    resolved: float,
) -> tuple[State[Point], int, str]:
    """Return the last state, how many steps were tried, and why it ended.

    The damping follows the gain, actual over predicted decrease (Nielsen 1999). Steps no longer
    than `resolved` end it.
    """
    if not state.objective < torch.inf:
        return state, 0, "step"
    growth, model = 4.0, None
    for tried in range(max_iterations):
        model = model or model_of(state)
        if model.cosine <= EPS:
            return state, tried, "gradient"
        step, promised = model.step(damping)
        if promised <= EPS * EPS * state.objective:
            return state, tried + 1, "objective"
        if float(torch.linalg.vector_norm(step)) <= resolved:
            return state, tried + 1, "step"
        ahead = moved(state.point, step)
        gain = (state.objective - ahead.objective) / promised
        if gain > 0:
            state, model = ahead, None
            damping, growth = damping * max(1 / 10, 1 - (2 * gain - 1) ** 3), 4.0
        else:
            damping, growth = damping * growth, growth * 2
    return state, max_iterations, "max_iterations"
