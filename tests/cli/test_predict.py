import shutil

import numpy as np
import pytest

from tests.stored import edited
from zeroproof import ProjectiveRegressor
from zeroproof.cli.runs import answers_of, open_run
from zeroproof.cli.tables import answer_columns
from zeroproof.data import numbers, read_table


@pytest.fixture(scope="session")
def pair(tmp_path_factory):
    path = tmp_path_factory.mktemp("two") / "two.csv"
    rows = [f"{i / 10},{(i * 7) % 5},{i},{1 / (i - 4.5)}\n" for i in range(10)]
    path.write_text("a,b,u,v\n" + "".join(rows) + "1.0,2.0,inf,#DIV/0!\n")
    return path


@pytest.fixture
def two(once, pair, tmp_path, method):
    """Return a run of two features and two targets."""
    shutil.copy(pair, tmp_path / "two.csv")
    return shutil.copytree(once(pair, "--target", "v,u", *method)[0], tmp_path / "two")


def words(table, target):
    return table.columns[f"{target}_status"].to_pylist()


def test_answers_are_those_of_the_model_in_memory(zeroproof, fitted, data, tmp_path):
    out = tmp_path / "deep" / "answers.csv"
    outcome = zeroproof("predict", fitted, data, "--out", out)
    assert (outcome.code, outcome.err) == (0, "")
    table = read_table(out)
    expected = answers_of(open_run(fitted), numbers(read_table(data), ["x"]))
    assert list(table.columns) == [*answer_columns("y"), "outside"] == [*expected, "outside"]
    for name in answer_columns("y")[:-1]:
        np.testing.assert_array_equal(table.cells(name).value, expected[name])
    assert words(table, "y") == expected["y_status"].tolist()
    bottom = np.isnan(expected["y"])
    assert (bottom == ~np.isin(words(table, "y"), ["answer", "gap"])).all()
    count = words(table, "y").count("pole")
    assert count
    assert outcome.out.startswith(f"60 rows -> {out}: ")
    assert f"{count} pole" in outcome.out


def test_what_is_known_of_an_answer_is_an_interval_that_may_hold_infinity(fit, zeroproof, table):
    rng = np.random.default_rng(0)
    x = np.linspace(-1, 1, 200)
    y = 1 / (x - 0.31) + 0.3 * rng.standard_normal(200)
    path = table("x,y\n" + "".join(f"{a},{b}\n" for a, b in zip(x, y, strict=True)))
    assert (
        fit(path, "--target", "y", "--features-family", "chebyshev", "--degrees", "0,1").code == 0
    )
    run, new, out = (path.with_name(name) for name in ("run", "new.csv", "out.csv"))
    pole = numbers(read_table(run / "poles.csv"), ["position", "position_se"])[0]
    near = float(pole[0] + 1.5 * pole[1])  # nearer to it than it is known
    new.write_text(f"x\n-0.5\n{near!r}\n")
    assert zeroproof("predict", run, new, "--out", out).code == 0
    found = read_table(out)
    assert words(found, "y") == ["answer", "gap"]
    value, error, low, high = (found.cells(name).value for name in answer_columns("y")[:4])
    reach = np.array([value[0] - low[0], high[0] - value[0]])
    np.testing.assert_allclose(reach, 1.96 * error[0], rtol=0.05)
    assert low[0] < 1 / (-0.5 - 0.31) < high[0]
    assert low[1] > high[1]  # all above low and all below high: the pole may lie on either side


def test_columns_may_come_in_any_order_with_others_and_without_the_target(zeroproof, two, tmp_path):
    (tmp_path / "plain.csv").write_text("a,b\n0.1,2\n0.5,3\n")
    (tmp_path / "mixed.csv").write_bytes(
        b'\xef\xbb\xbfnote,b,extra,a\r\nlow,2,,0.1\r\n\r\n"x, y",3,inf,0.5\r\n'
    )
    for name in ("plain", "mixed"):
        words = ("predict", two, tmp_path / f"{name}.csv", "--out", tmp_path / f"{name}-out.csv")
        assert zeroproof(*words).code == 0
    plain, mixed = ((tmp_path / f"{n}-out.csv").read_bytes() for n in ("plain", "mixed"))
    assert plain == mixed


