import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from zeroproof import ProjectiveRegressor
from zeroproof.errors import RangeError, ShapeError
from zeroproof.estimators.model import ReadoutModel

LINE = np.linspace(-1, 1, 300)[:, None]
x = LINE[:, 0]
PLANE = np.random.default_rng(0).uniform(-1, 1, (400, 2))
THREE = 1 / (x - 0.31) + 2 / (x + 0.5) - 1 / (x - 0.8)
APART = np.c_[1 / (PLANE @ [1, -0.2] - 0.3), 1 / (PLANE[:, 1] + 0.1)]
TOGETHER = PLANE / (PLANE @ [1.0, -0.2] - 0.3)[:, None]


def regressor(**options):
    return ProjectiveRegressor(**{"time_budget": 2.0, **options})


@pytest.mark.parametrize("features", ["auto", "chebyshev", "polynomial", "random", "fourier"])
def test_every_family_of_features_finds_three_poles(features):
    model = regressor(features=features).fit(LINE, THREE)
    assert model.poles(within=True).tolist() == pytest.approx([-0.5, 0.31, 0.8], abs=1e-6)
    assert model.residues(within=True).tolist() == pytest.approx([2, 1, -1], rel=1e-4)
    near = 0.31 + np.array([-1e-2, 1e-3, 1e-1])
    exact = 1 / (near - 0.31) + 2 / (near + 0.5) - 1 / (near - 0.8)
    assert model.predict(near[:, None]) == pytest.approx(exact, rel=1e-4)


@pytest.mark.parametrize("features", ["chebyshev", "polynomial", "random", "fourier"])
def test_a_family_that_is_asked_for_is_taken(features):
    model = regressor(features=features, time_budget=1.0).fit(PLANE, TOGETHER[:, 0])
    assert model.fitted_.fit.recipe.family == features
    assert model.fitted_.fit.recipe.transforms == ("identity", "identity")


def test_a_module_gives_the_features():
    module = nn.Sequential(nn.Linear(2, 2), nn.Flatten())
    with torch.no_grad():
        module[0].weight.copy_(torch.tensor([[0.0, 1.0], [1.0, 1.0]]))
    before = [p.clone() for p in module.parameters()]
    y = (1 + PLANE[:, 0]) / (PLANE[:, 1] - 0.4)
    model = regressor(features=module).fit(PLANE, y)
    assert model.predict(PLANE) == pytest.approx(y, rel=1e-6)
    assert all(torch.equal(*pair) for pair in zip(before, module.parameters(), strict=True))
    assert all(p.dtype == torch.float32 and p.requires_grad for p in module.parameters())


def test_columns_of_a_module_can_enter_linearly():
    y = (1 + PLANE[:, 0]) / (PLANE[:, 1] - 0.4)
    model = regressor(features=nn.Identity(), linear_in=[0]).fit(PLANE, y)
    assert len(model.fitted_.fit.model.b) == 2  # 1 and the second column
    assert model.predict(PLANE) == pytest.approx(y, rel=1e-9)


def test_a_module_that_returns_the_wrong_shape_is_refused():
    with pytest.raises(ShapeError, match=r"must return \(\d+, features\), got \(\d+,\)"):
        regressor(features=nn.Flatten(0)).fit(LINE, THREE)


@pytest.mark.parametrize(
    ("y", "shared", "denominators"),
    [
        (TOGETHER, True, 1),
        (TOGETHER, False, 2),
        (TOGETHER, "auto", 1),
        (APART, True, 1),
        (APART, False, 2),
    ],
    ids=["together-shared", "together-apart", "together-auto", "apart-shared", "apart-apart"],
)
def test_outputs_share_a_denominator_or_not(y, shared, denominators):
    model = regressor(features="polynomial", degrees=(2, 2), shared_denominator=shared)
    model.fit(PLANE, y)
    assert model.tuples(PLANE)[1].shape[1] == denominators
    assert model.predict(PLANE) == pytest.approx(y, rel=1e-6)


def test_separate_denominators_are_found_where_one_does_not_do():
    model = regressor(features="polynomial", degrees=(1, 1)).fit(PLANE, APART)
    assert model.tuples(PLANE)[1].shape[1] == 2
    assert model.predict(PLANE) == pytest.approx(APART, rel=1e-6)


