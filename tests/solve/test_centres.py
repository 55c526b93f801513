import pytest
import torch

from zeroproof.solve.centres import distances, find_centres


def box(rows, d, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.rand(rows, d, generator=generator, dtype=torch.float64) - 1


def potential(X, centres, charges):
    r = torch.linalg.vector_norm(X[:, None] - torch.tensor(centres).double(), dim=2)
    return (torch.tensor(charges).double() / r).sum(1)


@pytest.mark.parametrize(
    ("centres", "charges"),
    [
        pytest.param([(0.3, -0.2)], [1.0], id="one"),
        pytest.param([(0.3, 0.21), (-0.37, -0.1)], [1.0, -1.0], id="opposite"),
        pytest.param([(0.3, 0.21), (-0.37, -0.1)], [1.0, 1.0], id="alike"),
        pytest.param([(0.3, 0.21, -0.3), (-0.37, -0.1, 0.2)], [1.0, -1.2], id="in space"),
    ],
)
def test_centres_of_potentials_are_found_to_rounding(centres, charges):
    X = box(4000, len(centres[0]))
    y = potential(X, centres, charges)
    found = find_centres(X, y / y.abs().median())
    truth = torch.tensor(centres).double()
    gaps = torch.cdist(truth, found)
    assert found.shape == truth.shape
    assert gaps.amin(1).max() < 1e-9


def test_noise_moves_them_little():
    X = box(4000, 2)
    y = potential(X, [(0.3, 0.21), (-0.37, -0.1)], [1.0, -1.0])
    y = y * (1 + 0.01 * torch.randn(4000, generator=torch.Generator().manual_seed(1)).double())
    gaps = torch.cdist(torch.tensor([(0.3, 0.21), (-0.37, -0.1)]).double(), find_centres(X, y))
    assert gaps.amin(1).max() < 2e-3


@pytest.mark.parametrize(
    "f",
    [
        pytest.param(lambda X: 1 / (X.square().sum(1) - 0.5), id="ring"),
        pytest.param(lambda X: 1 / (X[:, 0] - 0.1), id="line"),
        pytest.param(lambda X: X.sum(1), id="regular"),
    ],
)
def test_curves_and_slopes_have_none(f):
    X = box(2000, 2)
    assert find_centres(X, f(X)).shape == (0, 2)


def test_rows_without_a_finite_target_are_left_out():
    X = box(2000, 2)
    y = potential(X, [(0.3, 0.21)], [1.0])
    y[:5] = torch.tensor([torch.inf, -torch.inf, torch.nan, torch.inf, torch.nan])
    assert torch.cdist(find_centres(X, y), torch.tensor([[0.3, 0.21]]).double()).max() < 1e-9


def test_distances_follow_the_columns():
    X = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    assert distances(X, torch.zeros(1, 2)).tolist() == [[3, 4, 5], [0, 0, 0]]
