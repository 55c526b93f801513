import csv
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch

from zeroproof import ProjectiveRegressor
from zeroproof.errors import DataError, NotFittedError, RangeError, ZeroProofError

DATA = Path(__file__).parents[2] / "examples" / "data"
CERTIFIED = json.loads((DATA / "certified.json").read_text(encoding="utf-8"))
INF, NAN = math.inf, math.nan
LINE = np.linspace(-1, 1, 300)[:, None]
x = LINE[:, 0]
PLANE = np.random.default_rng(0).uniform(-1, 1, (400, 2))


def quotient(X):
    return X[:, 0] / (X[:, 1] - 0.4)


@pytest.fixture(scope="module")
def fitted():
    """A fit of 1 / (x - 1/4), whose pole is a number of float64 and no row."""
    return ProjectiveRegressor().fit(LINE, 1 / (x - 0.25))


@pytest.mark.parametrize(
    ("function", "poles", "residues"),
    [
        (lambda x: 1 / (x - 0.31), [0.31], [1]),
        (
            lambda x: 1 / (x - 0.31) + 2 / (x + 0.5) - 1 / (x - 0.8),
            [-0.5, 0.31, 0.8],
            [2, 1, -1],
        ),
        (lambda x: np.tan(3 * x), [-np.pi / 6, np.pi / 6], [-1 / 3, -1 / 3]),
        (lambda x: 5e8 / (x + 0.123), [-0.123], [5e8]),
        (np.exp, [], []),
        (lambda x: x**2 - 0.3, [], []),
        (lambda x: 1 / (x**2 + 0.3), [], []),
    ],
    ids=["one", "three", "tan", "large", "exp", "polynomial", "off the line"],
)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_poles_of_clean_data_are_exact_in_number(function, poles, residues, seed):
    model = ProjectiveRegressor(random_state=seed).fit(LINE, function(x))
    assert model.poles(within=True).tolist() == pytest.approx(poles, abs=1e-11)
    assert model.residues(within=True).tolist() == pytest.approx(residues, rel=1e-9)
    assert model.predict(LINE) == pytest.approx(function(x), rel=1e-9, abs=1e-11)


def test_a_double_pole_is_one_pole():
    model = ProjectiveRegressor().fit(LINE, 1 / (x - 0.2) ** 2)
    assert model.poles(within=True) == pytest.approx([0.2], abs=1e-6)
    inside = model.pole_table().multiplicity[~model.pole_table().spurious]
    assert inside.tolist() == [2]


def test_poles_and_residues_are_in_the_units_of_the_data():
    model = ProjectiveRegressor().fit(1e4 * LINE + 3e5, 7e3 / (x - 0.25))
    assert model.poles().tolist() == pytest.approx([3e5 + 2500], abs=1e-5)
    assert model.residues() == pytest.approx([7e7], rel=1e-9)


def test_all_poles_hold_the_spurious_ones_too():
    noisy = 1 / (x - 0.31) * (1 + 0.01 * np.random.default_rng(0).normal(size=len(x)))
    model = ProjectiveRegressor(degrees=(6, 7), polish="none").fit(LINE, noisy)
    kept, every = model.poles(), model.poles(all=True)
    table = model.pole_table()
    assert len(every) == len(table.position) >= len(kept)
    assert np.isin(kept, every).all()
    assert len(kept) == int((~table.spurious).sum())
    assert len(model.residues(all=True)) == len(every)
    assert len(model.residues()) == len(kept)
    assert abs(kept - 0.31).min() < 1e-2


def test_roots_are_zeros_of_the_answer():
    model = ProjectiveRegressor().fit(LINE, (x - 0.6) * (x + 0.3) / (x - 0.25))
    assert sorted(model.roots().real) == pytest.approx([-0.3, 0.6], abs=1e-12)
    assert model.predict([[0.6], [-0.3]]) == pytest.approx([0, 0], abs=1e-12)


