"""What is timed, and what it is compared with: each a call of one size, forward and backward."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from zeroproof import SCM, strict_inference
from zeroproof.inference import InferenceConfig
from zeroproof.layers import ProjectiveRational, Rational
from zeroproof.projective import renormalize
from zeroproof.training import SCMTrainingLoss, lift_targets

__all__ = ["CASES", "Case", "Step"]

Function = Callable[..., object]
COEFFICIENTS = ([0.0, 1.0, 0.1, 0.2, 0.1, 0.1], [1.0, 0.1, 0.2, 0.1, 0.1])


class Step(NamedTuple):
    """A function of tensors, and the tensors whose gradients are wanted; without any: forward."""

    function: Function
    inputs: tuple[Tensor, ...]
    wanted: tuple[Tensor, ...] = ()
    slope: Tensor | None = None  # dL/dy, made once

    def run(self) -> object:
        """Run forward, and backward if gradients are wanted."""
        if not self.wanted:
            with torch.no_grad():
                return self.function(*self.inputs)
        outputs = self.outputs()
        slopes = [self.slope if x.ndim else None for x in outputs]
        return torch.autograd.grad(outputs, self.wanted, slopes)

    def outputs(self) -> tuple[Tensor, ...]:
        """Return what carries gradients."""
        y = self.function(*self.inputs)
        fields = (y,) if isinstance(y, Tensor) else tuple(y)  # pyright: ignore[reportArgumentType]
        return tuple(x for x in fields if x.requires_grad)


class Case(NamedTuple):
    """A case: what is timed, how many entries it has, and what it is timed beside."""

    name: str
    anchor: str
    make: Callable[[int], tuple[Step, Step]]  # (ours, anchor)
    compiled: float | None = None  # times the anchor that it may take when compiled
    size: int = 10**6


def _rational(returns: str) -> Callable[[int], tuple[Step, Step]]:
    def make(n: int) -> tuple[Step, Step]:
        x = torch.randn(n, requires_grad=True)
        layer = Rational((5, 4), returns, init=COEFFICIENTS)
        ones = torch.ones(n)
        parameters = tuple(layer.parameters())
        return Step(layer, (x,), (x, *parameters), ones), Step(torch.relu, (x,), (x,), ones)

    return make


def _horner_pair(x: Tensor, P: Tensor, Q: Tensor) -> tuple[Tensor, Tensor]:
    """Evaluate two polynomials as one would by hand."""
    values = []
    for c in (P, Q):
        value = c[-1] * x + c[-2]
        for k in range(len(c) - 3, -1, -1):
            value = value * x + c[k]
        values.append(value)
    return values[0], values[1]


def _projective_rational(n: int) -> tuple[Step, Step]:
    x = torch.randn(n, 1, requires_grad=True)
    layer = ProjectiveRational((3, 2), out_features=2)
    P, Q = nn.Parameter(torch.randn(4, 2)), nn.Parameter(torch.randn(3, 1))
    return _Pair(layer, (x,), (x, *layer.parameters())), _Pair(_horner_pair, (x, P, Q), (x, P, Q))


class _Pair(Step):
    """A step with two outputs of different widths."""

    def run(self) -> object:
        outputs = self.outputs()
        return torch.autograd.grad(outputs, self.wanted, [torch.ones_like(x) for x in outputs])


def _rows(n: int, bottom: float = 0.01) -> tuple[Tensor, ...]:
    """Return N, D, y and lifted targets, of which a share is ±inf or nan."""
    make = torch.Generator().manual_seed(0)
    N, D, y = torch.randn(3, n, generator=make)
    kinds = torch.tensor([math.inf, -math.inf, math.nan])[torch.arange(n) % 3]
    targets = lift_targets(torch.where(torch.rand(n, generator=make) < bottom, kinds, y))
    return N.requires_grad_(), D.requires_grad_(), y, *targets


def _mse(n: int) -> Step:
    N, D, y, *_ = _rows(n)
    return Step(lambda N, D: (N / D - y).square().mean(), (N, D), (N, D))


def _loss(**options: object) -> Callable[[int], tuple[Step, Step]]:
    def make(n: int) -> tuple[Step, Step]:
        N, D, _, *targets = _rows(n)
        loss_fn = SCMTrainingLoss(**options)  # pyright: ignore[reportArgumentType]

        def total(N: Tensor, D: Tensor, Y_n: Tensor, Y_d: Tensor) -> Tensor:
            return loss_fn(outputs=(N, D), targets=(Y_n, Y_d))

        return Step(total, (N, D, *targets), (N, D)), _mse(n)

    return make


def _outputs(n: int) -> tuple[Tensor, Tensor]:
    """Return N and D, of which 1 % decodes to ⊥ and 1 % lies in the gap."""
    N, D = torch.randn(2, n)
    draw = torch.rand(n)
    D = torch.where(draw < 0.01, 1e-7 * D, torch.where(draw < 0.02, 1e-5, D))
    return N, D


def _strict(field: str, config: InferenceConfig | None = None) -> Callable:
    def make(n: int) -> tuple[Step, Step]:
        tuples = _outputs(n)

        def decode(N: Tensor, D: Tensor) -> object:
            result = strict_inference(N, D, config)
            return result if field == "all" else result.decoded

        return Step(decode, tuples), Step(torch.div, tuples)

    return make


def _by_hand(N: Tensor, D: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Decode as one would by hand, without minding what is not finite."""
    size = D.abs()
    bottom = size < 1e-6
    value = torch.where(bottom, math.nan, N / torch.where(bottom, 1, D))
    return value, bottom, (size < 1e-4) & ~bottom