def test_several_targets_have_columns_each_in_the_order_of_the_fit(zeroproof, two, tmp_path):
    zeroproof("predict", two, tmp_path / "two.csv", "--out", tmp_path / "out.csv")
    table = read_table(tmp_path / "out.csv")
    assert list(table.columns) == [*answer_columns("v"), *answer_columns("u"), "outside"]
    assert table.rows == 11
    for name in "vu":
        finite = [word in {"answer", "gap"} for word in words(table, name)]
        assert (np.isfinite(table.cells(name).value) == finite).all()


@pytest.mark.parametrize("cell", ["inf", "-inf", "nan", "", "#DIV/0!"])
def test_a_row_whose_feature_is_not_finite_is_missing(zeroproof, two, tmp_path, cell):
    (tmp_path / "new.csv").write_text(f"a,b\n0.1,2\n{cell},2\n0.5,3\n")
    assert zeroproof("predict", two, tmp_path / "new.csv", "--out", tmp_path / "out.csv").code == 0
    table = read_table(tmp_path / "out.csv")
    for name in "vu":
        first, second, third = words(table, name)
        assert second == "input-missing"
        assert {first, third} <= {"answer", "gap"}
        assert np.isnan([table.cells(n).value[1] for n in answer_columns(name)[:4]]).all()


