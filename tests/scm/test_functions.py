"""Domains, values and gradients of the elementary functions; the policies on the partial ones."""

import math
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from zeroproof.autodiff import GradientPolicy, gradient_policy
from zeroproof.scm import SCM, cos, exp, log, power, sin, sqrt, tan

NAN = math.nan
Function = Callable[[Tensor], SCM]


class Case(NamedTuple):
    function: Function
    oracle: Callable[[Tensor], Tensor]
    inside: list[float]
    outside: list[float]


CASES = {
    "inv": Case(lambda t: SCM(t).inv(), torch.reciprocal, [-2.0, 0.25], [0.0, NAN]),
    "div": Case(lambda t: 3 / SCM(t), lambda t: 3 / t, [-2.0, 0.25], [0.0, -0.0, NAN]),
    "log": Case(log, torch.log, [0.1, 1.0, 7.0], [0.0, -1.0, NAN]),
    "sqrt": Case(sqrt, torch.sqrt, [0.01, 4.0], [-1.0, NAN]),
    "tan": Case(tan, torch.tan, [-1.0, 0.0, 1.5, 100.0], [NAN]),
    "power -2": Case(lambda t: SCM(t) ** -2, lambda t: t**-2, [-2.0, 0.25], [0.0, NAN]),
    "power 1.5": Case(lambda t: SCM(t) ** 1.5, lambda t: t**1.5, [0.25, 2.0], [-1.0, NAN]),
    "power -0.5": Case(lambda t: SCM(t) ** -0.5, lambda t: t**-0.5, [0.25, 2.0], [0.0, -1.0, NAN]),
    "(-2) to the t": Case(
        lambda t: power(-2.0, SCM(t)),
        lambda t: torch.tensor(-2.0, dtype=t.dtype) ** t,
        [2.0, -3.0],
        [0.5, NAN],
    ),
    "0 to the t": Case(
        lambda t: 0 ** SCM(t), lambda t: torch.zeros_like(t) ** t, [2.0, 0.5], [-1.0, NAN]
    ),
}
ABSORBING = {
    "exp": Case(exp, torch.exp, [-3.0, 0.0, 2.0], [NAN, 1e4]),
    "sin": Case(sin, torch.sin, [-3.0, 0.0, 2.0], [NAN]),
    "cos": Case(cos, torch.cos, [-3.0, 0.0, 2.0], [NAN]),
}
DIFFERENTIABLE = [name for name in CASES if "to the" not in name]


@pytest.mark.parametrize("name", CASES | ABSORBING)
def test_value_inside_and_bottom_outside_of_the_domain(name: str) -> None:
    function, oracle, inside, outside = (CASES | ABSORBING)[name]
    t = torch.tensor(inside + outside, dtype=torch.float64)
    y = function(t)
    assert y.bottom.tolist() == [False] * len(inside) + [True] * len(outside)
    torch.testing.assert_close(y.payload[: len(inside)], oracle(t)[: len(inside)])


@pytest.mark.parametrize("name", [*DIFFERENTIABLE, *ABSORBING])
def test_gradients_against_finite_differences(name: str) -> None:
    function, _, inside, _ = (CASES | ABSORBING)[name]
    t = torch.tensor(inside, dtype=torch.float64, requires_grad=True)
    with gradient_policy(GradientPolicy.PROJECT):
        assert torch.autograd.gradcheck(lambda x: function(x).payload, (t,))
        assert torch.autograd.gradgradcheck(lambda x: function(x).payload, (t,))


