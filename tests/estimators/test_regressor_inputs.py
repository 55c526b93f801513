import math

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch

from zeroproof import ProjectiveRegressor
from zeroproof.errors import DataError, RangeError, ShapeError

INF, NAN = math.inf, math.nan
LINE = np.linspace(-1, 1, 60)[:, None]
x = LINE[:, 0]
Y = 1 / (x - 0.25)
PLANE = np.random.default_rng(0).uniform(-1, 1, (60, 2))


def regressor(**options):
    return ProjectiveRegressor(**{"time_budget": 0.5, **options})


def put(values, index, value):
    changed = np.array(values, dtype=float)
    changed[index] = value
    return changed


@pytest.mark.parametrize(
    ("X", "y", "error", "message"),
    [
        (LINE[:0], Y[:0], ValueError, r"Found array with 0 sample\(s\)"),
        (LINE[:, :0], Y, ValueError, r"0 feature\(s\)"),
        (x, Y, ValueError, r"X must be \(n, d\), got \(60,\)"),
        (np.ones((60, 2)), Y, DataError, "must have a column that varies, got 2 constant columns"),
        (LINE[:1], Y[:1], DataError, "must have a column that varies, got n_samples=1"),
        (LINE, np.full(60, NAN), DataError, "every output must have a finite target, got ⊥ in all"),
        (LINE, np.full(60, -INF), DataError, "every output must have a finite target"),
        (LINE, np.c_[Y, np.full(60, INF)], DataError, "every output must have a finite target"),
        (put(LINE, 7, NAN), Y, DataError, "X must be finite, got inf or NaN in row 7$"),
        (put(LINE, [3, 9], INF), Y, DataError, "got inf or NaN in rows 3, 9$"),
        (put(LINE, slice(8), INF), Y, DataError, "in rows 0, 1, 2, 3, 4 …"),
        (1e101 * LINE, Y, DataError, "X must stay below 1e.100 in size: change its unit"),
        (LINE, 1e101 * Y, DataError, "y must stay below 1e.100 in size: change its unit"),
        (LINE, Y[:-1], ShapeError, "must have equally many rows, got 60 and 59"),
        (LINE, Y[:, None, None], ShapeError, r"y must be \(n,\) or \(n, k\), got \(60, 1, 1\)"),
        (LINE, np.empty((60, 0)), ShapeError, r"y must be \(n,\) or \(n, k\), got \(60, 0\)"),
        (LINE, None, DataError, "requires y to be passed"),
        (LINE, ["a"] * 60, DataError, "y must hold numbers"),
        (pd.DataFrame({"a": ["u"] * 60}), Y, ValueError, "could not convert string"),
        (LINE + 1j, Y, ValueError, "Complex data not supported"),
    ],
    ids=[
        "no row", "no column", "flat X", "constant", "one row", "all nan", "all inf",
        "an output all inf", "nan in X", "inf in X", "many rows", "large X", "large y", "fewer y",
        "deep y", "no output", "no y", "text y", "text X", "complex X",
    ],
)  # fmt: skip
def test_what_cannot_be_fitted_is_said(X, y, error, message):
    with pytest.raises(error, match=message):
        regressor().fit(X, y)


@pytest.mark.parametrize(
    ("weight", "error", "message"),
    [
        (np.ones(59), ShapeError, r"sample_weight must be \(60,\), got \(59,\)"),
        (np.ones((60, 1)), ShapeError, r"sample_weight must be \(60,\), got \(60, 1\)"),
        (-np.ones(60), DataError, "sample_weight must be finite, not negative and not zero"),
        (np.full(60, NAN), DataError, "sample_weight must be finite"),
        (np.full(60, INF), DataError, "sample_weight must be finite"),
        (np.zeros(60), DataError, "not zero throughout"),
    ],
    ids=["fewer", "column", "negative", "nan", "inf", "zero"],
)
def test_weights_that_cannot_be_are_said(weight, error, message):
    with pytest.raises(error, match=message):
        regressor().fit(LINE, Y, sample_weight=weight)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features": "spline"}, "features must be one of 'auto', .*, got 'spline'"),
        ({"topology": "real"}, "topology must be one of 'auto', 'projective', 'affine', got"),
        ({"shared_denominator": "some"}, "shared_denominator must be one of 'auto', got 'some'"),
        ({"polish": "always"}, "polish must be one of 'auto', 'none', got 'always'"),
        ({"missing": "skip"}, "missing must be one of 'bottom', 'drop', got 'skip'"),
        ({"scale": "mean"}, "scale must be one of 'median', got 'mean'"),
        ({"scale": 0.0}, "scale must be a finite number above 0, got 0.0"),
        ({"weight_power": -1}, "weight_power must be .*, got -1"),
        ({"weight_power": True}, "weight_power must be .*, got True"),
        ({"weight_power": NAN}, "weight_power must be .*, got nan"),
        ({"time_budget": 0}, "time_budget must be a finite number above 0, got 0"),
        ({"time_budget": "long"}, "time_budget must be a finite number above 0, got 'long'"),
        ({"random_state": -1}, "random_state must be a whole number of at least 0, got -1"),
        ({"random_state": "a"}, "random_state must be a whole number of at least 0, got 'a'"),
        ({"linear_in": [2]}, r"linear_in must name columns of X, got 2"),
        ({"linear_in": [-1]}, "linear_in must be a whole number of at least 0, got -1"),
        ({"linear_in": [0.5]}, "linear_in must be a whole number of at least 0, got 0.5"),
        ({"degrees": -1}, "degrees must be a whole number of at least 0, got -1"),
        ({"degrees": "foo"}, "degrees must be a whole number of at least 0, got 'foo'"),
        ({"degrees": "34"}, "degrees must be a whole number of at least 0, got '34'"),
        ({"degrees": True}, "degrees must be a whole number of at least 0, got True"),
        ({"degrees": 2.5}, "degrees must be a whole number or two, .*, got 2.5"),
        ({"degrees": (1, 2, 3)}, r"degrees must be a whole number or two, .*, got \(1, 2, 3\)"),
        ({"degrees": (1.5, 2)}, "degrees must be a whole number of at least 0, got 1.5"),
        ({"degrees": 2, "features": "random"}, "degrees must be None unless features are poly"),
        ({"degrees": 2, "features": torch.nn.Identity()}, "degrees must be None unless"),
        ({"degrees": 30}, "must allow at least one candidate, .* smaller degrees need fewer rows"),
    ],
    ids=str,
)
def test_options_that_are_not_legal_are_said_at_fit(options, message):
    model = regressor(**options)
    with pytest.raises(RangeError, match=message):
        model.fit(PLANE, PLANE[:, 0])
    assert not hasattr(model, "fitted_")


