import math

import pytest
import torch

from zeroproof.solve.recipe import Recipe
from zeroproof.solve.search import FLOOR, Table, chordal_error, oriented, slack

F64 = {"dtype": torch.float64}
INF, NAN = math.inf, math.nan


def column(*values):
    return torch.tensor(values, **F64)[:, None]


def angle(N, D):
    return math.atan2(D, N)


TUPLES = [  # N, D, y, tuple of y
    (1.0, 1.0, 1.0, (1, 1)),
    (1.0, 2.0, -3.0, (-3, 1)),
    (-4.0, -2.0, 2.0, (2, 1)),
    (3.0, 0.5, INF, (1, 0)),
    (-3.0, 0.5, INF, (1, 0)),
    (3.0, 0.5, -INF, (-1, 0)),
    (1.0, 0.0, NAN, (1, 0)),
]


@pytest.mark.parametrize(("N", "D", "y", "lifted"), TUPLES)
def test_a_chordal_error_is_the_squared_sine_of_the_angle_between(N, D, y, lifted):
    turn = angle(N, D) - angle(*lifted)
    parts = column(N), column(D), column(y), torch.ones(1, **F64)
    assert chordal_error(*parts) == pytest.approx(math.sin(turn) ** 2, abs=1e-15)
    both = chordal_error(*parts, affine=True)
    assert both == pytest.approx(2 * (1 - math.cos(turn)), abs=1e-15)


def test_rows_count_by_their_weights_and_outputs_alike():
    rows = [column(*part) for part in zip(*(each[:3] for each in TUPLES), strict=True)]
    weight = torch.arange(7, **F64) / 7  # below 1 no row can count for more than it weighs
    alone = [chordal_error(*(z[i : i + 1] for z in rows), torch.ones(1, **F64)) for i in range(7)]
    mean = sum(w * each for w, each in zip(weight.tolist(), alone, strict=True)) / 7
    assert chordal_error(*rows, weight) == pytest.approx(mean)
    N, D, y = rows
    two = torch.cat([N, 0 * N], 1), D, torch.cat([y, column(*[INF] * 7)], 1)  # one D for both
    assert chordal_error(*two, weight) == pytest.approx((mean + 3 / 7) / 2)


def test_no_row_counts_for_more_than_a_relative_error_of_1():
    y = column(0.1, 100.0)
    answers = column(0.1, -50.0), column(1.0, 1.0)
    for power, most in ((0, 1), (1, 1), (2, 1 + 100**2)):
        weight = (1 + y[:, 0].square()) ** power
        assert chordal_error(*answers, y, weight) <= most / 2
    relative = chordal_error(column(0.1, 101.0), answers[1], y, 1 + y[:, 0].square())
    assert relative == pytest.approx(0.01**2 / 2, rel=0.03)


@pytest.mark.parametrize(("N", "D"), [(NAN, 1.0), (1.0, NAN), (0.0, 0.0)])
def test_an_answer_that_is_none_costs_1(N, D):
    assert chordal_error(column(N), column(D), column(0.5), torch.ones(1, **F64)) == 1


def test_complex_answers_are_compared_up_to_their_phase():
    y = torch.tensor([[1 + 2j]])
    N, D = y * 1j, torch.tensor([[1j]])
    assert chordal_error(N, D, y, torch.ones(1, **F64)) == pytest.approx(0, abs=1e-15)
    assert chordal_error(N, -D, y, torch.ones(1, **F64)) > 0.1


def test_orientation_makes_most_denominators_positive():
    D = torch.tensor([[1.0, -1.0, 1.0], [-2.0, -5.0, 1.0], [-3.0, 0.5, 1.0], [0.0, 1.0, -9.0]])
    N = torch.arange(12.0).reshape(4, 3)
    turned_N, turned_D = oriented(N, D)
    assert (turned_D.sign().sum(0) >= 0).all()
    assert torch.equal(turned_N, N * torch.tensor([-1.0, 1.0, 1.0]))
    assert torch.equal(turned_N / turned_D, N / D)
    assert torch.equal(oriented(turned_N, turned_D)[1], turned_D)


@pytest.mark.parametrize(
    ("score", "rows", "factor"),
    [(1e-3, 0, 2), (1e-21, 400, 2), (1e-19, 400, 1.05), (1e-3, 1, 2), (1e-3, 100, 1.1)],
)
def test_scores_may_differ_by_a_standard_error(score, rows, factor):
    assert slack(score, rows) == pytest.approx(factor)


def table(y, held=10, affine=False):
    X = torch.linspace(-1, 1, len(y), **F64)[:, None]
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    return Table(X[order], y[order], len(y) - 2 * held, held, affine, 0)


def test_a_score_is_the_mean_of_both_kinds_of_held_out_rows():
    y = torch.linspace(-1, 1, 100, **F64)[:, None] ** 3
    rows = table(y)
    found = rows.score(Recipe("polynomial", ("identity",), size=(1, 1)), 0, 80, math.inf)
    held, shell = rows.parts()
    assert (held, shell) == (slice(80, 90), slice(90, 100))
    assert min(found.random, found.score) > 1e-4
    exact = rows.score(Recipe("polynomial", ("identity",), size=(3, 0)), 0, 80, math.inf)
    assert exact.random == pytest.approx(FLOOR, abs=1e-29)
    assert exact.score < 1e-28


def test_rows_that_none_can_be_spared_of_are_scored_themselves():
    y = torch.linspace(-1, 1, 6, **F64)[:, None]
    rows = table(y, held=0)
    assert rows.parts() == (slice(0, 6), slice(0, 6))
    line = Recipe("polynomial", ("identity",), size=(1, 0))
    assert rows.score(line, 0, 6, math.inf).score < 1e-28


def test_infinities_of_both_signs_cost_only_where_they_differ():
    N, D = torch.ones(4, 1, **F64), column(1.0, 1.0, 1e-9, -1e-9)
    y, weight = column(1.0, 1.0, INF, INF), torch.ones(4, **F64)
    one, two = (Table(y, y, 2, 1, affine, 0).errors("y", N, D, weight) for affine in (False, True))
    assert max(one) < 1e-17
    assert two[0] < 1e-17
    assert two[1] < 1e-17
    turned = Table(y, y, 2, 1, True, 0).errors("y", -N, -D, weight)
    assert turned == two  # the sign of all tuples together means nothing


@pytest.mark.parametrize("power", [0, 1, 2])
def test_the_noise_is_read_off_a_fit(power):
    x = torch.linspace(0.05, 2, 400, **F64)[:, None]
    y = 1 / x
    random = torch.randn(400, 1, generator=torch.Generator().manual_seed(0), **F64)
    noisy = y + 0.01 * (1 + y**2) ** (1 - power / 2) * random
    order = torch.randperm(400, generator=torch.Generator().manual_seed(1))
    rows = Table(x[order], noisy[order], 320, 40, False, 0)
    recipe = Recipe("polynomial", ("identity",), size=(0, 1))
    assert rows.noise(recipe, 1e-9) == power
