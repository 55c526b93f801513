import json

import pytest
import torch

from zeroproof.data import numbers, read_csv
from zeroproof.export import load_run, predict_rows

QUICK = ("--steps", 50, "--hidden", "8")


@pytest.fixture
def two(zeroproof, tmp_path):
    """Return a run of two features and two targets."""
    rows = [f"{i / 10},{(i * 7) % 5},{i},{1 / (i - 4.5)}\n" for i in range(10)]
    (tmp_path / "two.csv").write_text("a,b,u,v\n" + "".join(rows) + "1.0,2.0,inf,nan\n")
    run = tmp_path / "two"
    words = ("fit", tmp_path / "two.csv", "--target", "v,u", "--out", run, *QUICK)
    assert zeroproof(*words).code == 0
    return run


def answers(path):
    table = read_csv(path)
    return table.columns, numbers(table, table.columns)


def test_answers_are_those_of_the_model_in_memory(zeroproof, fitted, data, tmp_path):
    out = tmp_path / "deep" / "answers.csv"
    outcome = zeroproof("predict", fitted, data, "--out", out)
    assert (outcome.code, outcome.err) == (0, "")
    columns, values = answers(out)
    assert columns == ("y", "y_bottom", "y_gap")
    decoded, bottom, gap = predict_rows(load_run(fitted), numbers(read_csv(data), ["x"]))
    expected = torch.cat([decoded, bottom.double(), gap.double()], dim=1)
    torch.testing.assert_close(values, expected, rtol=0, atol=0, equal_nan=True)
    assert f"60 rows -> {out}: {int(bottom.sum())} with ⊥, {int(gap.sum())} with" in outcome.out


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
    columns, values = answers(tmp_path / "out.csv")
    assert columns == ("v", "v_bottom", "v_gap", "u", "u_bottom", "u_gap")
    assert values.shape == (11, 6)
    assert torch.equal(values[:, 0].isnan(), values[:, 1] == 1)


@pytest.mark.parametrize("cell", ["inf", "-inf", "nan"])
def test_a_row_whose_feature_is_not_finite_is_bottom(zeroproof, two, tmp_path, cell):
    (tmp_path / "new.csv").write_text(f"a,b\n0.1,2\n{cell},2\n0.5,3\n")
    assert zeroproof("predict", two, tmp_path / "new.csv", "--out", tmp_path / "out.csv").code == 0
    _, values = answers(tmp_path / "out.csv")
    assert values[1].nan_to_num(-1).tolist() == [-1, 1, 0, -1, 1, 0]
    assert (values[[0, 2]][:, [1, 4]] == 0).all()


def test_a_file_that_is_there_is_replaced(zeroproof, fitted, data, tmp_path):
    out = tmp_path / "out.csv"
    out.write_text("old")
    assert zeroproof("predict", fitted, data, "--out", out).code == 0
    assert answers(out)[1].shape == (60, 3)


BAD = {
    "missing": ("x\n1\n", "must have a column 'a', got 'x'"),
    "text": ("a,b\n1,2\n1,low\n", "line 3, column 'b': must be a number, got 'low'; write it as"),
    "empty cell": ("a,b\n1,2\n1,\n", "got an empty cell; write it as a number, or nan where it"),
    "empty": ("", "must name its columns in its first line, got an empty file"),
    "no row": ("a,b\n", "must have at least one row below its header, got none"),
    "ragged": ("a,b\n1\n", "line 2: must have 2 cells as the header, got 1"),
    "twice": ("a,b,a\n1,2,3\n", "must name each column once, got 'a' twice"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_table_that_cannot_be_used_is_refused(refused, two, tmp_path, name):
    content, sentence = BAD[name]
    (tmp_path / "new.csv").write_text(content)
    out = tmp_path / "deep" / "out.csv"
    assert sentence in refused("predict", two, tmp_path / "new.csv", "--out", out)
    assert not out.parent.exists()


def damage(name, change):
    def apply(run):
        path = run / name
        record = json.loads(path.read_text(encoding="utf-8"))
        record.update(change)
        path.write_text(json.dumps(record), encoding="utf-8")

    return apply


def cut(run):
    path = run / "model.safetensors"
    path.write_bytes(path.read_bytes()[:50])


DAMAGE = {
    "no description": (lambda run: (run / "run.json").unlink(), "but has no run.json"),
    "no weights": (lambda run: (run / "model.safetensors").unlink(), "must hold the model of run"),
    "broken": (lambda run: (run / "run.json").write_text("{"), "must be readable JSON"),
    "version": (damage("run.json", {"version": 99}), "must have format version 1, got 99"),
    "truncated": (cut, "model.safetensors must hold the model of run.json"),
    "names": (damage("run.json", {"features": ["x"]}), "features must number 2 for this network"),
    "thresholds": (
        damage("run.json", {"thresholds": {"tau_infer": 2, "tau_train": 1}}),
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


def test_what_is_no_run_is_refused(refused, data, tmp_path):
    for place in (tmp_path, data, tmp_path / "absent"):
        sentence = refused("predict", place, data, "--out", tmp_path / "out.csv")
        assert (
            sentence == f"{place} must be a folder written by `zeroproof fit`, but has no run.json"
        )


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
