"""What a fit may cost, and what it says of that."""

import io
import sys
from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from zeroproof import ProjectiveRegressor
from zeroproof.solve.race import Budget


@pytest.fixture
def clock(monkeypatch):
    """Let every look of a fit at the clock cost so many seconds, or do what is asked for."""

    def set_to(seconds, then=lambda look: None):
        looks = count(1)

        def process_time():
            look = next(looks)
            then(look)
            return seconds * look

        fake = SimpleNamespace(process_time=process_time)
        monkeypatch.setattr("zeroproof.solve.race.time", fake)

    return set_to


def oscillator(rng):
    X = rng.uniform([1, 1, 1, 0.5, 0.5], [3, 3, 3, 2, 2], (600, 5))
    a, E, m, w0, w = X.T
    return X, a * E / (m * (w0**2 - w**2))


def waves(rng):
    X = rng.uniform(-1, 1, (500, 3))
    return X, np.sin(4 * X[:, 0]) / (np.cos(3 * X[:, 1]) + X[:, 2] ** 2 - 0.4)


def many_poles(rng):
    x = rng.uniform(-1, 1, (900, 1))
    return x, np.tan(12 * x[:, 0]) + 0.05 * rng.normal(size=900)


def noisy(rng):
    X = rng.uniform(-1, 1, (400, 2))
    return X, 1 / (X[:, 0] ** 2 - X[:, 1] + 0.2) + 0.1 * rng.normal(size=400)


@pytest.mark.parametrize("case", [oscillator, waves, many_poles, noisy])
@pytest.mark.parametrize("seconds", [0.05, 1.0])
def test_a_busy_machine_gives_the_same_model_or_says_what_was_not_tried(clock, case, seconds):
    X, y = case(np.random.default_rng(0))
    options = {"time_budget": 3.0}
    clock(0)
    idle = ProjectiveRegressor(**options).fit(X, y)
    clock(seconds)
    busy = ProjectiveRegressor(**options).fit(X, y)
    if set(busy.fit_.cut) == set(idle.fit_.cut):
        np.testing.assert_array_equal(busy.predict(X), idle.predict(X))
    else:
        assert f"Not tried within the budget: {busy.fit_.cut[0]}" in busy.summary()
        assert "time_budget" in busy.summary()
    if seconds == 1 and case is waves:  # laws of low degree are found before the first look
        assert busy.fit_.cut


@pytest.mark.parametrize("columns", [40, 1000])
def test_many_columns_and_few_rows_are_fitted_with_a_warning(columns):
    rng = np.random.default_rng(columns)
    X, y = rng.normal(size=(20, columns)), rng.normal(size=20)
    with pytest.warns(UserWarning, match="20 rows for"):
        model = ProjectiveRegressor().fit(X, y)
    assert np.isfinite(model.predict(X)).all()


def test_where_errors_are_noise_nothing_more_is_searched_for(monkeypatch):
    looked = []
    monkeypatch.setattr(
        "zeroproof.estimators.raced.solvable", lambda *_: looked.append(1) or ([], 0)
    )
    counts = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        X = rng.normal(size=(1000, 4))
        for y in (X @ [1, 2, 3, 4], np.sin(3 * X[:, 0])):
            looked.clear()
            ProjectiveRegressor().fit(X, y + 0.3 * rng.normal(size=1000))
            counts.append(len(looked))
    assert sum(counts[::2]) <= 2  # a false alarm costs time alone
    assert counts[1::2] == [1] * 8


@pytest.mark.parametrize("threads", [1, 2])
def test_small_problems_take_one_thread_and_give_the_others_back(monkeypatch, threads):
    def pools():  # NumPy's and SciPy's, which do not follow torch's
        return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}

    seen = []

    def look(*_):
        seen.append((torch.get_num_threads(), pools()))
        raise KeyboardInterrupt

    monkeypatch.setattr("zeroproof.estimators.regressor.fit_by_race", look)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with threadpool_limits(2, user_api="blas"), pytest.raises(KeyboardInterrupt):
            ProjectiveRegressor().fit(np.arange(9.0)[:, None], np.arange(9.0))
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert seen == [(1, {1})]


def test_a_fit_ends_at_once_when_it_is_interrupted_wherever_it_is(clock):
    rng = np.random.default_rng(0)
    X = rng.uniform(-1, 1, (80, 2))
    y = np.tan(2 * X[:, 0] + X[:, 1] ** 2) + 0.05 * rng.normal(size=80)
    looks = []
    clock(0, looks.append)
    ProjectiveRegressor(time_budget=3.0).fit(X, y)
    for at in (1, len(looks) // 2, len(looks)):
        seen = []

        def interrupt(look, at=at, seen=seen):
            seen.append(look)
            if look == at:
                raise KeyboardInterrupt

        clock(0, interrupt)
        model = ProjectiveRegressor(time_budget=3.0)
        with pytest.raises(KeyboardInterrupt):
            model.fit(X, y)
        assert seen[-1] == at  # nothing catches it and goes on
        assert not hasattr(model, "fitted_")


def test_a_budget_notes_what_it_does_not_suffice_for(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("zeroproof.solve.race.time", SimpleNamespace(process_time=lambda: now[0]))
    budget = Budget(10.0)
    part = budget.part(0.5)
    assert part.allows("a", 4.0)
    now[0] = 6.0
    assert not part.allows("b")
    assert budget.allows("c")
    assert not budget.allows("d", 5.0)
    assert budget.cut == ["b", "d"]


def test_progress_is_shown_where_it_is_asked_for(monkeypatch):
    x = np.linspace(-1, 1, 300)[:, None]
    said = {}
    for verbose in (False, True):
        monkeypatch.setattr("sys.stderr", io.StringIO())
        ProjectiveRegressor(verbose=verbose).fit(x, np.tan(3 * x[:, 0]))
        said[verbose] = sys.stderr.getvalue()
    assert said[False] == ""
    assert "of 10 CPU s" in said[True]


@pytest.mark.parametrize("outliers", [False, True])
def test_many_rows_are_raced_on_a_part_and_fitted_all(outliers):
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, 30_000)
    y = 1 / (x - 0.3) + 0.05 * rng.normal(size=len(x))
    far = rng.random(len(x)) < (0.03 if outliers else 0)
    y[far] += 100 * rng.choice([-1, 1], far.sum())
    model = ProjectiveRegressor().fit(x[:, None], y)
    assert model.fitted_.rows == len(x)
    (pole,) = model.poles(within=True)
    assert abs(pole - 0.3) < 4 * float(model.pole_table().position_se[0])
    left = np.zeros(len(x), bool)
    left[model.left_out_] = True
    assert (left & far).sum() >= 0.99 * far.sum()
    assert (left & ~far).sum() <= 0.005 * len(x)
