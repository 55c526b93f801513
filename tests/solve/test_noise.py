import math

import pytest
import torch

from zeroproof.solve.noise import POWERS, noise_power, row_weight

F64 = {"dtype": torch.float64}
INF, NAN = math.inf, math.nan


def normal(rows, seed):
    return torch.randn(rows, generator=torch.Generator().manual_seed(seed), **F64)


def targets(rows=400, most=2.0):
    """Return answers of both signs, evenly spread over their logarithm."""
    return torch.logspace(-1, most, rows, **F64) * (-1) ** torch.arange(rows)


def errors(y, power, noise):
    return 0.01 * (1 + y.square()) ** (1 - power / 2) * noise


@pytest.mark.parametrize("power", POWERS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_power_of_the_noise_is_read_off(power, seed):
    y = targets()
    residual = errors(y, power, normal(len(y), seed))
    assert noise_power(residual, y) == power
    order = torch.randperm(len(y))
    assert noise_power(-1e-9 * residual[order], y[order]) == power


@pytest.mark.parametrize("power", POWERS)
@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_rows_that_the_fit_misses_do_not_turn_the_line(power, factor):
    y = targets()
    residual = errors(y, power, normal(len(y), 0))
    residual[::40] *= factor
    assert noise_power(residual, y) == power


@pytest.mark.parametrize("power", POWERS)
def test_errors_next_to_a_pole_are_those_of_the_fit(power):
    y = targets(most=1.0)
    residual = errors(y, power, normal(len(y), 0))
    residual[-len(y) // 20 :] *= 1e12
    assert noise_power(residual, y) == power


@pytest.mark.parametrize("power", POWERS)
def test_rows_without_an_error_are_left_out(power):
    y = targets()
    residual = errors(y, power, normal(len(y), 0))
    residual[::3], residual[1::5], y[2::7] = NAN, 0, INF
    assert noise_power(residual, y) == power


def test_complex_errors_have_a_size():
    y = targets()
    residual = errors(y, 1, normal(len(y), 0)) * torch.exp(1j * y)
    assert noise_power(residual, y * torch.exp(2j * y)) == 1


@pytest.mark.parametrize(
    ("residual", "answer"),
    [([], []), ([0.1], [3.0]), ([0.1, 0.2], [3.0, -3.0]), ([NAN, 0.0], [1.0, 2.0])],
    ids=["none", "one", "one size", "no error"],
)
def test_without_a_line_errors_are_of_one_size(residual, answer):
    assert noise_power(torch.tensor(residual, **F64), torch.tensor(answer, **F64)) == 2


@pytest.mark.parametrize("power", POWERS)
def test_weighted_chordal_errors_are_those_of_the_noise(power):
    y = targets()
    step = 1e-6 * (1 + y.square()) ** (1 - power / 2)  # of the size that the power describes
    square = step.square() / (1 + y.square()) / (1 + (y + step).square())
    # errors of that size count alike, wherever the row is
    weighed = square * row_weight(y, power)
    assert (weighed / weighed.mean()).tolist() == pytest.approx([1] * len(y), rel=1e-3)


@pytest.mark.parametrize("power", POWERS)
def test_answers_stand_in_for_one_of_the_two_sizes(power):
    y, answer = torch.tensor([3.0, 0.0, 2.0], **F64), torch.tensor([2.0, 1e3, NAN], **F64)
    sizes = (1 + y**2).tolist()
    theirs = [5.0, 9.0, 5.0]  # the second at most nine times its own, the third its own
    exact = [own * other ** (power - 1) for own, other in zip(sizes, theirs, strict=True)]
    assert row_weight(y, power, answer).tolist() == pytest.approx(exact, rel=1e-14)


def test_outputs_weigh_by_their_mean_square():
    y = torch.tensor([[1.0, 3.0], [0.0, 2j]], dtype=torch.complex128)
    assert row_weight(y, 1).tolist() == [6, 3]


def test_singular_rows_weigh_as_the_median():
    y = torch.tensor([1.0, INF, 2.0, -INF, NAN, 3.0], **F64)
    assert row_weight(y, 1).tolist() == [2, 5, 5, 5, 5, 10]
    assert row_weight(torch.tensor([INF, NAN], **F64), 2).tolist() == [1, 1]
