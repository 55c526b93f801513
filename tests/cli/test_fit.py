import errno
import json
import math
import os
import signal
import sys

import pytest
import torch

from zeroproof.cli import main
from zeroproof.data import numbers, read_csv, write_csv
from zeroproof.errors import TrainingError
from zeroproof.estimators import FitOptions, fit_table
from zeroproof.export import load_run

FILES = ["fit.png", "history.json", "model.safetensors", "rows.csv", "run.json"]
QUICK = ("--steps", 50, "--hidden", "8")


def tree(folder):
    return {p.relative_to(folder): p.is_file() and p.read_bytes() for p in folder.rglob("*")}


def strict(path):
    def refuse(constant):
        raise AssertionError(constant)

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


@pytest.fixture
def fit(zeroproof, tmp_path):
    return lambda data, *words: zeroproof("fit", data, "--out", tmp_path / "run", *QUICK, *words)


@pytest.fixture
def table(tmp_path):
    def make(content):
        path = tmp_path / "table.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return make


def test_a_run_holds_model_history_scores_and_picture(fitted, data):
    assert sorted(path.name for path in fitted.iterdir()) == FILES
    assert (fitted / "fit.png").read_bytes().startswith(b"\x89PNG")
    history = strict(fitted / "history.json")
    assert len(history) == 2
    assert {"train_loss", "val_loss", "train_coverage", "lr"} <= set(history[0])
    record = strict(fitted / "run.json")
    assert (record["features"], record["targets"]) == (["x"], ["y"])
    assert record["thresholds"]["score"] == "angle"
    rows = read_csv(fitted / "rows.csv")
    assert rows.columns == ("row", "score", "distance_to_pole", "held_out")
    values = numbers(rows, rows.columns)
    assert values[:, 0].tolist() == list(range(1, 61))
    assert values[:, 3].sum() == record["facts"]["held_out_rows"] == 12
    assert ((values[:, 1] >= 0) & (values[:, 1] <= 1)).all()
    assert (values[:, 2] >= 0).all()


def test_it_is_the_model_that_the_same_call_in_python_gives(fitted, data):
    found = read_csv(data)
    options = FitOptions(hidden=(8,), steps=50, progress=False)
    X, y = numbers(found, ["x"]), numbers(found, ["y"])
    mine, theirs = fit_table(X, y, ("x",), ("y",), options).run, load_run(fitted)
    assert mine.config == theirs.config
    assert mine.frame == theirs.frame
    for name, value in mine.model.state_dict().items():
        assert torch.equal(value, theirs.model.state_dict()[name])


def test_it_reports_errors_thresholds_and_a_diagnosis(fit, data):
    outcome = fit(data, "--target", "y")
    assert outcome.code == 0
    assert outcome.err == ""
    for part in ("fitted 60 rows", "12 held out", "RMS error", "tau_infer", "smallest score"):
        assert part in outcome.out
    assert "3 rows have a singular target: a projective model belongs here." in outcome.out
    for name in FILES:
        assert name in outcome.out


def test_without_singularities_it_says_that_a_plain_model_would_do(fit, tmp_path):
    x = torch.linspace(-1, 1, 50, dtype=torch.float64)
    write_csv(tmp_path / "regular.csv", {"x": x.tolist(), "y": (x * x + 3).tolist()})
    outcome = fit(tmp_path / "regular.csv", "--target", "y")
    assert "Nothing here is near a singularity: a plain model would do." in outcome.out
    assert "kept: plain" in outcome.out
    assert "the model has no pole" in outcome.out


def test_a_pole_between_rows_is_told(fit, tmp_path):
    x = torch.linspace(-1, 1, 200, dtype=torch.float64)
    write_csv(tmp_path / "pole.csv", {"x": x.tolist(), "y": (1 / (x - 0.3)).tolist()})
    outcome = fit(tmp_path / "pole.csv", "--target", "y", "--steps", 400, "--hidden", "32,32")
    assert "a pole lies inside the data" in outcome.out
    assert "kept: projective" in outcome.out