@pytest.mark.parametrize("name", CASES | ABSORBING)
def test_first_and_second_derivatives_are_zero_at_bottom(name: str) -> None:
    function, _, inside, outside = (CASES | ABSORBING)[name]
    t = torch.tensor(inside + outside, dtype=torch.float64, requires_grad=True)
    with gradient_policy(GradientPolicy.PROJECT):
        y = function(t).payload
        (first,) = torch.autograd.grad(y.sum(), t, create_graph=True)
        (second,) = torch.autograd.grad(first.sum(), t)
    assert torch.isfinite(first).all()
    assert torch.isfinite(second).all()
    assert not first[len(inside) :].any()
    assert not second[len(inside) :].any()


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_policies_act_on_the_operand(name: str) -> None:
    function, oracle, inside, outside = CASES[name]
    n = len(inside)
    weight = torch.linspace(-30, 40, n + len(outside), dtype=torch.float64)

    def gradient(act: Callable[[Tensor], Tensor], policy: GradientPolicy) -> Tensor:
        t = torch.tensor(inside + outside, dtype=torch.float64, requires_grad=True)
        y = act(t)
        with gradient_policy(policy):
            y.backward(weight)
        assert t.grad is not None
        return t.grad

    raw = gradient(oracle, GradientPolicy.PASSTHROUGH)
    assert raw[:n].abs().max() > 1  # so that CLAMP has something to do
    masked = torch.where(torch.arange(n + len(outside)) < n, raw, 0)
    expected = {
        GradientPolicy.PROJECT: masked,
        GradientPolicy.REJECT: torch.zeros_like(raw),
    }
    if name != "power -2":  # the square of the inverse: CLAMP acts between the two
        expected[GradientPolicy.CLAMP] = masked.clamp(-1, 1)
        expected[GradientPolicy.PASSTHROUGH] = raw
    for policy, right in expected.items():
        actual = gradient(lambda t: function(t).payload, policy)
        torch.testing.assert_close(actual, right, equal_nan=True, msg=policy.name)


def test_negative_power_follows_the_inverse() -> None:
    t = torch.tensor([0.5, 0.0], dtype=torch.float64, requires_grad=True)
    (SCM(t) ** -2).payload.sum().backward()  # dL/d(1/t) = 4, dL/dt = -16 before CLAMP
    assert t.grad is not None
    assert t.grad.tolist() == [-1.0, 0.0]


@pytest.mark.parametrize(
    ("function", "value"),
    [(sqrt, 0.0), (lambda t: SCM(t) ** 0.5, 0.0)],
    ids=["sqrt", "power 0.5"],
)
def test_infinite_slope_at_zero_gives_zero_gradient(function: Function, value: float) -> None:
    for policy in GradientPolicy:
        t = torch.zeros(1, requires_grad=True)
        y = function(t)
        assert y.payload.item() == value
        with gradient_policy(policy):
            y.payload.sum().backward()
        assert t.grad is not None
        assert t.grad.item() == (math.inf if policy is GradientPolicy.PASSTHROUGH else 0.0)


def test_loss_scale_widens_the_bound_of_clamp() -> None:
    t = torch.tensor([0.01], requires_grad=True)
    y = log(t).payload.sum()
    with gradient_policy(GradientPolicy.CLAMP, loss_scale=8.0):
        y.backward()
    assert t.grad is not None
    assert t.grad.item() == 8.0


@pytest.mark.parametrize(
    ("function", "oracle", "at", "bottom"),
    [
        (log, torch.log, [1j, -1.0, 0], [False, False, True]),
        (sqrt, torch.sqrt, [1j, -4.0, 0], [False, False, False]),
        (exp, torch.exp, [1j, 1e3, 0], [False, True, False]),
        (sin, torch.sin, [1j, 1e3j, 0], [False, True, False]),
        (cos, torch.cos, [1j, 1e3j, 0], [False, True, False]),
        (tan, torch.tan, [1j, 1 + 1j, 0], [False, False, False]),
    ],
    ids=["log", "sqrt", "exp", "sin", "cos", "tan"],
)
def test_complex_functions(
    function: Function, oracle: Callable[[Tensor], Tensor], at: list[complex], bottom: list[bool]
) -> None:
    z = torch.tensor([complex(x) for x in at], dtype=torch.complex128)
    y = function(z)
    assert y.bottom.tolist() == bottom
    torch.testing.assert_close(y.payload[~y.bottom], oracle(z)[~y.bottom])
    inside = torch.tensor([1 + 0.5j, -0.3 + 0.2j], dtype=torch.complex128, requires_grad=True)
    with gradient_policy(GradientPolicy.PROJECT):
        assert torch.autograd.gradcheck(lambda t: function(t).payload, (inside,))


def test_tan_is_bottom_where_the_cosine_vanishes(monkeypatch: pytest.MonkeyPatch) -> None:
    # no floating-point number is that near to π/2, so the cosine is played
    monkeypatch.setattr(torch, "cos", lambda t: torch.where(t == 1, 0.0, 1.0))
    assert tan(torch.tensor([1.0, 0.5])).bottom.tolist() == [True, False]
