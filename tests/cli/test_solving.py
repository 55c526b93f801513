import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from zeroproof import ProjectiveRegressor
from zeroproof.cli.runs import open_run
from zeroproof.data import numbers, read_table, write_csv

NIST = Path(__file__).parents[2] / "examples" / "data"
FILES = ["fit.png", "model.json", "model.safetensors", "poles.csv", "rows.csv"]


def written(path, **columns):
    write_csv(path, {name: column.tolist() for name, column in columns.items()})
    return path


@pytest.fixture
def plane(tmp_path):
    """Write 300 rows whose pole is the line a + b = 0.3, c entering linearly."""
    a, b, c = torch.rand(3, 300, dtype=torch.float64) * 2 - 1
    return written(tmp_path / "plane.csv", a=a, b=b, c=c, y=c / (a + b - 0.3))


def test_a_run_holds_model_scores_and_picture(solved, pole, strict):
    run, _ = solved
    assert sorted(path.name for path in run.iterdir()) == FILES
    assert (run / "fit.png").read_bytes().startswith(b"\x89PNG")
    facts = strict(run / "model.json")["facts"]
    assert (facts["features"], facts["targets"], facts["rows"]) == (["x"], ["y"], 60)
    assert facts["report"] == ProjectiveRegressor.load(run).summary().splitlines()
    rows = read_table(run / "rows.csv")
    of_y = ["y", "y_answer", "y_residual", "y_status"]
    assert list(rows.columns) == ["row", "x", *of_y, "score", "distance_to_pole", "left_out"]
    assert rows.columns["y_status"].to_pylist() == ["pole"] * 3 + ["answer"] * 57
    residual = numbers(rows, ["y_residual"])[3:]
    y, answer = (numbers(rows, [name])[3:] for name in ("y", "y_answer"))
    assert torch.equal(residual, y - answer)
    row, score, distance = numbers(rows, ["row", "score", "distance_to_pole"]).T
    assert row.tolist() == list(range(1, 61))
    x = numbers(read_table(pole), ["x"])[:, 0]
    torch.testing.assert_close(distance, (x - 0.31).abs() / x.std(correction=0))
    scale = open_run(run).fitted.thresholds.scale
    exact = (x - 0.31).abs() / torch.hypot(x - 0.31, torch.ones((), dtype=x.dtype) / scale)
    torch.testing.assert_close(score, exact, rtol=1e-9, atol=1e-12)


def test_it_says_what_was_fitted_and_where_its_pole_is(solved):
    _, said = solved
    for part in (
        "fitted 60 rows in ",
        "polynomials of degrees (0, 1) in x",
        "At x = 0.31 ± ",
        "Labelled rows: 2 ±inf and 1 nan, taken as ⊥; 100.0% of them are answered ⊥",
        "They lie where the model diverges, or is 0/0: a projective model belongs here.",
        *FILES,
    ):
        assert part in said


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda x: 1 / (x - 0.3001), "At x = 0.3001 ± "),
        (lambda x: 1 / (x - 0.3001) ** 2, "At x = 0.3001 ± [^;]* of multiplicity 2"),
        (lambda x: 1 / ((x - 0.3) ** 2 + 1e-4), r"No pole .* resonances .*: 0\.3 \+ 0\.01i ± "),
        (lambda x: 1 / (x - 1.001), "No pole among the data.* Beyond the data, at x = 1.001 ± "),
        (lambda x: x * x + 3, "Nowhere: the denominator is constant."),
    ],
    ids=["simple", "double", "complex", "outside", "none"],
)
def test_it_says_where_a_fit_of_one_feature_diverges(fit, tmp_path, function, said):
    x = torch.linspace(-1, 1, 200, dtype=torch.float64)
    outcome = fit(written(tmp_path / "t.csv", x=x, y=function(x)), "--target", "y")
    assert re.search(f"Where it diverges: {said}", outcome.out)
    assert ProjectiveRegressor.load(tmp_path / "run").summary() in outcome.out


def test_it_says_where_a_fit_of_several_features_diverges(fit, plane, tmp_path):
    outcome = fit(plane, "--target", "y")
    assert outcome.code == 0
    assert "total degree (1, 1) in a, b, c" in outcome.out
    assert "Where D = 0, which changes its sign among the data: surfaces" in outcome.out
    X = numbers(read_table(plane), "abc")
    away = (X[:, 0] + X[:, 1] - 0.3).abs() / X[:, :2].std(0, correction=0).norm()
    distance = numbers(read_table(tmp_path / "run" / "rows.csv"), ["distance_to_pole"])[:, 0]
    near = away < 0.02
    assert near.sum() > 2
    torch.testing.assert_close(distance[near], away[near], rtol=0.05, atol=0)
    assert (distance >= 0).all()


