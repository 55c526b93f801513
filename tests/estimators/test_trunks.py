import math
from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from zeroproof import ProjectiveRegressor
from zeroproof.estimators import closed_form, regressor
from zeroproof.estimators.closed_form import Scored, solvable, solved, trunk_candidates
from zeroproof.estimators.options import Request, Rows
from zeroproof.solve.recipe import Recipe
from zeroproof.solve.search import Candidate, split

F64 = {"dtype": torch.float64}
REQUEST = Request("auto", None, False, "auto", None, 1.0, 0.0, "auto", 6.0, 0)
RIDGE = torch.tensor([1.0, -1.0, 0.5, 0.3, 0.8], **F64)


def drawn(seed=0):
    X = torch.rand(400, 5, generator=torch.Generator().manual_seed(seed), **F64) * 2 - 1
    return Rows(X, 1 / (X @ RIDGE - 0.2)[:, None], torch.ones(400, **F64))


ROWS = drawn()
X = ROWS.X


def clock(monkeypatch, seconds=0.0):
    """Let every look at the clock cost so many seconds."""
    looks = count()
    monkeypatch.setattr(
        "zeroproof.training.trunk.time",
        SimpleNamespace(process_time=lambda: seconds * next(looks)),
    )


@pytest.fixture(autouse=True)
def _still(monkeypatch):
    clock(monkeypatch)


def trained(rows=ROWS, request=REQUEST):
    return trunk_candidates(rows, request, split(rows.X, request.seed), 0, steps=120)


def test_each_method_gives_a_candidate_that_can_be_solved_on_any_rows():
    learned = []  # each is luck of its start: two of three must learn the ridge
    for seed in range(3):
        rows = drawn(seed)
        found = trained(rows, REQUEST._replace(seed=seed))
        assert [each.name for each in found] == ["joint trunk", "varpro trunk", "hybrid trunk"]
        model = solved(found[1], rows, 0, REQUEST, shared=True)
        assert found[1].weights == model.a.numel() + model.b.numel() == 130
        N, D = model.tuples(rows.X)
        chordal = (N - D * rows.y) ** 2 / ((N**2 + D**2) * (1 + rows.y**2))
        learned.append(min(each.score for each in found) < 1e-2 and chordal.mean() < 1e-3)
    assert sum(learned) >= 2


def test_the_units_of_the_columns_do_not_count():
    # powers of two change no digit of a standardised column
    units = 2.0 ** torch.tensor([10, -7, 3, 0, -20], **F64)
    for one, other in zip(trained(), trained(ROWS._replace(X=X * units)), strict=True):
        assert one.score == other.score
        here = solved(one, ROWS, 0, REQUEST, shared=True)
        there = solved(other, ROWS._replace(X=X * units), 0, REQUEST, shared=True)
        assert all(map(torch.equal, here.tuples(X), there.tuples(X * units)))


def test_columns_far_from_zero_are_standardised():
    # a trunk in their own units would be saturated
    far = ROWS._replace(X=X * 1e3 + 1e5)
    assert min(each.score for each in trained(far)) < 1e-2


def test_seconds_that_do_not_matter_do_not_change_the_answer(monkeypatch):
    slower = []
    for seconds in (0.0, 1e-5, 1e-4):
        clock(monkeypatch, seconds)
        slower.append([each.score for each in trained()])
    assert slower[0] == slower[1] == slower[2]
    clock(monkeypatch, 1.0)  # beyond the budget at the first look
    assert [each.score for each in trained()] != slower[0]


def bad(score):
    """Return the result of a search that found one candidate."""
    return Scored([Candidate(Recipe("none", ()), score, 1)], 0)


@pytest.mark.parametrize(
    ("columns", "features", "budget", "score", "rows", "asked"),
    [
        (4, "auto", 6.0, 0.9, 400, False),  # random waves cover four columns
        (5, "auto", 6.0, 0.9, 400, True),
        (5, "random", 6.0, 0.9, 400, False),
        (5, "auto", 0.5, 0.9, 400, False),  # too few steps to learn
        (5, "auto", 6.0, 1e-11, 400, False),  # another is exact
        (5, "auto", 6.0, 0.9, 9, False),  # none held out
    ],
)
def test_trunks_are_trained_where_they_can_help(
    columns, features, budget, score, rows, asked, monkeypatch
):
    trained = []
    monkeypatch.setattr(closed_form, "trunk_candidates", lambda *a: trained.append(a) or [])
    monkeypatch.setattr(closed_form, "searched", lambda *_: bad(score))
    part = Rows(X[:rows, :columns], ROWS.y[:rows], ROWS.weight[:rows])
    request = REQUEST._replace(features=features, budget=budget)
    solvable(part, request, split(part.X, 0))
    assert bool(trained) is asked


def test_of_many_rows_some_are_drawn_from_all_and_none_is_of_the_shell(monkeypatch):
    monkeypatch.setattr(closed_form, "_MOST_ROWS", 350)
    parts = split(X, 0)
    few = parts._replace(core=parts.core[:100])  # as where the table is much longer than the search
    used = closed_form._used(len(X), few, 0)
    assert len(used) == len(set(used.tolist())) == 350
    assert torch.equal(used[:140], torch.cat([few.held, few.core]))
    assert not set(used.tolist()) & set(few.shell.tolist())
    assert used[140:].double().mean() == pytest.approx(200, abs=30)  # the rows of the table, mixed
    found = trunk_candidates(ROWS, REQUEST, few, 0, steps=20)
    assert [math.isfinite(each.score) for each in found] == [True] * 3


def test_a_trunk_is_stored_and_loaded(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    wide = rng.uniform(-1, 1, (300, 5)) * [1, 10, 100, 1, 1] + [0, 5, 0, 0, 1e3]
    y = 1 / (wide @ [1, -0.1, 0.005, 0.3, 0.8] - 800)
    # whatever else serves, the trunk is the choice
    monkeypatch.setattr(closed_form, "searched", lambda *_: bad(0.9))
    monkeypatch.setattr(regressor, "raced", lambda *_: False)
    model = ProjectiveRegressor(time_budget=6.0, polish="none").fit(wide, y)
    assert model.fitted_.fit.name.endswith("trunk")
    model.save(tmp_path / "model")
    again = ProjectiveRegressor.load(tmp_path / "model")
    assert all(map(np.array_equal, again.tuples(wide), model.tuples(wide)))
    assert again.summary() == model.summary()
