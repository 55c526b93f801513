import math

import pytest
import torch

from examples.arm import COLUMNS, sample_arm


def jacobian(elbow):
    """d(tool) / d(angles) of two links of 1 m, in the frame of the upper arm."""
    sine, cosine = torch.sin(elbow), torch.cos(elbow)
    rows = [torch.stack([-sine, -sine], dim=-1), torch.stack([1 + cosine, cosine], dim=-1)]
    return torch.stack(rows, dim=-2)


def test_the_jacobian_is_the_derivative_of_the_tool():
    angles = torch.tensor([0.0, 0.7], dtype=torch.float64)

    def tool(q):
        return torch.stack([q[0].cos() + q.sum().cos(), q[0].sin() + q.sum().sin()])

    found = torch.autograd.functional.jacobian(tool, angles)
    torch.testing.assert_close(found, jacobian(angles[1]))


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_the_rates_move_the_tool_as_asked(seed):
    arm = sample_arm(500, locked=20, seed=seed)
    free = torch.isfinite(arm.rates).all(1)
    assert torch.equal(~free, torch.arange(500) < 20)
    J = jacobian(arm.inputs[free, 0])
    moved = torch.einsum("nij,nj->ni", J, arm.rates[free])
    torch.testing.assert_close(moved, arm.inputs[free, 1:], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(arm.determinant[free], torch.linalg.det(J))


def test_locked_rows_have_no_finite_answer_unless_nothing_is_asked():
    arm = sample_arm(50, locked=10, seed=0)
    assert (arm.inputs[:10, 0] == 0).all()
    assert (arm.determinant[:10] == 0).all()
    assert torch.isinf(arm.rates[:10]).all()


def test_elbows_stay_within_150_degrees_and_seeds_matter():
    arm = sample_arm(2000, locked=0, seed=0)
    largest = arm.inputs[:, 0].abs().max()
    assert math.radians(145) < largest <= math.radians(150)
    assert torch.equal(arm.rates, sample_arm(2000, locked=0, seed=0).rates)
    assert not torch.equal(arm.inputs, sample_arm(2000, locked=0, seed=1).inputs)


def test_columns_are_named():
    columns = sample_arm(3, locked=1, seed=0).columns()
    assert tuple(columns) == COLUMNS
    assert all(len(column) == 3 for column in columns.values())
