import math

import pytest
import torch
from torch import nn

from zeroproof.errors import RangeError
from zeroproof.estimators import closed_form as module
from zeroproof.estimators.closed_form import (
    block,
    crosses,
    held_errors,
    held_residual,
    preferred,
    scored,
    solvable,
    solved,
)
from zeroproof.estimators.model import ReadoutModel
from zeroproof.estimators.options import Request, Rows
from zeroproof.layers.features import Column, ModuleFeatures, graded_features
from zeroproof.solve.noise import row_weight
from zeroproof.solve.recipe import Recipe
from zeroproof.solve.search import CLEAN, Candidate, Split, split

F64 = {"dtype": torch.float64}
INF, NAN = math.inf, math.nan
REQUEST = Request("polynomial", (1, 1), False, "auto", None, 1.0, 0.0, "auto", 0.5, 0)
LINE = graded_features([Column(0, "identity", 0.0, 1.0)], 1)
X = torch.linspace(-1, 1, 100, **F64)[:, None]
ONES = torch.ones(100, **F64)


def column(*values):
    return torch.tensor(values, **F64)[:, None]


def reciprocal(pole, scale=1.0, sign=1.0):
    """Return scale / (x - pole) as a model whose D is that times ±1."""
    a, b = column(sign, 0.0), sign * column(-pole, 1.0)
    return ReadoutModel(LINE, LINE, a, b, "y", scale)


def parts(core, held, shell):
    return Split(*(torch.tensor(each, dtype=torch.int64) for each in (core, held, shell)))


PARTS = parts(range(20, 80), range(20), range(80, 100))


@pytest.mark.parametrize(
    ("table", "rows", "order"),
    [
        ([("a", 1.0e-6, 8), ("b", 1.02e-6, 6), ("c", 1.9e-6, 2), ("d", 2.1e-6, 1)], 400, "bac"),
        ([("a", 1e-32, 9), ("b", 0.9 * CLEAN, 6)], 400, "ba"),
        ([("a", 1.9e-6, 2), ("b", 1.0e-6, 6)], 0, "ab"),
    ],
    ids=["smallest of alike", "exact", "nothing held out"],
)
def test_the_choice_is_the_smallest_that_held_out_rows_cannot_tell_from_the_best(
    table, rows, order
):
    found = [Candidate(Recipe(name, ()), *row) for name, *row in table]
    assert [each.name for each in preferred(found, rows)] == list(order)
    assert [each.name for each in preferred(found[::-1], rows)] == list(order)


def test_crossing_is_a_change_of_sign_of_any_denominator():
    assert crosses(reciprocal(0.3), X)
    assert not crosses(reciprocal(1.3), X)
    two = reciprocal(1.3)._replace(a=torch.ones(2, 2, **F64))
    two = two._replace(b=torch.cat([column(-1.3, 1.0), column(-0.3, 1.0)], 1))
    assert crosses(two, X)
    on_a_row = reciprocal(0.5)._replace(b=column(1.0, 1.0))  # 0 at the first row, else positive
    assert not crosses(on_a_row, X)


def test_held_errors_are_of_the_held_rows_and_of_the_shell():
    rows = Rows(X, 1 / (X - 1.3), ONES)
    rows.y[PARTS.held] = -1 / rows.y[PARTS.held]  # at a right angle
    assert held_errors(reciprocal(1.3), rows, PARTS) == pytest.approx((1, 0), abs=1e-15)
    none = Split(torch.arange(100), PARTS.held[:0], PARTS.held[:0])
    assert held_errors(reciprocal(1.3), rows, none) == pytest.approx((0.2, 0.2))


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_affine_errors_tell_the_infinities_apart_and_not_the_gauge(sign):
    rows = Rows(X, 1 / (X + 1.3), ONES)
    rows.y[0], rows.y[80] = -INF, INF
    held, shell = held_errors(reciprocal(-1.3, sign=sign), rows, PARTS, affine=True)
    chordal = held_errors(reciprocal(-1.3, sign=sign), rows, PARTS)
    angle = math.atan2(0.3, 1)  # of the answer 1 / 0.3 to ⟨-1, 0⟩, less π
    assert held == pytest.approx(2 * (1 + math.cos(angle)) / 20)
    assert chordal[0] == pytest.approx(math.sin(angle) ** 2 / 20)
    assert shell == pytest.approx(2 * (1 - math.cos(math.atan2(float(X[80]) + 1.3, 1))) / 20)


@pytest.mark.parametrize("power", [0, 1, 2])
def test_held_errors_are_weighed_by_the_power(power):
    rows = Rows(X, 1 / (X - 1.3) + 0.1, ONES)
    N, D = reciprocal(1.3).tuples(X)
    y = rows.y
    square = ((N - D * y) ** 2 / ((N**2 + D**2) * (1 + y**2)))[PARTS.held, 0]
    weight = row_weight(y, power)[PARTS.held]
    size = 1 + y[PARTS.held, 0] ** 2
    exact = float(torch.minimum(weight * square, (weight / size).clamp(min=1)).mean())
    assert held_errors(reciprocal(1.3), rows, PARTS, power)[0] == pytest.approx(exact, rel=1e-12)


