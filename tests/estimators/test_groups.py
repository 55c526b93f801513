"""Rows of one group are held out together, whatever is fitted."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zeroproof import ProjectiveRegressor
from zeroproof.errors import DataError, ShapeError
from zeroproof.estimators import FitOptions, fit_table
from zeroproof.estimators.options import Rows, read_groups
from zeroproof.solve.race import fewest_seen, folds_of, whole_groups, with_all_groups
from zeroproof.solve.search import split

Y = np.ones(6)


def parted(folds, group):
    """Tell whether a group has rows on both sides of some fold."""
    return any(len(np.unique(folds[group == each])) > 1 for each in np.unique(group))


@given(st.lists(st.tuples(st.integers(0, 60), st.sampled_from("abcdefgh")), min_size=2))
def test_no_fold_has_a_part_of_a_group(rows):
    x, label = np.array([x for x, _ in rows])[:, None], np.array([name for _, name in rows])
    group = np.unique(label, return_inverse=True)[1]
    fold, distinct = folds_of(x, 0, group)
    assert distinct == len(np.unique(x))
    assert np.ptp(group) == 0 or not parted(fold, label)
    left = [len(np.unique(x[fold != f])) for f in np.unique(fold)]
    assert fewest_seen(x, fold) == min(left)


def test_subjects_at_the_same_doses_are_held_out_whole():
    rng = np.random.default_rng(1)
    dose, subject = np.tile([0.1, 0.3, 1, 3, 10], 12)[:, None], np.repeat(np.arange(12), 5)
    y = 1 / (1 + dose[:, 0] / 1.2) + 0.3 * rng.normal(size=12)[subject]
    rows, whole = (ProjectiveRegressor().fit(dose, y, groups=each) for each in (None, subject))
    assert "held out by groups, 12 of them" in whole.summary()
    assert whole.fit_.comparison[0].error > rows.fit_.comparison[0].error


@pytest.mark.parametrize(("groups", "folds"), [(2, 2), (30, 30), (31, 10), (500, 10)])
def test_thirty_groups_are_left_out_one_by_one_and_more_in_ten_folds(groups, folds):
    group = np.random.default_rng(0).permutation(np.arange(1000) % groups)
    fold, distinct = folds_of(np.arange(1000.0)[:, None], 0, group)
    assert (len(np.unique(fold)), distinct) == (folds, 1000)
    assert not parted(fold, group)


@pytest.mark.parametrize("sizes", [(5, 5), (90, 10), (40, 30, 20, 10), (500, 3, 3, 3), (7,)])
def test_some_group_is_held_out_but_never_the_largest(sizes):
    group = np.repeat(np.arange(len(sizes)), sizes)
    for seed in range(5):
        held = whole_groups(group, 0.1, seed)
        assert not parted(held, group)
        assert held.any() == (len(sizes) > 1)
        assert not held[group == np.argmax(sizes)].any() or len(set(sizes)) == 1
        assert not held.all()


def test_a_part_of_the_rows_has_all_groups():
    group = np.r_[np.zeros(10_000, int), 1, 2]
    order = np.random.default_rng(0).permutation(len(group))
    drawn = with_all_groups(order, group)
    assert sorted(drawn) == list(range(len(group)))
    assert {*group[drawn[:3]]} == {0, 1, 2}


@pytest.mark.parametrize("count", [2, 3, 12])
def test_the_search_holds_out_and_sets_apart_whole_groups(count):
    group = torch.from_numpy(np.random.default_rng(0).integers(0, count, 300))
    X = torch.rand(300, 2, dtype=torch.float64) + (group == 1)[:, None]  # far out
    core, held, shell = ({*group[part].tolist()} for part in split(X, 0, group))
    assert core
    assert held
    assert shell
    assert not core & (held | shell)
    assert (held == shell) == (count == 2)
    if count > 3 and 1 not in held:
        assert 1 in shell


@pytest.mark.parametrize("seed", range(2))
def test_offsets_of_groups_make_no_wiggles_where_groups_are_held_out(seed):
    rng = np.random.default_rng(seed)
    day = np.repeat(np.arange(12), 10)
    x = np.sort(rng.uniform(0, 1, 120))[:, None]
    y = 1 + 2 * x[:, 0] + 0.4 * rng.normal(size=12)[day] + 0.02 * rng.normal(size=120)
    rows, days = (ProjectiveRegressor().fit(x, y, groups=each) for each in (None, day))
    assert days.fit_.model.free <= 2
    assert rows.fit_.model.free > 8
    # the figures are those of unseen days: never better than the offsets allow
    assert days.fit_.comparison[0].error > 1.5 * rows.fit_.comparison[0].error
    assert "held out by groups, 12 of them" in days.summary()
    assert "groups" not in rows.summary()


@pytest.mark.parametrize("width", [1, 3])
def test_replicates_within_groups_do_not_tell_the_noise(width):
    """Akaike's criterion would count rows of one day as independent."""
    rng = np.random.default_rng(1)
    x = np.repeat(np.linspace(0, 1, 10), 6)
    X = np.c_[x, rng.uniform(size=(60, width - 1))] if width > 1 else x[:, None]
    y = x + 0.4 * rng.normal(size=10)[np.repeat(np.arange(10), 6)] + 0.01 * rng.normal(size=60)
    model = ProjectiveRegressor(time_budget=2.0).fit(X, y, groups=np.repeat(np.arange(10), 6))
    assert model.fit_.model.free <= 2 * width
    assert model.fitted_.groups == 10