def test_outputs_of_one_column_have_their_own_poles():
    y = np.c_[1 / (x - 0.25), THREE, x**2]
    model = regressor().fit(LINE, y)
    found = [model.poles(within=True, output=j).real.tolist() for j in range(3)]
    assert found[0] == pytest.approx([0.25], abs=1e-11)
    assert found[1] == pytest.approx([-0.5, 0.31, 0.8], abs=1e-11)
    assert found[2] == []
    with pytest.raises(RangeError, match="output must be one of 0, 1, 2, got 3"):
        model.poles(output=3)


@pytest.mark.parametrize("linear", [[0], 0, ["a"], "a", np.array([0])], ids=str)
def test_linear_columns_are_given_by_place_or_name(linear):
    frame = pd.DataFrame(PLANE, columns=["a", "b"])
    y = (PLANE[:, 0] + 2) / (PLANE[:, 1] - 0.4)
    model = regressor(features="polynomial", linear_in=linear).fit(frame, y)
    assert model.fitted_.fit.recipe.linear == (0,)
    assert model.predict(frame) == pytest.approx(y, rel=1e-9)


def test_linear_columns_are_places_of_the_table_not_of_what_is_used():
    X = np.c_[np.ones(400), PLANE]
    y = (PLANE[:, 0] + 2) / (PLANE[:, 1] - 0.4)
    with pytest.warns(UserWarning, match=r"columns \[0\] are constant"):
        model = regressor(features="polynomial", linear_in=[1]).fit(X, y)
    assert model.fitted_.columns == (1, 2)
    assert model.fitted_.fit.recipe.linear == (0,)


def test_an_empty_list_declares_that_no_column_is_linear():
    model = regressor(linear_in=[]).fit(PLANE, PLANE[:, 0] / (PLANE[:, 1] - 0.4))
    assert model.fitted_.fit.recipe.linear == ()


@pytest.mark.parametrize("degrees", [(2, 3), 3, (np.int64(2), np.int64(3)), [2, 3]])
def test_degrees_are_those_asked_for(degrees):
    model = regressor(degrees=degrees).fit(LINE, THREE)
    assert model.poles(within=True).tolist() == pytest.approx([-0.5, 0.31, 0.8], abs=1e-9)
    small = regressor(degrees=(1, 1)).fit(LINE, THREE)
    assert len(small.poles(all=True)) == 1


@pytest.mark.parametrize(("degrees", "poles"), [((1, 0), 0), ((3, 1), 1), ((0, 2), 2), ((2, 2), 2)])
@pytest.mark.parametrize("polish", ["auto", "none"])
def test_no_form_has_more_poles_than_the_degrees_say(degrees, poles, polish):
    model = regressor(degrees=degrees, polish=polish).fit(LINE, THREE)
    assert len(model.poles(all=True)) <= poles


@pytest.mark.parametrize("rows", [12, 40, 100])
def test_few_rows_get_few_waves(rows):
    model = regressor(features="random").fit(PLANE[:rows], PLANE[:rows, 0])
    assert sum(len(part) for part in model.fitted_.fit.model[2:4]) <= 0.8 * rows


def test_degrees_of_one_column_are_those_of_the_column_itself():
    positive = np.linspace(0.1, 4, 200)[:, None]
    y = np.sqrt(positive[:, 0])  # features of √x would be exact
    assert abs(regressor(degrees=(1, 1)).fit(positive, y).predict(positive) - y).max() > 1e-3


def test_affine_infinities_keep_their_signs():
    model = regressor(topology="affine").fit(LINE, 1 / (x - 1.1) ** 2)
    decoded, bottom, _ = model.predict_strict([[0.0], [1.1], [0.9]])
    assert bottom.tolist() == [False, True, False]
    assert decoded[[0, 2]] == pytest.approx([1 / 1.21, 25], rel=1e-9)
    assert (model.tuples(LINE)[1] > 0).all()


def test_beyond_a_pole_is_bottom_when_affine():
    y = 1 / (1.1 - x)
    model = regressor(topology="affine").fit(LINE, y)
    assert model.predict(LINE) == pytest.approx(y, rel=1e-9)
    assert np.isnan(model.predict([[1.2], [5.0]])).all()
    crossing = regressor().fit(LINE, y)
    assert crossing.predict([[1.2]]) == pytest.approx([-10], rel=1e-9)


def test_degrees_whose_affine_fit_crosses_a_pole_are_refused():
    with pytest.raises(RangeError, match="rows and topology must allow at least one candidate"):
        regressor(topology="affine", degrees=(0, 1)).fit(LINE, 1 / (x - 0.25))