def test_several_targets_and_chosen_features(fit, table, tmp_path):
    path = table(
        '"a, b",c,d,"e, f",name\n' + "".join(f"{i},{-i},{i * i},{i},n\n" for i in range(9))
    )
    outcome = fit(path, "--target", '"e, f",d', "--features", 'c,"a, b"')
    assert outcome.code == 0
    run = load_run(tmp_path / "run")
    assert (run.features, run.targets) == (("c", "a, b"), ("e, f", "d"))


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfx,y\n1,2\n2,inf\n3,nan\n4,1\n",
        b"x,y\r\n1,2\r\n2,inf\r\n3,nan\r\n4,1\r\n",
        b"\nx,y\n\n1,2\n2,Infinity\n,\n3,NaN\n4,1\n\n",
        b'"x","y"\n"1","2"\n2, inf \n3,nan\n4,1\n',
    ],
    ids=["bom", "crlf", "blank", "quoted"],
)
def test_files_of_several_dialects_are_read(fit, table, tmp_path, content):
    assert fit(table(content), "--target", "y").code == 0
    facts = load_run(tmp_path / "run").facts
    assert (facts["rows"], facts["diagnosis"]["singular_targets"]) == (4, 2)


@pytest.mark.parametrize("name", ["5", "null", "1e3", "true", "[a]", "{x}", "a: b", "# c", "~"])
def test_a_column_may_have_any_name(fit, table, tmp_path, name):
    path = table(f"x,{name}\n" + "".join(f"{i},{i}\n" for i in range(5)))
    assert fit(path, "--target", name).code == 0
    assert load_run(tmp_path / "run").targets == (name,)


@pytest.mark.parametrize("text", ["4,4", "[4, 4]", "(4,4,)"])
def test_hidden_widths_are_a_list(zeroproof, data, tmp_path, text):
    run = tmp_path / "run"
    words = ("fit", data, "--target", "y", "--out", run, "--steps", 5, "--hidden", text)
    assert zeroproof(*words).code == 0
    assert load_run(run).model.hidden == (4, 4)


def test_the_options_arrive(fit, data, tmp_path):
    words = "--seed 7 --batch_size 16 --learning_rate 0.5 --held_out 0.5 --shared_denominator false"
    assert (
        fit(data, "--target", "y", "--tau_infer", 0.25, "--tau_train", 0.5, *words.split()).code
        == 0
    )
    run = load_run(tmp_path / "run")
    options = run.facts["options"]
    assert {
        k: options[k] for k in ("seed", "batch_size", "learning_rate", "held_out", "steps")
    } == {
        "seed": 7,
        "batch_size": 16,
        "learning_rate": 0.5,
        "held_out": 0.5,
        "steps": 50,
    }
    assert not run.model.head.shared_denominator
    assert (run.config.tau_infer, run.config.tau_train) == (0.25, 0.5)
    assert run.facts["held_out_rows"] == 30


