import math

import pytest
import torch
from torch import nn

from zeroproof.estimators.diagnosis import RowView, diagnose, view_rows
from zeroproof.layers.mlp import ProjectiveMLP


def reciprocal(pole, std=1.0):
    """Return the model 1 / (x - pole), whose inputs are said to have the deviation `std`."""
    model = ProjectiveMLP(1, 1, hidden=(), x_std=[std])
    nn.init.zeros_(model.head.numerator.weight)
    nn.init.ones_(model.head.numerator.bias)
    nn.init.constant_(model.head.denominator.weight, std)
    nn.init.constant_(model.head.denominator.bias, -pole)
    return model


@pytest.mark.parametrize("std", [1.0, 0.1, 50.0])
def test_the_distance_is_right_near_a_pole_and_never_too_small(std):
    offset = torch.tensor([[-0.05], [-1e-4], [0.0], [1e-3], [0.05], [0.5], [3.0]])
    view = view_rows(reciprocal(0.31, std), 0.31 + offset)
    exact = offset.abs().flatten() / std
    torch.testing.assert_close(view.distance[:5], exact[:5], rtol=5e-3, atol=1e-6 / std)
    assert (view.distance[5:] >= exact[5:]).all()


def test_scores_and_signs_are_those_of_the_denominator():
    x = torch.tensor([[-1.0], [0.25], [1.0]])
    view = view_rows(reciprocal(0.0), x)
    torch.testing.assert_close(view.score, (x.abs() / (1 + x.square()).sqrt()).flatten())
    assert view.negative.flatten().tolist() == [True, False, False]


def test_the_nearest_of_several_outputs_counts():
    model = ProjectiveMLP(1, 2, hidden=(), shared_denominator=False)
    nn.init.zeros_(model.head.numerator.weight)
    nn.init.ones_(model.head.numerator.bias)
    nn.init.ones_(model.head.denominator.weight)
    with torch.no_grad():
        model.head.denominator.bias.copy_(torch.tensor([0.0, -1.0]))
    view = view_rows(model, torch.tensor([[0.01], [0.98]]))
    torch.testing.assert_close(view.distance, torch.tensor([0.01, 0.02]), rtol=1e-3, atol=0)


def test_a_model_with_constant_denominators_has_no_pole():
    model = ProjectiveMLP(2, 1, hidden=(8,))
    nn.init.zeros_(model.head.denominator.weight)
    view = view_rows(model, torch.randn(9, 2))
    assert (view.distance == math.inf).all()
    found = diagnose(view._replace(score=torch.full((9,), 1e-3)), 0)
    assert found.nearest_pole is None
    assert "The network has no pole near the rows" in found.verdict


def test_looking_at_rows_changes_neither_the_model_nor_the_rows():
    model, x = ProjectiveMLP(2, 1, hidden=(8,)), torch.randn(9, 2)
    with torch.no_grad():
        view = view_rows(model, x)
    assert all(p.grad is None for p in model.parameters())
    assert not x.requires_grad
    assert not view.score.requires_grad
    assert not view.distance.requires_grad


@pytest.mark.parametrize(
    ("score", "negative", "singular", "crosses", "verdict"),
    [
        ([0.5, 0.9], [[False], [False]], 0, False, "The network has no pole near the rows"),
        ([0.5, 0.9], [[True], [True]], 0, False, "Whether the data have one it cannot tell"),
        ([0.01, 0.9], [[True], [True]], 0, False, "some come near one of the network"),
        ([0.5, 0.9], [[True], [False]], 0, True, "a pole lies inside the data"),
        ([0.5, 0.9], [[True, False], [True, True]], 0, True, "a pole lies inside the data"),
        (
            [0.5, 0.9],
            [[False], [False]],
            3,
            False,
            "3 rows have a singular target. The network has no",
        ),
        (
            [0.5, 0.9],
            [[True], [False]],
            1,
            True,
            "singular target. The network's denominator changes sign",
        ),
    ],
)
def test_the_verdict(score, negative, singular, crosses, verdict):
    view = RowView(torch.tensor(score), torch.tensor([2.0, 7.0]), torch.tensor(negative))
    found = diagnose(view, singular)
    assert found.singular_targets == singular
    assert found.smallest_score == pytest.approx(min(score))
    assert found.nearest_pole == 2
    assert found.crosses_pole is crosses
    assert verdict in found.verdict