@pytest.mark.parametrize(
    ("options", "y", "message"),
    [
        ({"topology": "affine"}, Y + 1j, "topology must be 'projective' for complex y"),
        ({"degrees": 40}, Y, r"degrees \(40, 40\) have 81 unknowns and must not exceed the"),
    ],
    ids=["complex affine", "degrees"],
)
def test_one_column_cannot_tell_everything(options, y, message):
    with pytest.raises(RangeError, match=message):
        regressor(**options).fit(LINE, y)


@pytest.mark.parametrize(
    ("X", "left", "used"),
    [
        (np.c_[LINE, np.ones(60)], r"\[1\]", (0,)),
        (np.c_[LINE, LINE], r"\[1\]", (0,)),
        (np.c_[np.zeros(60), LINE, LINE, 2 * LINE], r"\[0, 2\]", (1, 3)),
    ],
    ids=["constant", "twice", "both"],
)
def test_columns_that_tell_nothing_are_left_out_with_a_warning(X, left, used):
    with pytest.warns(UserWarning, match=f"columns {left} are constant or duplicates"):
        model = regressor().fit(X, Y)
    assert model.fitted_.columns == used
    assert model.predict(X) == pytest.approx(Y, rel=1e-6)
    with pytest.raises(ValueError, match=rf"is expecting {X.shape[1]} features"):
        model.predict(np.ones((3, 9)))


@pytest.mark.parametrize("kind", [pd.DataFrame, pl.DataFrame])
def test_a_frame_may_hold_missing_inputs_only_at_predict(kind):
    model = regressor().fit(kind({"a": x}), Y)
    rows = {"a": [0.5, None, 0.75]}
    assert model.predict(kind(rows)) == pytest.approx([4, NAN, 2], nan_ok=True)
    with pytest.raises(DataError, match=r"in row 1$"):
        regressor().fit(kind(rows), [1.0, 2.0, 3.0])


@pytest.mark.parametrize("rows", [2, 3])
def test_fewer_rows_than_features_bring_a_warning_and_a_smaller_basis(rows):
    X = np.random.default_rng(0).normal(size=(rows, 3))
    with pytest.warns(UserWarning, match=f"{rows} rows for 3 columns: a smaller basis is used"):
        model = regressor().fit(X, X[:, 0])
    assert np.isfinite(model.predict(X)).all()


@pytest.mark.parametrize("rows", [2, 3, 4, 7, 12])
def test_a_handful_of_rows_is_enough(rows):
    model = regressor().fit(LINE[::5][:rows], Y[::5][:rows])
    assert model.predict(LINE[::5][:rows]).shape == (rows,)


def test_rows_outside_the_data_where_fits_disagree_bring_a_warning():
    generator = np.random.default_rng(0)
    X = generator.uniform(-1, 1, (200, 2))
    y = np.sin(2 * X[:, 0] + X[:, 1]) + 0.05 * generator.normal(size=200)
    model = regressor(time_budget=2.0).fit(X, y)
    assert model.fitted_.fit.alternates
    model.predict(X)  # inside nothing is said
    with pytest.warns(UserWarning, match=r"2 rows lie outside the data, where fits that serve"):
        model.predict([[30.0, 30.0], [0.0, 0.0], [-30.0, 7.0], [NAN, 40.0]])


@pytest.mark.parametrize("y", [np.arange(60), np.arange(60) > 30, [str(v) for v in range(60)]])
def test_whole_numbers_truth_and_numerals_are_numbers(y):
    model = regressor(degrees=(1, 0)).fit(LINE, y)
    assert model.predict(LINE).dtype == np.float64


def test_constant_targets_have_no_pole():
    model = regressor().fit(LINE, np.full(60, 3.0))
    assert model.predict(LINE) == pytest.approx(np.full(60, 3.0))
    assert model.poles(within=True).tolist() == []
    zero = regressor().fit(LINE, np.zeros(60))
    assert zero.predict(LINE) == pytest.approx(np.zeros(60), abs=1e-12)
