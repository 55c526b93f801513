import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zeroproof.estimators.fitted import skill
from zeroproof.projective.angle import chordal_distance
from zeroproof.solve.recipe import lift

Y = torch.tensor([[0.5], [2.0], [-1.0], [math.inf], [math.nan]], dtype=torch.float64)
ONE = torch.ones(5, dtype=torch.float64)


def test_perfect_answers_score_one_whatever_the_size_of_their_tuples():
    N, D = lift("y", Y)
    size = torch.tensor([[1.0], [-3.0], [1e5], [-2.0], [0.1]])
    assert skill(N, D, Y, ONE) == pytest.approx(1, abs=1e-14)
    assert skill(size * N, size * D, Y, ONE) == pytest.approx(1, abs=1e-12)


@given(angle=st.floats(0, math.pi))
def test_no_constant_is_better_than_the_best_and_one_reaches_it(angle):
    N = torch.full((5, 1), math.cos(angle), dtype=torch.float64)
    D = torch.full((5, 1), math.sin(angle), dtype=torch.float64)
    assert skill(N, D, Y, ONE) <= 1e-12


def test_the_best_constant_scores_zero():
    angles = torch.linspace(0, math.pi, 20001, dtype=torch.float64)
    scores = [skill(t.cos().expand(5, 1), t.sin().expand(5, 1), Y, ONE) for t in angles[::100]]
    assert max(scores) == pytest.approx(0, abs=1e-3)


def test_it_is_one_minus_the_ratio_of_mean_squared_chordal_distances():
    y = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)  # the best constant is off by 1/2
    N, D = torch.tensor([[1.0], [0.0]]).double(), torch.ones(2, 1).double()
    square = chordal_distance(N, D, *lift("y", y)).square().mean()
    assert skill(N, D, y, torch.ones(2).double()) == pytest.approx(1 - float(square) / 0.5)


def test_weights_of_zero_leave_rows_out():
    N, D = lift("y", Y)
    wrong = torch.where(torch.arange(5)[:, None] == 2, 7.0, N)
    weight = torch.tensor([1.0, 1.0, 0.0, 1.0, 1.0], dtype=torch.float64)
    assert skill(wrong, D, Y, ONE) < 0.9
    assert skill(wrong, D, Y, weight) == pytest.approx(1)


def test_outputs_count_alike_and_may_share_a_denominator():
    y = torch.tensor([[1.0, 2.0], [3.0, -1.0]], dtype=torch.float64)
    assert skill(y, torch.ones(2, 1), y, torch.ones(2).double()) == pytest.approx(1)


def test_complex_answers_are_scored():
    y = torch.tensor([[1 + 1j], [2 - 1j], [0.5j]])
    assert skill(y, torch.ones(3, 1), y, torch.ones(3)) == pytest.approx(1, abs=1e-6)
    assert skill(y.conj(), torch.ones(3, 1), y, torch.ones(3)) < 0.5


def test_answers_that_are_not_finite_are_as_wrong_as_can_be():
    nan = torch.full((5, 1), math.nan, dtype=torch.float64)
    assert skill(nan, torch.ones(5, 1).double(), Y, ONE) < 0


@pytest.mark.parametrize(("answer", "score"), [(2.0, 1.0), (3.0, 0.0)])
def test_targets_that_are_all_alike(answer, score):
    y, one = torch.full((4, 1), 0.0, dtype=torch.float64), torch.ones(4, dtype=torch.float64)
    N = torch.full((4, 1), answer - 2.0, dtype=torch.float64)
    assert skill(N, one[:, None], y, one) == score
