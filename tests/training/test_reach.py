import copy

import pytest
import torch
from torch import nn

from zeroproof import GradientPolicy, gradient_policy
from zeroproof.layers import ProjectiveHead, ProjectiveMLP
from zeroproof.scm import SCM
from zeroproof.training.success import can_reach_zero

X = torch.linspace(-1, 1, 40)[:, None]
SINGULAR = X > 0.4


class Net(nn.Module):
    """Two heads, of which D is made by a function."""

    def __init__(self, made, dtype=None):
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Sequential(nn.Linear(1, 16, dtype=dtype), nn.Tanh())
        self.heads = nn.Linear(16, 2, dtype=dtype)
        self.made = made

    def forward(self, x):
        N, D = self.heads(self.trunk(x.to(self.heads.weight.dtype))).chunk(2, -1)
        return N, self.made(D)


@pytest.mark.parametrize(
    ("made", "can"),
    [
        (lambda D: D, True),
        (lambda D: 1000 + D, True),
        (lambda D: 1e-3 * D + 1, True),
        (torch.exp, True),
        (nn.functional.softplus, True),
        (lambda D: D.square(), True),
        (lambda D: 1 + nn.functional.softplus(D), False),
        (lambda D: 1e-3 + D.square(), False),
        (lambda D: D.exp() + 0.01, False),
        (torch.ones_like, False),
    ],
    ids=[
        "plain",
        "far",
        "slow",
        "exp",
        "softplus",
        "square",
        ">= 1",
        ">= 1e-3",
        ">= 0.01",
        "constant",
    ],
)
def test_who_reaches_zero(made, can):
    model = Net(made)
    before = copy.deepcopy(model.state_dict())
    assert can_reach_zero(model, SINGULAR, [X]) == can
    assert model.training
    assert all(torch.equal(before[name], x) for name, x in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_models_of_the_package_and_complex_ones():
    for model in (ProjectiveMLP(1, 1), ProjectiveMLP(1, 1, shared_denominator=False)):
        assert can_reach_zero(model, SINGULAR, [], {"x": X})
    assert can_reach_zero(ProjectiveMLP(1, 2), SINGULAR.expand(-1, 2), [X])
    assert can_reach_zero(Net(lambda D: D, torch.complex64), SINGULAR, [X])
    assert not can_reach_zero(Net(lambda D: 2 + D.abs().square(), torch.complex64), SINGULAR, [X])


def test_frozen_models_and_rows_without_a_singular_label():
    head = ProjectiveHead(1, 1).requires_grad_(False)
    assert not can_reach_zero(head, SINGULAR, [X])
    assert can_reach_zero(head, torch.zeros_like(SINGULAR), [X])
    with torch.no_grad():
        head.denominator.bias.zero_(), head.denominator.weight.fill_(1e-9)
    assert can_reach_zero(head, SINGULAR, [X])


class Slope(nn.Module):
    """D = -d/dx (w / x) - `less` = w / x² - `less`, with w above 1, by meadow arithmetic."""

    def __init__(self, less):
        super().__init__()
        self.size, self.less = nn.Parameter(torch.zeros(1)), less

    def forward(self, x):
        x = x.detach().requires_grad_()
        y = ((1 + self.size.exp()) / SCM(x)).payload
        (slope,) = torch.autograd.grad(-y.sum(), x, create_graph=True)
        return torch.ones_like(x), slope - self.less


@pytest.mark.parametrize("policy", GradientPolicy)
def test_a_denominator_that_is_a_derivative_follows_no_policy(policy):
    x = torch.linspace(0.5, 1, 8)[:, None]
    with gradient_policy(policy):
        assert not can_reach_zero(Slope(0.0), x > 0, [x])
        assert can_reach_zero(Slope(1.5), x > 0, [x])
