"""Losses of one part by native kernels against plain operations in float64."""

import math

import pytest
import torch

from zeroproof import native
from zeroproof.autodiff import GradientPolicy, gradient_policy
from zeroproof.losses import _single, implicit_loss, margin_loss, sign_consistency_loss

LOSSES = {
    "detached": implicit_loss,
    "attached": lambda *x, **k: implicit_loss(*x, normalizer="attached", **k),
    "chordal": lambda *x, **k: implicit_loss(*x, normalizer="chordal", **k),
    "oriented": lambda *x, **k: implicit_loss(*x, oriented=True, **k),
    "margin": lambda N, D, *_, **k: margin_loss(D, 0.3, N=N, **k),
    "margin of D alone": lambda _, D, *__, **k: margin_loss(D, 0.3, relative=True, **k),
    "margin, angle": lambda N, D, *_, **k: margin_loss(D, 0.3, N=N, score="angle", **k),
    "sign": sign_consistency_loss,
    "sign, angle": lambda *x, **k: sign_consistency_loss(*x, variant="angle", **k),
}
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())


def draw(shape):
    N, D, Y_n = torch.randn(3, *shape)
    Y_d = (torch.rand(shape) > 0.3).float()
    D.view(-1)[::7] = 0
    D.view(-1)[1::9] *= 1e-3
    N.view(-1)[::21] = 0
    N.view(-1)[3::11], D.view(-1)[5::13] = math.nan, math.inf
    return N, D, Y_n, Y_d


def results(loss, tuples, policy, **counting):
    N, D = (x.clone().requires_grad_() for x in tuples[:2])
    value = loss(N, D, *tuples[2:], **counting)
    with gradient_policy(policy):
        return value.detach(), *torch.autograd.grad(50 * value, (N, D), allow_unused=True)


def same(got, wanted):
    for mine, other in zip(got, wanted, strict=True):
        if other is None:
            assert mine is None or not mine.any()
            continue
        torch.testing.assert_close(mine, other.float(), rtol=2e-5, atol=1e-6)


@pytest.fixture
def served(monkeypatch):
    """Count how often kernels stood in for plain operations."""
    calls = []
    apply = _single._Single.apply
    monkeypatch.setattr(_single._Single, "apply", lambda *x: calls.append(1) or apply(*x))
    return calls


WEIGHTS = {
    "none": {},
    "mask": {"mask": True},
    "weight": {"weight": True},
    "both": {"weight": True, "mask": True},
    "sum": {"weight": True, "reduction": "sum"},
}


@every_loss
@pytest.mark.parametrize("policy", list(GradientPolicy), ids=lambda policy: policy.name)
@pytest.mark.parametrize("asked", WEIGHTS.values(), ids=WEIGHTS.keys())
@pytest.mark.parametrize("shape", [(700,), (300, 3)], ids=str)
def test_native_losses_equal_the_plain_ones(loss, policy, asked, shape, served):
    tuples, counting = draw(shape), dict(asked)
    if "mask" in counting:
        counting["mask"] = torch.rand(shape) > 0.2
    if "weight" in counting:
        weight = 10 * torch.rand(*shape[:-1], 1) if len(shape) > 1 else 10 * torch.rand(shape)
        weight.view(-1)[::17], weight.view(-1)[1::19] = -1.0, math.nan
        counting["weight"] = weight
    got = results(loss, tuples, policy, **counting)
    assert served
    with native.disabled():
        wanted = results(loss, [x.double() for x in tuples], policy, **counting)
    same(got, wanted)


@every_loss
def test_nothing_counts(loss):
    tuples = draw((60,))
    for counting in ({"mask": torch.zeros(60, dtype=torch.bool)}, {"weight": torch.zeros(60)}):
        value, *gradients = results(loss, tuples, GradientPolicy.PROJECT, **counting)
        assert value == 0
        assert not any(g.any() for g in gradients if g is not None)


@pytest.mark.parametrize(
    "counting",
    [
        {"reduction": "none"},
        {"weight": torch.rand(60, requires_grad=True)},
        {"weight": torch.arange(60)},
    ],
    ids=["none", "weights that learn", "whole weights"],
)
def test_the_rest_is_left_to_plain_operations(counting, served):
    implicit_loss(*draw((60,)), **counting)
    assert not served


def test_tiny_and_huge_weights_are_in_proportion():
    tuples = draw((60,))
    for size in (1e-300, 1e300):
        weight = torch.rand(60, dtype=torch.float64)
        wanted = implicit_loss(*tuples, weight=weight)
        torch.testing.assert_close(implicit_loss(*tuples, weight=size * weight), wanted)


def test_second_derivatives_go_through_plain_operations():
    N, D, Y_n, Y_d = (x.nan_to_num(1, 1, 1) for x in draw((6,)))
    N, D = N.requires_grad_(), (D + 2).requires_grad_()
    with gradient_policy(GradientPolicy.PROJECT):
        loss = implicit_loss(N, D, Y_n, Y_d, normalizer="chordal")
        (slope,) = torch.autograd.grad(loss, N, create_graph=True)
        (bend,) = torch.autograd.grad(slope.sum(), N)
        with native.disabled():
            wide = N.detach().double().requires_grad_()
            loss = implicit_loss(wide, D.double(), Y_n, Y_d, normalizer="chordal")
            (slope,) = torch.autograd.grad(loss, wide, create_graph=True)
            (wanted,) = torch.autograd.grad(slope.sum(), wide)
    torch.testing.assert_close(bend.double(), wanted, rtol=1e-3, atol=1e-5)