def test_poles_of_complex_answers_are_complex():
    y = (1 + 2j) / (x - (0.3 + 0.1j)) + 1 / (x + 0.4 + 0.2j)
    model = ProjectiveRegressor().fit(LINE, y)
    assert model.poles() == pytest.approx([-0.4 - 0.2j, 0.3 + 0.1j], abs=1e-11)
    assert model.residues() == pytest.approx([1, 1 + 2j], abs=1e-10)
    assert model.poles(within=True).tolist() == []
    assert np.iscomplexobj(model.predict(LINE))
    assert model.predict(LINE) == pytest.approx(y, abs=1e-11)


@pytest.mark.parametrize("name", sorted(CERTIFIED))
def test_certified_residual_sums_are_reached(name):
    with (DATA / f"{name}.csv").open(encoding="utf-8") as file:
        rows = np.array([[float(v) for v in row] for row in list(csv.reader(file))[1:]])
    facts = CERTIFIED[name]
    degrees = facts["numerator_degree"], facts["denominator_degree"]
    model = ProjectiveRegressor(degrees=degrees).fit(rows[:, :1], rows[:, 1])
    residual_sum = ((model.predict(rows[:, :1]) - rows[:, 1]) ** 2).sum()
    certified = facts["certified_residual_sum_of_squares"]
    assert abs(residual_sum - certified) <= 1e-10 * certified  # LRE at least 10


@pytest.mark.parametrize(
    ("y", "shape"),
    [
        (np.tan(3 * x), (2,)),
        (np.tan(3 * x)[:, None], (2, 1)),
        (np.c_[x, x**2, 1 / (x - 0.25)], (2, 3)),
    ],
    ids=["flat", "column", "three"],
)
def test_answers_have_the_shape_of_targets(y, shape):
    model = ProjectiveRegressor().fit(LINE, y)
    assert model.predict(LINE[:2]).shape == shape
    strict = model.predict_strict(LINE[:2])
    assert {part.shape for part in strict} == {shape}
    assert all(isinstance(part, np.ndarray) for part in strict)
    finite = np.isfinite(y)
    assert model.predict(LINE)[finite] == pytest.approx(y[finite], abs=1e-9)


KINDS = {
    "list": lambda X: X.tolist(),
    "float32": lambda X: X.astype(np.float32),
    "pandas": lambda X: pd.DataFrame(X, columns=["a", "b"][: X.shape[1]]),
    "polars": lambda X: pl.DataFrame(X, schema=["a", "b"][: X.shape[1]]),
    "tensor": torch.from_numpy,
    "tensor with gradient": lambda X: torch.from_numpy(X).requires_grad_(),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_table_gives_arrays(kind):
    X = PLANE.astype(np.float32).astype(float)
    given = KINDS[kind](X)
    y = quotient(X)
    targets = KINDS[kind](y[:, None]) if kind != "float32" else y[:, None]
    model = ProjectiveRegressor(features="polynomial", degrees=(1, 1)).fit(given, targets)
    answer = model.predict(given)
    assert isinstance(answer, np.ndarray)
    assert answer.shape == (400, 1)
    assert answer[:, 0] == pytest.approx(y, rel=1e-9)
    assert model.score(given, targets) == pytest.approx(1)
    assert model.fitted_.names == (("a", "b") if kind in {"pandas", "polars"} else ("x0", "x1"))


@pytest.mark.parametrize("series", [pd.Series, pl.Series])
def test_a_series_is_a_flat_target(series):
    model = ProjectiveRegressor().fit(LINE, series(1 / (x - 0.25)))
    assert model.predict(LINE[:5]).shape == (5,)


def test_columns_of_a_frame_must_be_those_of_the_fit():
    frame = pd.DataFrame(PLANE, columns=["a", "b"])
    model = ProjectiveRegressor(features="polynomial", degrees=1).fit(frame, quotient(PLANE))
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame[["b", "a"]])
    model.fit(PLANE, quotient(PLANE))
    with pytest.raises(ValueError, match=r"X has 1 features, but .* is expecting 2"):
        model.predict(PLANE[:, :1])