BAD = {
    "missing": ("x\n1\n", "must have a column 'a', got 'x'"),
    "near": ("A,b\n1,2\n", "must have a column 'a', got none; did you mean 'A'?"),
    "text": ("a,b\n1,2\n1,low\n", "'b': 1 × 'low', first in line 3; --missing-values WORD"),
    "bound": ("a,b\n1,2\n1,<3\n", "'b': 1 × '<3', first in line 3"),
    "empty": ("", "must hold a table, got an empty file"),
    "no row": ("a,b\n", "must have at least one row below its header, got none"),
    "twice": ("a,b,a\n1,2,3\n", "must have a column 'a', got more than one of that name"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_table_that_cannot_be_used_is_refused(refused, two, tmp_path, name):
    content, sentence = BAD[name]
    (tmp_path / "new.csv").write_text(content)
    out = tmp_path / "deep" / "out.csv"
    assert sentence in refused("predict", two, tmp_path / "new.csv", "--out", out)
    assert not out.parent.exists()


def damage(change):
    return lambda run: edited(run, change)


def cut(run):
    path = run / "model.safetensors"
    path.write_bytes(path.read_bytes()[:50])


def drop(*names):
    return lambda run: [(run / name).unlink(missing_ok=True) for name in names]


def scribble(run):
    for path in run.glob("*.json"):
        path.write_text("{")


def thresholds_of(record):
    if "thresholds" in record:
        return record["thresholds"]
    return record["fitted"]["$Fitted"]["thresholds"]["$InferenceConfig"]


DAMAGE = {
    "no description": (drop("run.json", "model.json"), "but has no model.json or run.json"),
    "no weights": (drop("model.safetensors"), "must hold "),
    "broken": (scribble, "must be readable JSON"),
    "version": (damage(lambda r: r.update(version=99)), "must have format version 2, got 99"),
    "format": (damage(lambda r: r.update(format="other")), "must have the format 'zeroproof'"),
    "truncated": (cut, "must hold "),
    "thresholds": (
        damage(lambda r: thresholds_of(r).update(tau_infer=1.0, tau_train=0.5)),
        "tau_infer must not exceed tau_train",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_run_is_refused(refused, two, tmp_path, name):
    apply, sentence = DAMAGE[name]
    apply(two)
    out = tmp_path / "out.csv"
    assert sentence in refused("predict", two, tmp_path / "two.csv", "--out", out)
    assert not out.exists()


NAMES = {
    "too few": ["v"],
    "no list": "vu",
    "no text": ["v", 1],
    "none": None,
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("method", [("--method", "solve")], ids=["solve"])
def test_a_solved_run_whose_targets_have_no_names_is_refused(refused, two, tmp_path, name):
    edited(two, lambda record: record["facts"].update(targets=NAMES[name]))
    sentence = refused("predict", two, tmp_path / "two.csv", "--out", tmp_path / "out.csv")
    assert "model.json must name 2 targets, got" in sentence


def test_what_is_no_run_is_refused(refused, data, tmp_path):
    for place in (tmp_path, data, tmp_path / "absent"):
        sentence = refused("predict", place, data, "--out", tmp_path / "out.csv")
        assert sentence == (
            f"{place} must be a folder written by `zeroproof fit`, "
            "but has no model.json or run.json"
        )


@pytest.mark.parametrize(("outputs", "targets"), [(1, ["y"]), (2, ["y0", "y1"])])
def test_a_model_saved_from_python_answers_too(zeroproof, tmp_path, outputs, targets):
    x = np.linspace(-1, 1, 50)[:, None]
    y = np.stack([1 / (x[:, 0] - 0.31), x[:, 0]], 1)[:, :outputs]
    model = ProjectiveRegressor().fit(x, y[:, 0] if outputs == 1 else y)
    model.save(tmp_path / "saved")
    (tmp_path / "new.csv").write_text("x0\n0.4\n-0.6\n")
    words = ("predict", tmp_path / "saved", tmp_path / "new.csv", "--out", tmp_path / "out.csv")
    assert zeroproof(*words).code == 0
    found = numbers(read_table(tmp_path / "out.csv"), targets).numpy()
    np.testing.assert_array_equal(found.squeeze(), model.predict(np.array([[0.4], [-0.6]])))


def test_a_model_of_complex_targets_answers_in_two_columns(zeroproof, tmp_path):
    x = np.linspace(-1, 1, 50)[:, None]
    model = ProjectiveRegressor().fit(x, 1 / (x[:, 0] - 0.3 - 0.1j))
    model.save(tmp_path / "saved")
    (tmp_path / "new.csv").write_text("x0\n0.4\n-0.6\n")
    words = ("predict", tmp_path / "saved", tmp_path / "new.csv", "--out", tmp_path / "out.csv")
    assert zeroproof(*words).code == 0
    found = numbers(read_table(tmp_path / "out.csv"), ["y_re", "y_im"]).numpy()
    answers = model.predict(np.array([[0.4], [-0.6]]))
    np.testing.assert_array_equal(found[:, 0] + 1j * found[:, 1], answers)


@pytest.mark.filterwarnings("default")
def test_rows_where_fits_disagree_are_told_on_standard_error(fit, zeroproof, tmp_path):
    x = np.linspace(1, 3, 80)
    y = np.sqrt(x) + 1e-2 * np.random.default_rng(0).standard_normal(80)
    rows = "".join(f"{a},{b}\n" for a, b in zip(x, y, strict=True))
    (tmp_path / "t.csv").write_text("x,y\n" + rows)
    assert fit(tmp_path / "t.csv", "--target", "y").code == 0
    (tmp_path / "new.csv").write_text("x\n2\n-500\n")
    words = ("predict", tmp_path / "run", tmp_path / "new.csv", "--out", tmp_path / "out.csv")
    outcome = zeroproof(*words)
    assert outcome.code == 0
    assert "1 rows outside the data of the fit, where fits that serve as well differ" in outcome.out


def test_places_that_cannot_be_written_are_refused(refused, fitted, data, tmp_path):
    sentence = refused("predict", fitted, data, "--out", tmp_path)
    assert sentence == f"--out must name a file to write, got the folder {tmp_path}"
    sentence = refused("predict", fitted, data, "--out", data)
    assert sentence == f"--out must not replace the data, got {data} for both"
    before = data.read_bytes()
    refused("predict", fitted, data, "--out", data / "out.csv")
    assert data.read_bytes() == before


def test_an_interrupted_answer_leaves_the_earlier_one(refused, fitted, data, tmp_path, monkeypatch):
    out = tmp_path / "out.csv"
    out.write_text("earlier")
    names = sorted(path.name for path in tmp_path.iterdir())

    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("pathlib.Path.replace", fail)
    refused("predict", fitted, data, "--out", out, code=130)
    assert out.read_text() == "earlier"
    assert sorted(path.name for path in tmp_path.iterdir()) == names