def test_a_law_is_found_by_groups_too():
    rng = np.random.default_rng(0)
    X, place = rng.uniform(0.2, 1.2, (600, 3)), np.arange(600) % 3
    model = ProjectiveRegressor().fit(X, X[:, 0] / (X[:, 1] - 0.7) + X[:, 2], groups=place)
    assert model.fit_.relative < 1e-12
    # a column that numbers the groups explains an offset of theirs to the last digit, but of an
    # unseen group it tells nothing
    offset = rng.normal(size=4)
    kind, place = np.eye(4)[np.arange(600) % 4], np.arange(600) % 4
    told = np.c_[X, kind[:, 1:]]
    seen, unseen = (
        ProjectiveRegressor(time_budget=2.0).fit(told, X[:, 0] + offset[place], groups=each).fit_
        for each in (None, place)
    )
    assert seen.relative < 1e-10
    assert unseen.relative > 1e-2


@pytest.mark.parametrize("symmetry", ["none", "conjugate"])
def test_signals_are_held_out_by_groups(symmetry):
    w = np.linspace(1, 20, 240)
    y = 1 / (1j * w + 0.5) + 1 / ((1j * w) ** 2 + 0.3j * w + 90)
    model = ProjectiveRegressor(symmetry=symmetry).fit(w[:, None], y, groups=np.arange(240) // 20)
    assert model.fit_.relative < 1e-9
    assert model.fitted_.groups == 12


@pytest.mark.parametrize("kind", [list, np.array, pd.Series, pl.Series, pd.Categorical])
def test_labels_are_numbers_or_text_of_any_kind(kind):
    for labels in (["b", "a", "b", "c", "a", "c"], [5, 3, 5, 7, 3, 7]):
        group = read_groups(kind(labels), np.ones(6, bool), Y)
        assert not parted(group, np.array(labels))
        assert len(np.unique(group)) == 3


@pytest.mark.parametrize(
    ("x", "labels", "error", "message"),
    [
        (range(6), [1, 1, 1, 2, 2], ShapeError, r"groups must be \(6,\), got \(5,\)"),
        (range(6), [[1]] * 6, ShapeError, r"groups must be \(6,\), got \(6, 1\)"),
        (range(6), ["a"] * 6, DataError, "at least two with finite targets, got one"),
        (
            range(6),
            ["a", None, "b", "a", "b", "b"],
            DataError,
            "in each row, .* first 1: name",
        ),
        (
            range(6),
            [0.0, 1, np.nan, 1, 0, 0],
            DataError,
            "each row, got 'nan' in 1, first 2",
        ),
    ],
    ids=["fewer", "column", "one", "none", "nan"],
)
def test_groups_that_cannot_be_are_said(x, labels, error, message):
    x = np.array(x, float)[:, None]
    for fit in (
        lambda: ProjectiveRegressor().fit(x, np.arange(6.0), groups=labels),
        lambda: fit_table(
            torch.tensor(x), torch.arange(6.0)[:, None], ("x",), ("y",), groups=labels
        ),
    ):
        with pytest.raises(error, match=message):
            fit()


def test_one_group_with_finite_targets_is_not_enough():
    y = np.r_[np.arange(5.0), np.full(5, np.inf)]
    with pytest.raises(DataError, match="with finite targets, got one"):
        ProjectiveRegressor().fit(np.arange(10.0)[:, None], y, groups=[0] * 5 + [1] * 5)


def test_rows_keep_their_groups():
    rows = Rows(*torch.arange(12.0).reshape(3, 4, 1), torch.tensor([4, 5, 6, 7]))
    assert rows.at(torch.tensor([3, 1])).group.tolist() == [7, 5]
    assert rows._replace(group=None).at(torch.tensor([3])).group is None


def test_training_holds_out_whole_groups_and_weighs_rows():
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.uniform(-1, 1, (200, 1)))
    group, good = np.arange(200) % 10, np.arange(200) % 2 == 0
    y = torch.where(torch.from_numpy(good)[:, None], 2 * x, 2 * x + 50)  # a wrong calibration
    sigma = np.where(good, 0.01, 10.0)
    options = FitOptions(hidden=(8,), steps=300, progress=False)
    names = (("x",), ("y",))
    plain = fit_table(x, y, *names, options, groups=group)
    weighed = fit_table(x, y, *names, options, weight=1 / sigma**2, groups=group)
    assert not parted(plain.held_out.numpy(), group)
    assert 0 < int(plain.held_out.sum()) < 200
    assert plain.run.facts["groups"] == 10

    def error(fit):
        N, D = fit.run.model(x[good])
        center, scale = (torch.tensor(part) for part in fit.run.frame)
        return float((center + scale * N / D - y[good]).abs().median().detach())

    assert error(weighed) < 1
    assert error(plain) > 2