def test_the_same_seed_gives_the_same_files(zeroproof, data, tmp_path):
    for name in ("a", "b"):
        assert zeroproof("fit", data, "--target", "y", "--out", tmp_path / name, *QUICK).code == 0
    for name in ("model.safetensors", "rows.csv"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


ROWS = "1,2\n2,3\n3,5\n"
BAD_TABLES = {
    "empty file": ("", "y", "must name its columns in its first line, got an empty file"),
    "header alone": ("x,y\n", "y", "must have at least one row below its header"),
    "missing target": ("x,y\n" + ROWS, "z", "must have a column 'z', got 'x', 'y'"),
    "text feature": ("x,y\n1,2\nlow,3\n", "y", "line 3, column 'x': must be a number, got 'low'; "),
    "advice": ("x,y\n1,2\nlow,3\n", "y", "or choose other columns with --features"),
    "empty cell": ("x,y\n1,2\n,3\n", "y", "line 3, column 'x': must be a number, got an empty"),
    "inf feature": ("x,y\n1,2\ninf,3\n", "y", "line 3, column 'x': must be a finite number"),
    "text target": ("x,y\n1,2\n2,<3\n", "y", "line 3, column 'y': must be a number, got '<3'; a"),
    "target advice": ("x,y\n1,2\n2,\n", "y", "a target is a number, inf, -inf, or nan for ⊥"),
    "all ⊥": ("x,y\n1,inf\n2,nan\n", "y", "target 'y' must have a finite value in some row"),
    "ragged": ("x,y\n1,2\n2,3,4\n", "y", "line 3: must have 2 cells as the header, got 3"),
    "name twice": ("x,x,y\n1,2,3\n", "y", "must name each column once, got 'x' twice"),
    "NUL": ("x,y\n1,\0\n", "y", "line 2: must be text, got a NUL byte"),
    "latin-1": (b"x,y\n1,\xb5\n", "y", "line 2: must be UTF-8 text, got byte 0xb5"),
    "quotes": ('x,y\n1,"2\n', "y", "must be CSV, got unexpected end of data"),
    "constant": ("x,y\n1,2\n1,3\n", "y", "some feature must vary, got constant columns x"),
    "too large": (
        "x,y\n1,2\n1e31,3\n",
        "y",
        "column 'x' must not exceed 1e+30 in size, got 1e+31 in row 1",
    ),
    "no feature": ("y\n1\n2\n", "y", "must have a column besides the targets to predict from"),
    "target twice": ("x,y\n" + ROWS, "y,y", "--target must list column names, each once"),
    "no target": ("x,y\n" + ROWS, "", "--target must list column names, each once, got ''"),
    "clash": ("x,y,y_gap\n1,2,3\n2,3,4\n", "y,y_gap", "must not be named as the answers for other"),
}


@pytest.mark.parametrize("name", BAD_TABLES)
def test_a_table_that_cannot_be_used_is_refused(refused, table, tmp_path, name):
    content, target, sentence = BAD_TABLES[name]
    path = table(content)
    words = ("fit", path, "--target", target, "--out", tmp_path / "deep" / "run", *QUICK)
    assert sentence in refused(*words)
    assert list(tmp_path.iterdir()) == [path]


BAD_OPTIONS = {
    "missing feature": ("--features z", "must have a column 'z', got 'x', 'y'"),
    "target as feature": ("--features x,y", "--features must not name a target"),
    "no step": ("--steps 0", "steps must be a whole number of at least 1, got 0"),
    "half a step": ("--steps 1.5", "--steps must be a whole number, got '1.5'"),
    "no number": ("--learning_rate fast", "--learning_rate must be a finite number, got 'fast'"),
    "nan": ("--learning_rate nan", "--learning_rate must be a finite number, got 'nan'"),
    "negative rate": ("--learning_rate -1", "learning_rate must be a finite number above 0"),
    "share": ("--held_out 1", "held_out must lie in (0, 1), got 1.0"),
    "tau of 0": ("--tau_infer 0", "tau_infer must lie in (0, 1], got 0.0"),
    "tau above 1": ("--tau_train 2", "tau_train must lie in (0, 1], got 2.0"),
    "text tau": ("--tau_infer low", "--tau_infer must be a finite number, got 'low'"),
    "order": ("--tau_infer 0.5 --tau_train 0.1", "tau_infer must not exceed tau_train, got"),
    "seed": ("--seed -3", "seed must be a whole number of at least 0, got -3"),
    "widths": ("--hidden 8,a", "--hidden must list whole numbers, such as 64,64, got '8,a'"),
    "width of 0": ("--hidden 8,0", "hidden must be a whole number of at least 1, got 0"),
    "choice": ("--shared_denominator maybe", "--shared_denominator must be true or false"),
    "unknown": ("--gradient_policy NONE", "unrecognized arguments: --gradient_policy NONE"),
}


@pytest.mark.parametrize("name", BAD_OPTIONS)
def test_an_option_that_cannot_be_used_is_refused(refused, data, tmp_path, name):
    words, sentence = BAD_OPTIONS[name]
    out = tmp_path / "deep" / "run"
    assert sentence in refused("fit", data, "--target", "y", "--out", out, *words.split())
    assert list(tmp_path.iterdir()) == [data]


def test_a_file_that_is_not_there(refused, tmp_path):
    sentence = refused("fit", tmp_path / "no.csv", "--target", "y", "--out", tmp_path / "run")
    assert sentence.endswith("no.csv must be a readable CSV file: No such file or directory")
    assert list(tmp_path.iterdir()) == []


def test_a_refit_replaces_a_run(zeroproof, fitted, data):
    before = tree(fitted)
    assert zeroproof("fit", data, "--target", "y", "--out", fitted, *QUICK, "--seed", 1).code == 0
    assert sorted(path.name for path in fitted.iterdir()) == FILES
    assert tree(fitted) != before


def test_an_empty_folder_is_filled(zeroproof, data, tmp_path):
    (tmp_path / "run").mkdir()
    assert zeroproof("fit", data, "--target", "y", "--out", tmp_path / "run", *QUICK).code == 0
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == FILES


@pytest.mark.parametrize(
    ("prepare", "sentence"),
    [
        (lambda run: run.write_text("mine"), "must be a folder, got a file"),
        (
            lambda run: (run.mkdir(), (run / "notes.txt").write_text("mine")),
            "must be new, empty or an earlier run, but holds notes.txt",
        ),
        (
            lambda run: (run.mkdir(), (run / "rows.csv").write_text("mine")),
            "must be new, empty or an earlier run, but holds no run.json",
        ),
        (
            lambda run: (run.mkdir(), (run / "run.json").touch(), (run / "notes.txt").touch()),
            "must be new, empty or an earlier run, but holds notes.txt",
        ),
    ],
    ids=["file", "foreign", "look-alike", "run-with-notes"],
)
def test_a_place_with_something_else_in_it_is_left_alone(
    refused, data, tmp_path, prepare, sentence
):
    prepare(tmp_path / "run")
    before = tree(tmp_path)
    assert sentence in refused("fit", data, "--target", "y", "--out", tmp_path / "run", *QUICK)
    assert tree(tmp_path) == before


def test_a_place_below_a_file_is_refused(refused, data):
    sentence = refused("fit", data, "--target", "y", "--out", data / "deep" / "run")
    assert sentence.endswith(f"must lie in a folder, but {data} is a file")


def test_the_current_folder_is_refused(refused, data, tmp_path, monkeypatch):
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    sentence = refused("fit", data, "--target", "y", "--out", ".", *QUICK)
    assert "must not be the current folder or one above it" in sentence
    assert list(here.iterdir()) == []


FAILURES = {
    "interrupted": (KeyboardInterrupt(), 130, "interrupted"),
    "full": (
        OSError(errno.ENOSPC, "No space left on device", "x"),
        1,
        "x: No space left on device",
    ),
    "forbidden": (PermissionError(errno.EACCES, "Permission denied", "x"), 2, "Permission denied"),
    "training": (TrainingError("every step was skipped"), 1, "every step was skipped"),
}


@pytest.mark.parametrize("stage", ["zeroproof.estimators.fit_table", "zeroproof.data.write_csv"])
@pytest.mark.parametrize("name", FAILURES)
def test_a_fit_that_ends_early_leaves_nothing_behind(
    refused, data, tmp_path, monkeypatch, stage, name
):
    error, code, sentence = FAILURES[name]

    def fail(*_):
        raise error

    monkeypatch.setattr(stage, fail)
    out = tmp_path / "deep" / "run"
    assert sentence in refused("fit", data, "--target", "y", "--out", out, *QUICK, code=code)
    assert list(tmp_path.iterdir()) == [data]


def test_a_terminated_fit_leaves_nothing(data, tmp_path, monkeypatch):
    def end(*_):
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("zeroproof.estimators.fit_table", end)
    assert (
        main(["fit", str(data), "--target", "y", "--out", str(tmp_path / "run"), *map(str, QUICK)])
        == 143
    )
    assert list(tmp_path.iterdir()) == [data]
    assert signal.getsignal(signal.SIGTERM) is before


def test_an_earlier_run_survives_a_fit_that_ends_early(
    refused, fitted, data, tmp_path, monkeypatch
):
    def fail(*_):
        raise KeyboardInterrupt

    before = tree(tmp_path)
    monkeypatch.setattr("zeroproof.data.write_csv", fail)
    refused("fit", data, "--target", "y", "--out", fitted, *QUICK, code=130)
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("module", "extra"),
    [("matplotlib.figure", "plots"), ("safetensors.torch", "train"), ("jsonargparse", "cli")],
)
def test_what_must_be_installed_is_told_before_the_work(
    refused, data, tmp_path, monkeypatch, module, extra
):
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr("zeroproof.estimators.fit_table", lambda *_: math.nan)
    sentence = refused("fit", data, "--target", "y", "--out", tmp_path / "run", *QUICK, code=1)
    assert f"zeroproof-scm[{extra}]" in sentence
    assert list(tmp_path.iterdir()) == [data]


@pytest.mark.filterwarnings("default")
def test_a_warning_is_a_sentence_on_standard_error(fit, table):
    path = table("x,c,y\n" + "".join(f"{i},7,{i}\n" for i in range(5)))
    outcome = fit(path, "--target", "y")
    assert outcome.code == 0
    assert outcome.err == "zeroproof: warning: constant columns tell nothing: c\n"