@pytest.mark.parametrize(
    ("name", "degrees"), [("hahn1", "3,3"), ("kirby2", "2"), ("thurber", "(3, 3)")]
)
def test_nist_fits_end_at_the_certified_residuals(fit, zeroproof, tmp_path, name, degrees):
    data = NIST / f"{name}.csv"
    feature, target = read_table(data).columns
    words = ("--features-family", "chebyshev", "--degrees", degrees)
    assert fit(data, "--target", target, *words).code == 0
    words = ("predict", tmp_path / "run", data, "--out", tmp_path / "out.csv")
    assert zeroproof(*words).code == 0
    y = numbers(read_table(data), [target])
    found = (numbers(read_table(tmp_path / "out.csv"), [target]) - y).square().sum()
    certified = json.loads((NIST / "certified.json").read_text())[name]
    assert float(found) == pytest.approx(certified["certified_residual_sum_of_squares"], rel=1e-9)
    assert open_run(tmp_path / "run").features == (feature,)


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
def test_it_is_the_model_that_the_estimator_gives_and_loads(fit, plane, tmp_path):
    words = ("--shared_denominator", "true", "--linear_in", "c", "--seed", 3, "--features", "c,b,a")
    assert fit(plane, "--target", "y", *words, "--features_family", "polynomial").code == 0
    table = read_table(plane)
    X, y = numbers(table, "cba").numpy(), numbers(table, "y")[:, 0].numpy()
    mine = ProjectiveRegressor(
        "polynomial", linear_in=[0], shared_denominator=True, random_state=3
    ).fit(X, y)
    theirs = ProjectiveRegressor.load(tmp_path / "run")
    assert theirs.get_params() == mine.get_params() | {"linear_in": (0,)}
    np.testing.assert_array_equal(theirs.predict(X), mine.predict(X))
    assert theirs.thresholds_ == mine.thresholds_
    assert theirs.feature_names_in_.tolist() == ["c", "b", "a"]


@pytest.mark.filterwarnings("default")
def test_columns_that_tell_nothing_are_left_out_by_name(fit, table, tmp_path, zeroproof):
    rows = "".join(f"7,{i / 20},{1 / (i / 20 - 0.52)}\n" for i in range(20))
    outcome = fit(table("k,x,y\n" + rows), "--target", "y", "--linear_in", "k")
    assert "columns ['k'] are constant or duplicates" in outcome.err
    run = open_run(tmp_path / "run")
    assert run.features == ("x",)
    assert run.fitted.columns == (1,)
    assert ProjectiveRegressor.load(tmp_path / "run").feature_names_in_.tolist() == ["k", "x"]
    (tmp_path / "new.csv").write_text("x\n0.42\n")
    words = ("predict", tmp_path / "run", tmp_path / "new.csv", "--out", tmp_path / "out.csv")
    assert zeroproof(*words).code == 0
    assert numbers(read_table(tmp_path / "out.csv"), ["y"]).item() == pytest.approx(-10, rel=1e-6)


def test_the_options_arrive(fit, data, tmp_path, monkeypatch):
    seen = {}
    before = ProjectiveRegressor.fit

    def watch(self, *given):
        seen.update(self.get_params())
        return before(self, *given)

    monkeypatch.setattr(ProjectiveRegressor, "fit", watch)
    words = "--features_family chebyshev --degrees 2,1 --topology projective --linear_in x --seed 7"
    more = "--weight_power 0.5 --time-budget 4 --shared_denominator false"
    assert fit(data, "--target", "y", *words.split(), *more.split()).code == 0
    wanted = {
        "features": "chebyshev",
        "degrees": (2, 1),
        "topology": "projective",
        "linear_in": [0],
        "random_state": 7,
        "weight_power": 0.5,
        "time_budget": 4.0,
        "shared_denominator": False,
    }
    assert seen == ProjectiveRegressor().get_params() | wanted


def test_without_options_those_of_the_estimator_hold(fit, data, monkeypatch):
    seen = []

    def stop(self, *_):
        seen.append(self.get_params())
        raise KeyboardInterrupt

    monkeypatch.setattr(ProjectiveRegressor, "fit", stop)
    assert fit(data, "--target", "y").code == 130
    assert seen == [ProjectiveRegressor().get_params() | {"random_state": 0}]


@pytest.mark.parametrize(
    ("words", "infer", "train"),
    [
        ("--tau_infer 0.25 --tau_train 0.5", 0.25, 0.5),
        ("--tau_infer 0.25", 0.25, 0.25),
        ("--tau_train 0.5", None, 0.5),
        ("--tau_train 1e-16", 1e-16, 1e-16),
    ],
)
def test_thresholds_may_be_fixed(fit, solved, data, tmp_path, words, infer, train):
    found = open_run(solved[0]).fitted.thresholds
    assert fit(data, "--target", "y", *words.split()).code == 0
    fixed = open_run(tmp_path / "run").fitted.thresholds
    assert fixed.tau_infer == (found.tau_infer if infer is None else infer)
    assert fixed.tau_train == train
    assert (fixed.score, fixed.scale) == (found.score, found.scale)


def test_a_target_that_is_nan_may_be_missing(fit, table):
    rows = "".join(f"{i},{'nan' if i % 5 == 0 else i}\n" for i in range(40))
    path = table("x,y\n" + rows)
    outcome = fit(path, "--target", "y", "--nan", "missing")
    assert outcome.code == 0
    assert "fitted 32 rows" in outcome.out
    assert "Labelled rows" not in outcome.out
    outcome = fit(path, "--target", "y", "--nan", "bottom")
    assert "Labelled rows: 8 nan, taken as ⊥; 0.0% of them" in outcome.out
    assert "Then leave them out: missing='drop', --nan missing." in outcome.out
    assert "belongs here" not in outcome.out
    assert fit(path, "--target", "y", "--nan", "zero").code == 2


def test_a_saturated_column_is_called_so(fit, table):
    rows = "".join(f"{i},{0.06 * i if i < 66 else 'inf'}\n" for i in range(96))
    outcome = fit(table("dose,y\n" + rows), "--target", "y")
    assert "They are saturated beyond 65.5 of dose, rather than a pole." in outcome.out
