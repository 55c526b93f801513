import pytest
import torch

from zeroproof.estimators.trained import ChordalLoss, squared_loss
from zeroproof.training.targets import lift_targets


def tuples(rows=40):
    N, D = torch.randn(rows, 2, dtype=torch.float64), 1 + torch.rand(rows, 2, dtype=torch.float64)
    return N, D


@pytest.mark.parametrize("power", [0, 0.5, 1, 2])
def test_the_value_is_that_of_the_formula(power):
    N, D = tuples()
    y = torch.randn(40, 2, dtype=torch.float64) * 3
    Y_n, Y_d = lift_targets(y)
    E = (N * Y_d - D * Y_n).square()
    w = (1 + y.square()).pow(2 * power)
    expected = (w * E / ((N**2 + D**2) * (Y_n**2 + Y_d**2))).sum() / w.sum()
    torch.testing.assert_close(ChordalLoss(power)((N, D), (Y_n, Y_d)), expected)


def test_power_1_is_the_squared_error_near_a_good_fit():
    _, D = tuples()
    y = torch.randn(40, 2, dtype=torch.float64) * 3
    error = 1e-5 * torch.randn(40, 2, dtype=torch.float64)
    loss = ChordalLoss(1)(((y + error) * D, D), lift_targets(y))
    weights = (1 + y.square()).square().sum()
    torch.testing.assert_close(loss * weights, error.square().sum(), rtol=1e-3, atol=0)


def test_power_0_takes_singular_targets_of_either_sign():
    y = torch.tensor([[float("inf")], [float("-inf")], [float("nan")]])
    N, D = torch.tensor([[-1.0], [1.0], [2.0]]), torch.zeros(3, 1)
    assert ChordalLoss(0)((N, D), lift_targets(y)) == 0


def test_the_squared_loss_is_that_of_a_plain_network_where_denominators_are_1():
    N, _ = tuples()
    y = torch.randn(40, 2, dtype=torch.float64)
    loss = squared_loss((N, torch.ones(40, 1, dtype=torch.float64)), lift_targets(y))
    torch.testing.assert_close(loss, torch.nn.functional.mse_loss(N, y))