def test_held_residuals_are_of_finite_rows_over_their_scale():
    rows = Rows(X, 1 / (X - 1.3) + 0.25, ONES)
    rows.y[2], rows.y[3] = INF, NAN
    residual, answer = held_residual(reciprocal(1.3, scale=7.0), rows, PARTS)
    kept = [i for i in range(20) if i not in {2, 3}]
    assert residual.tolist() == pytest.approx([0.25] * 18)
    assert answer.tolist() == pytest.approx((1 / (X[kept, 0] - 1.3)).tolist())


def test_many_rows_are_solved_in_blocks(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    y = 1 / (X - 1.3) + 0.05 * torch.randn(100, 1, generator=generator, **F64)
    rows = Rows(X, y, 1 + torch.rand(100, generator=generator, **F64))
    identity = ModuleFeatures((Column(0, "identity", 0.0, 1.0),), nn.Identity())
    candidate = Candidate(Recipe("module", ()), features=identity)

    def solve(rows, power):
        return solved(candidate, rows, power, REQUEST, shared=True)

    for power in (0, 2):
        whole = solve(rows, power)
        monkeypatch.setattr(module, "_ENTRIES", 4 * 7)  # seven rows
        blocks = solve(rows, power)
        monkeypatch.undo()
        torch.testing.assert_close(blocks.a, whole.a, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(blocks.b, whole.b, rtol=1e-10, atol=1e-12)


def test_weights_of_a_block_follow_the_answers_of_a_head():
    rows = Rows(X, 1 / (X - 1.3) + 0.2, 2 * ONES)
    head = column(1.0, 0.0), column(-1.3, 1.0)
    H_N, H_D, Y_n, Y_d, plain = block((LINE, LINE), rows, 2, "y")
    assert torch.equal(H_N, torch.cat([torch.ones_like(X), X], 1))
    assert torch.equal(H_D, H_N)
    assert torch.equal(Y_n / Y_d, rows.y)
    assert torch.equal(plain, 2 * row_weight(rows.y, 2))
    led = block((LINE, LINE), rows, 2, "y", head)[-1]
    assert torch.equal(led, 2 * row_weight(rows.y, 2, 1 / (X - 1.3)))


def test_an_affine_candidate_that_crosses_a_pole_has_no_score():
    rows = Rows(X, 1 / (X - 0.305), ONES)
    identity = ModuleFeatures((Column(0, "identity", 0.0, 1.0),), nn.Identity())
    candidate = Candidate(Recipe("module", ()), features=identity)
    chordal = scored(candidate, rows, REQUEST, PARTS, 0)
    assert chordal.score < 1e-25
    assert chordal.weights == 4
    affine = REQUEST._replace(affine=True)
    assert scored(candidate, rows, affine, PARTS, 0).score == INF


@pytest.mark.parametrize(
    ("columns", "features", "names"),
    [
        (1, "polynomial", {"polynomial"}),
        (1, "random", {"random"}),
        (2, "polynomial", {"polynomial"}),
        (2, nn.Linear(2, 3), {"module"}),
    ],
    ids=["line", "line of waves", "plane", "module"],
)
def test_exact_data_ask_for_one_kind_of_candidate(columns, features, names):
    wide = torch.rand(100, columns, generator=torch.Generator().manual_seed(0), **F64)
    rows = Rows(wide, 1 / (wide[:, -1:] + 0.305), ONES)
    request = REQUEST._replace(features=features, degrees=None)
    found = solvable(rows, request, split(wide, 0))
    assert {each.name for each in found.candidates} == names
    assert found.power == 0


@pytest.mark.parametrize(
    ("power", "given"), [(0, 0), (1, 1), (2, 2)], ids=["angles", "relative", "one size"]
)
def test_row_weights_are_those_the_noise_asks_for(power, given):
    wide = torch.linspace(0.1, 3, 400, **F64)[:, None]
    y = 1 / wide
    noise = 0.01 * torch.randn(400, 1, generator=torch.Generator().manual_seed(1), **F64)
    rows = Rows(wide, y + (1 + y**2) ** (1 - power / 2) * noise, torch.ones(400, **F64))
    request = REQUEST._replace(features=nn.Identity())
    assert solvable(rows, request, split(wide, 0)).power == given


def test_no_candidate_is_said():
    rows = Rows(X, 1 / (X - 0.305), ONES)
    message = r"must allow at least one candidate, got 1e-09 s and 100 rows"
    with pytest.raises(RangeError, match=message):
        solvable(rows, REQUEST._replace(budget=1e-9), PARTS)