def _strict_by_hand(n: int) -> tuple[Step, Step]:
    tuples = _outputs(n)
    return Step(strict_inference, tuples), Step(_by_hand, tuples)


def _by_hypot(N: Tensor, D: Tensor) -> tuple[Tensor, Tensor]:
    size = torch.hypot(N.detach(), D.detach())
    return N / size, D / size


def _renormalize(n: int) -> tuple[Step, Step]:
    N, D = (x.requires_grad_() for x in _outputs(n))
    ones = torch.ones(n)
    return Step(renormalize, (N, D), (N, D), ones), Step(_by_hypot, (N, D), (N, D), ones)


def _double_where(N: Tensor, D: Tensor) -> Tensor:
    zero = D == 0
    return torch.where(zero, 0, N / torch.where(zero, 1, D))


def _scm_quotient(N: Tensor, D: Tensor, bottom: Tensor) -> Tensor:
    from zeroproof.scm.value import trusted

    return (trusted(N, bottom) / trusted(D, bottom)).payload


def _division(n: int) -> tuple[Step, Step]:
    N, D = (x.requires_grad_() for x in _outputs(n))
    ones, none = torch.ones(n), torch.zeros(n, dtype=torch.bool)
    ours = Step(_scm_quotient, (N, D, none), (N, D), ones)
    return ours, Step(_double_where, (N, D), (N, D), ones)


def _scm_division(n: int) -> tuple[Step, Step]:
    N, D = (x.requires_grad_() for x in _outputs(n))
    ones = torch.ones(n)
    ours = Step(lambda N, D: (SCM(N) / SCM(D)).payload, (N, D), (N, D), ones)
    return ours, Step(_double_where, (N, D), (N, D), ones)


ANGLE = InferenceConfig(score="angle")
RELU, MSE, QUOTIENT = "relu", "MSE(N / D)", "N / D"
CASES = (
    Case("Rational (5, 4), mask", RELU, _rational("scm"), 3.5),
    Case("Rational (5, 4), tensor", RELU, _rational("tensor"), 3.5),
    Case("Rational (5, 4), tensor", RELU, _rational("tensor"), None, 10**4),
    Case("ProjectiveRational (3, 2), k = 2", "eager Horner pair", _projective_rational),
    Case("SCMTrainingLoss", MSE, _loss(), 2.5),
    Case("SCMTrainingLoss", MSE, _loss(), None, 256),
    Case("SCMTrainingLoss, chordal", MSE, _loss(normalizer="chordal"), 2.5),
    Case("SCMTrainingLoss, oriented", MSE, _loss(oriented=True), 2.5),
    Case("SCMTrainingLoss, attached", MSE, _loss(normalizer="attached")),
    Case("strict_inference", QUOTIENT, _strict("all")),
    Case("strict_inference", "masks by hand", _strict_by_hand),
    Case("strict_inference, angle score", QUOTIENT, _strict("all", ANGLE)),
    Case("renormalize", "hypot and two divisions", _renormalize),
    Case("scm.div", "double-where division", _division),
    Case("SCM(N) / SCM(D)", "double-where division", _scm_division),
)