@pytest.mark.parametrize(
    ("on_bottom", "expected"), [("nan", NAN), (7, 7.0), (INF, INF), (-0.5, -0.5)]
)
def test_what_stands_for_bottom_is_said(fitted, on_bottom, expected):
    answer = fitted.predict([[0.5], [0.25], [NAN], [-0.75]], on_bottom=on_bottom)
    assert answer == pytest.approx([4, expected, expected, -1], nan_ok=True)


def test_bottom_can_be_refused(fitted):
    assert fitted.predict([[0.5]], on_bottom="raise") == pytest.approx([4])
    with pytest.raises(DataError, match="must be finite, got ⊥ in 2 rows, first 1"):
        fitted.predict([[0.5], [0.25], [INF]], on_bottom="raise")
    with pytest.raises(RangeError, match="on_bottom must be one of 'nan', 'raise', got 'skip'"):
        fitted.predict([[0.5]], on_bottom="skip")


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
@pytest.mark.parametrize("degrees", [None, (0, 0), (0, 1), (1, 0)])
def test_rows_that_are_not_finite_are_bottom_not_gap(degrees, bad):
    model = ProjectiveRegressor(degrees=degrees).fit(LINE, 1 / (x - 0.25))
    decoded, bottom, gap = model.predict_strict([[0.5], [bad]])
    assert np.isnan(decoded).tolist() == [False, True]
    assert bottom.tolist() == [False, True]
    assert gap.tolist() == [False, False]


def test_masks_follow_the_thresholds_on_the_angle():
    model = ProjectiveRegressor().fit(LINE, 1 / (x - 0.25))
    config = model.thresholds_
    assert config.score == "angle"
    assert config.scale == pytest.approx(np.median(np.abs(1 / (x - 0.25))))
    near = 0.25 + np.array([0.5, 3, 30]) * config.tau_infer / config.scale
    decoded, bottom, gap = model.predict_strict(near[:, None])
    assert bottom.tolist() == [True, False, False]
    assert gap.tolist() == [False, True, False]
    assert np.isnan(decoded).tolist() == [True, False, False]


def test_tuples_are_the_answer_before_division(fitted):
    N, D = fitted.tuples([[0.5], [0.25], [NAN]])
    assert N.shape == D.shape == (3, 1)
    assert N[0] / D[0] == pytest.approx(4)
    assert D[1] == pytest.approx(0, abs=1e-12)
    assert abs(N[1]) > 0.1
    assert np.isnan(N[2])


@pytest.mark.parametrize("form", [np.asarray, torch.from_numpy])
def test_singular_targets_are_used(form):
    X = np.r_[LINE, np.full((20, 1), 0.25), [[0.7]]]
    y = np.r_[1 / (x - 0.25), np.tile([INF, -INF, NAN, INF], 5), 1 / 0.45]
    model = ProjectiveRegressor().fit(form(X), form(y))
    assert model.poles(within=True) == pytest.approx([0.25], abs=1e-12)
    assert model.predict_strict(X).bottom_mask.tolist() == (~np.isfinite(y)).tolist()
    assert model.score(X, y) == pytest.approx(1)
    assert model.score(X, np.where(np.isfinite(y), 0, y)) < 0.9


def test_missing_targets_can_be_left_out():
    y = np.where(np.arange(len(x)) % 5 == 0, NAN, 1 / (x - 0.25))
    dropped = ProjectiveRegressor(missing="drop").fit(LINE, y)
    keep = ~np.isnan(y)
    same = ProjectiveRegressor().fit(LINE[keep], y[keep])
    assert np.array_equal(dropped.predict(LINE), same.predict(LINE))
    assert dropped.score(LINE, y) == pytest.approx(1)
    with pytest.warns(UserWarning, match="60 targets are inf or nan where the fit is regular"):
        kept = ProjectiveRegressor().fit(LINE, y)
    assert kept.score(LINE, y) < 0.9  # there they are ⊥
    assert np.isnan(kept.predict(LINE)).mean() < 0.02  # yet they do not make others so