def test_an_affine_fit_that_crosses_a_pole_all_the_same_is_said():
    model = regressor(degrees=(0, 1)).fit(LINE, 1 / (x - 0.25))
    with pytest.warns(UserWarning, match=r"D changes its sign between rows: .* topology='proj"):
        model._orientation(model.fitted_.fit, torch.from_numpy(LINE))


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_the_polish_ends_at_a_stationary_point_of_its_objective(power):
    generator = np.random.default_rng(0)
    y = (1 + x) / (x - 1.3) + 0.05 * generator.normal(size=len(x))
    s = 0.7
    fit = regressor(degrees=(1, 1), weight_power=power, scale=s).fit(LINE, y)
    plain = regressor(degrees=(1, 1), weight_power=power, scale=s, polish="none").fit(LINE, y)

    def objective(model, factor=1.0):
        off = factor * model.predict(LINE) - y
        return (off**2 / (1 + (y / s) ** 2) ** power).sum()

    best = objective(fit)
    assert best <= objective(plain) * (1 + 1e-12)
    assert all(best < objective(fit, 1 + step) for step in (1e-3, -1e-3))
    assert fit.fitted_.fit.polished
    assert not plain.fitted_.fit.polished


def test_without_degrees_the_polish_is_kept_only_where_it_helps():
    clean = regressor().fit(LINE, THREE)
    assert not clean.fitted_.fit.polished
    noisy = (1 + x) / (x - 1.3) + 0.05 * np.random.default_rng(0).normal(size=len(x))
    free = regressor().fit(LINE, noisy)
    none = regressor(polish="none").fit(LINE, noisy)
    assert not none.fitted_.fit.polished
    assert math.isfinite(free.score(LINE, noisy))


def test_the_scale_of_targets_can_be_said():
    model = regressor(scale=2.5, degrees=(0, 1)).fit(LINE, 1 / (x - 0.25))
    assert model.thresholds_.scale == 2.5
    assert model.predict([[0.75]]) == pytest.approx([2])


def test_a_ring_is_a_curve_of_poles():
    y = 1 / ((PLANE**2).sum(1) - 0.5)
    model = regressor().fit(PLANE, y)
    lines = model.pole_curve()
    assert len(lines) == 1
    assert lines[0].shape[1] == 2
    assert (lines[0] ** 2).sum(1) == pytest.approx(np.full(len(lines[0]), 0.5), abs=1e-9)
    assert len(model.pole_curve(points=41)[0]) < len(lines[0])


def test_curves_need_two_columns_and_poles_one():
    line = regressor(degrees=(0, 1)).fit(LINE, 1 / (x - 0.25))
    with pytest.raises(RangeError, match=r"pole_curve\(\) needs a model of two columns, got 1"):
        line.pole_curve()
    plane = regressor(features="polynomial", degrees=1).fit(PLANE, PLANE[:, 0])
    for method in (plane.poles, plane.residues, plane.roots, plane.pole_table):
        with pytest.raises(RangeError, match="needs a model of one column, got 2; pole_curve"):
            method()


def test_poles_of_complex_waves_are_found():
    y = 1 / (x - 0.3 - 0.1j)
    model = regressor(features="random", time_budget=1.0).fit(LINE, y)
    assert isinstance(model.fitted_.fit.model, ReadoutModel)
    assert model.predict(LINE) == pytest.approx(y, rel=1e-3)
    assert np.abs(model.poles() - (0.3 + 0.1j)).min() < 1e-3


def test_a_name_of_no_column_is_said():
    with pytest.raises(RangeError, match="linear_in must be one of 'a', 'b', got 'c'"):
        regressor(linear_in="c").fit(pd.DataFrame(PLANE, columns=["a", "b"]), PLANE[:, 0])


@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_an_affine_fit_says_that_a_pole_would_do_better(noise):
    rng = np.random.default_rng(0)
    y = (1 / (x - 0.25) + x) * (1 + noise * rng.normal(size=len(x)))
    with pytest.warns(UserWarning, match=r"the data cross a pole, .* topology='projective'"):
        model = regressor(topology="affine").fit(LINE, y)
    assert model.fit_.crosses
    assert "A pole among the rows, which the affine topology has not" in model.summary()
    assert "Let the fit cross it: topology='projective'." in model.summary()
    assert not len(model.poles(within=True))
    beside = regressor(topology="affine").fit(LINE, 1 / (1.2 - x) * (y / (1 / (x - 0.25) + x)))
    assert not beside.fit_.crosses
    assert "A pole among the rows" not in beside.summary()