def test_a_weight_of_zero_leaves_a_row_out():
    y = np.where(np.arange(len(x)) % 7 == 0, 5.0, 1 / (x - 0.25))
    weight = np.where(np.arange(len(x)) % 7 == 0, 0.0, 2.0)
    model = ProjectiveRegressor().fit(LINE, y, sample_weight=weight)
    same = ProjectiveRegressor().fit(LINE[weight > 0], y[weight > 0], weight[weight > 0])
    assert model.poles() == pytest.approx([0.25], abs=1e-12)
    assert np.array_equal(model.predict(LINE), same.predict(LINE))
    assert model.score(LINE, y, weight) == pytest.approx(1)
    assert model.score(LINE, y) < 0.95


def test_a_polynomial_is_that_of_weighted_least_squares():
    generator = np.random.default_rng(0)
    y = generator.normal(size=len(x))
    weight = np.where(x > 0, 1e6, 1.0)
    model = ProjectiveRegressor(degrees=(3, 0)).fit(LINE, y, weight)
    exact = np.polynomial.Polynomial.fit(x, y, 3, w=np.sqrt(weight))
    assert model.predict(LINE) == pytest.approx(exact(x), rel=1e-6, abs=1e-6)


def test_scores_tell_perfect_from_useless():
    y = 1 / (x - 0.25)
    model = ProjectiveRegressor().fit(LINE, y)
    assert model.score(LINE, y) == pytest.approx(1, abs=1e-12)
    assert model.score(LINE, -y[::-1]) < 0.5
    constant = ProjectiveRegressor(degrees=(0, 0), polish="none").fit(LINE, y)
    assert constant.score(LINE, y) <= 1e-12


def test_the_same_seed_gives_the_same_answer():
    y = np.sin(5 * quotient(PLANE)) + np.random.default_rng(1).normal(size=400)
    one, two, other = (
        ProjectiveRegressor(time_budget=1.0, features="random", random_state=s).fit(PLANE, y)
        for s in (3, 3, 4)
    )
    assert np.array_equal(one.predict(PLANE), two.predict(PLANE))
    assert not np.array_equal(one.predict(PLANE), other.predict(PLANE))
    drawn = [np.random.RandomState(7) for _ in range(2)]
    same = [ProjectiveRegressor(degrees=1, random_state=d).fit(LINE, x) for d in drawn]
    assert np.array_equal(*(model.predict(LINE) for model in same))


def test_fitting_leaves_the_data_alone():
    X, y = LINE.copy(), 1 / (x - 0.25)
    y[np.abs(y).argmax()] = INF
    before = y.copy()
    ProjectiveRegressor().fit(X, y)
    assert np.array_equal(X, LINE)
    assert np.array_equal(y, before)


@pytest.mark.parametrize(
    "call",
    [
        lambda m: m.predict(LINE),
        lambda m: m.predict_strict(LINE),
        lambda m: m.tuples(LINE),
        lambda m: m.score(LINE, x),
        lambda m: m.poles(),
        lambda m: m.residues(),
        lambda m: m.roots(),
        lambda m: m.pole_curve(),
        lambda m: m.summary(),
        lambda m: m.plot(),
        lambda m: m.save("nowhere"),
    ],
    ids=[
        "predict",
        "strict",
        "tuples",
        "score",
        "poles",
        "residues",
        "roots",
        "curve",
        "summary",
        "plot",
        "save",
    ],
)
def test_a_model_must_be_fitted_first(call):
    with pytest.raises(NotFittedError, match="must be fitted first: call fit") as caught:
        call(ProjectiveRegressor())
    assert isinstance(caught.value, ZeroProofError | ValueError | AttributeError)
