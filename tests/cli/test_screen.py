"""What the command line shows, and what it makes of tables of every kind, from end to end."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from zeroproof import __version__
from zeroproof.cli.arguments import COMMANDS
from zeroproof.cli.tables import answer_columns
from zeroproof.data import read_table, write_csv

COMMAND = Path(sys.executable).with_name("zeroproof")
STORED = Path(__file__).parents[1] / "data" / "stored_v1"


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_fits_a_screen_and_shows_an_example(zeroproof, command):
    code, text, err = zeroproof(*command.split(), "--help")
    lines = text.splitlines()
    assert (code, err) == (0, "")
    assert len(lines) <= 45
    assert max(map(len, lines)) <= 100
    assert f"  zeroproof {command}" in text if command else all(name in text for name in COMMANDS)
    if command == "fit":
        assert "--method solve|train" in text
        assert "--topology" not in text


def test_all_options_are_shown_on_request(zeroproof):
    text = zeroproof("fit", "--help-all").out
    for group in COMMANDS["fit"][3].values():
        for name, option in group.items():
            shown = f"--{name.replace('_', '-')}"
            assert f"{shown} {'|'.join(option.choices)}".rstrip() in text
    assert max(map(len, text.splitlines())) <= 100


def test_the_version_is_that_of_the_package(zeroproof):
    assert zeroproof("--version") == (0, f"zeroproof {__version__}\n", "")


def completed(words):
    """Return what a shell is offered; argcomplete answers on file descriptor 8."""
    read, write = os.pipe()
    told = {"_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": "\n", "COMP_TYPE": "9"}
    told |= {"COMP_LINE": words, "COMP_POINT": str(len(words)), "_ARGCOMPLETE_SHELL": "bash"}
    program = (
        f"import os, sys; os.dup2({write}, 8); from zeroproof.cli import main; sys.exit(main())"
    )
    subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | told,
        pass_fds=[write],
        check=True,
        capture_output=True,
    )
    os.close(write)
    with os.fdopen(read) as answers:
        return answers.read().split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("zeroproof fi", ["fit"]),
        ("zeroproof fit a.csv --time-b", ["--time-budget"]),
        ("zeroproof fit a.csv --nan ", ["bottom", "missing"]),
        ("zeroproof predict run a.csv --k", ["--keep"]),
    ],
)
def test_a_shell_completes_commands_options_and_choices(words, offered):
    assert completed(words) == offered


def test_one_object_of_json_and_nothing_else(zeroproof, data, tmp_path):
    run, out = tmp_path / "run", tmp_path / "a.csv"
    commands = [
        (("look", data), {"file", "rows", "columns"}),
        (("fit", data, "--target", "y", "--out", run), {"report", "files", "rows"}),
        (("predict", run, data, "--out", out), {"rows", "out", "status", "outside"}),
        (("poles", run), {"poles"}),
    ]
    for words, names in commands:
        code, text, err = zeroproof(*words, "--json")
        assert (code, err) == (0, "")
        assert names <= json.loads(text).keys()
        assert zeroproof(*words, "--quiet") == (0, "", "")
    found = json.loads(zeroproof("poles", run, "--json").out)["poles"]
    assert found[0]["position"] == pytest.approx(0.31)
    said = zeroproof("predict", run, data, "--out", "-", "--json")
    assert (said.code, said.out) == (2, "")
    assert "--json must come with a file as --out" in said.err
    assert (
        "did you mean 'y'" in zeroproof("fit", data, "--target", "Y", "--out", run, "--quiet").err
    )


@pytest.fixture(scope="session")
def mixed(tmp_path_factory):
    """Write a table of a sign that reads as text, three colours, remarks and a pole at 0.3."""
    path = tmp_path_factory.mktemp("mixed") / "mixed.csv"
    rng = np.random.default_rng(0)
    x = np.linspace(-1, 1, 90)
    colour, lamp = rng.choice(["blue", "green", "red"], 90), rng.choice(["off", "on"], 90)
    shift = (colour == "green") + 2.0 * (colour == "red") + 0.5 * (lamp == "on")
    columns = {"": range(90), "x": x, "colour": colour, "lamp": lamp, "empty": [""] * 90}
    write_csv(path, {**columns, "id": [f"s{k}" for k in range(90)], "y": 1 / (x - 0.3) + shift})
    return path


def test_look_shows_columns_kinds_and_rows(zeroproof, mixed, table):
    code, text, err = zeroproof("look", mixed)
    assert (code, err) == (0, "")
    assert "90 rows, 6 columns; 1 column without a name left out" in text
    for part in ("x       90       -1 … 1", "(text)", "90 texts, as 's0'", "90 × empty (missing)"):
        assert part in text
    assert max(map(len, text.splitlines())) <= 120
    path = table("x;y\n1,5;<0,2\n1,5;<0,2\n2,5;#DIV/0!\n3;4\n")
    text = zeroproof("look", path).out
    for part in ("semicolons between columns; decimal comma", "2 × <0,2 (bound)", "1 × #DIV/0! (b"):
        assert part in text
    assert "1 rows repeat the numbers of another row" in text


def test_text_is_read_as_categories_from_fit_to_answer(once, mixed, zeroproof, tmp_path):
    run, said = once(mixed, "--target", "y", "--time-budget", 4)
    assert "text of more than 20 values left out: 'id'" in said
    assert "empty column left out: 'empty'" in said
    rows = read_table(run / "rows.csv")
    assert list(rows.columns)[:5] == ["row", "x", "colour=green", "colour=red", "lamp"]
    cells = ["0.1,red,on,a", "0.2,violet,on,b", "5,blue,off,c", "0.5,green,,d", "inf,green,on,e"]
    new, out = tmp_path / "new.csv", tmp_path / "answers.parquet"
    new.write_text("x,colour,lamp,id\n" + "\n".join(cells) + "\n")
    outcome = zeroproof("predict", run, new, "--out", out, "--keep", "all")
    assert outcome.out.startswith(f"5 rows -> {out}: 3 input-missing, 2 answer; 1 rows outside")
    found = pq.read_table(out)
    assert found.column_names == ["x", "colour", "lamp", "id", *answer_columns("y"), "outside"]
    assert found["y_status"].to_pylist() == ["answer", "input-missing", "answer"] + (
        ["input-missing"] * 2
    )
    assert found["y"][0].as_py() == pytest.approx(1 / (0.1 - 0.3) + 2.5, rel=1e-6)
    assert found["id"].to_pylist() == list("abcde")
    assert found["x"].to_pylist()[-1] == np.inf
    assert found["outside"].to_pylist() == [0, 0, 1, 0, 0]
    code, text, err = zeroproof("predict", run, new, "--out", "-", "--keep", "id")
    assert (code, err) == (0, "")
    assert text.splitlines()[0] == "id," + ",".join(answer_columns("y")) + ",outside"
    assert len(text.splitlines()) == 6


@pytest.mark.parametrize(
    ("keep", "sentence"),
    [
        ("Id", "got 'Id': none; did you mean 'id'?"),
        ("y", "must not name a column of the answers, got 'y'"),
        ("all", "must not name a column of the answers, got 'y'"),
    ],
)
def test_what_cannot_be_kept_is_said(once, mixed, refused, tmp_path, keep, sentence):
    run, _ = once(mixed, "--target", "y", "--time-budget", 4)
    words = ("predict", run, mixed, "--out", tmp_path / "a.csv", "--keep", keep)
    assert sentence in refused(*words)
    assert list(tmp_path.iterdir()) == []


def test_rows_weigh_by_their_standard_deviation(fit, tmp_path):
    x = np.linspace(-1, 1, 40)
    y, sigma = 2 * x + 1, np.full(40, 0.1)
    y[::4] += 5
    sigma[::4] = 1e6
    write_csv(tmp_path / "t.csv", {"x": x, "y": y, "s": sigma})
    words = ("--features-family", "polynomial", "--degrees", "1,0")
    assert fit(tmp_path / "t.csv", "--target", "y", "--sigma", "s", *words).code == 0
    rows = read_table(tmp_path / "run" / "rows.csv")
    assert "s" not in rows.columns
    np.testing.assert_allclose(rows.cells("y_answer").value, 2 * x + 1, atol=1e-4)


def test_percent_and_detection_limits_are_read_as_they_are_said(fit, zeroproof, refused, tmp_path):
    data, new, out = (tmp_path / name for name in ("t.csv", "new.csv", "out.csv"))
    rows = [f"{k}%,{'LOD' if k < 5 else 1 / (k / 100 - 0.305)}" for k in range(40)]
    data.write_text("p,y\n" + "\n".join(rows) + "\n")
    words = ("fit", data, "--target", "y", "--out", tmp_path / "run")
    assert "5 × 'LOD', first in line 2" in refused(*words)
    words = (*words, "--limit", "LOD=-3.4", "--limit", "OVRFLW=>100")
    assert "5 cells are bounds (5 × LOD)" in refused(*words)
    outcome = zeroproof(*words, "--bounds", "drop")
    assert outcome.code == 0
    assert "5 rows with missing cells or bounds left out" in outcome.out
    assert "At p = 0.305 ± " in outcome.out
    new.write_text("p\n20%\n30.5%\n")
    assert zeroproof("predict", tmp_path / "run", new, "--out", out).code == 0
    found = read_table(out)
    assert found.columns["y_status"].to_pylist() == ["answer", "pole"]
    assert found.cells("y").value[0] == pytest.approx(1 / (0.2 - 0.305))
    new.write_text("p\n20\n30.5\n")
    said = refused("predict", tmp_path / "run", new, "--out", out)
    assert (
        said
        == f"{new} must hold the columns of the fit, got column 'p': numbers, fitted as percents"
    )


def test_an_affine_fit_tells_the_sign_of_infinity(fit, zeroproof, tmp_path):
    x = np.linspace(0.5, 2, 60)
    with np.errstate(divide="ignore"):
        y = 1 / (x - 0.5)
    write_csv(tmp_path / "t.csv", {"x": x, "up": y, "down": -y})
    for target, infinity in (("up", np.inf), ("down", -np.inf)):
        words = ("--topology", "affine", "--features-family", "chebyshev", "--degrees", "0,1")
        assert fit(tmp_path / "t.csv", "--target", target, "--features", "x", *words).code == 0
        (tmp_path / "new.csv").write_text("x\n0.5\n1\n")
        words = ("predict", tmp_path / "run", tmp_path / "new.csv", "--out", tmp_path / "out.csv")
        assert zeroproof(*words).code == 0
        found = read_table(tmp_path / "out.csv")
        assert found.cells(target).value[0] == infinity
        assert found.columns[f"{target}_status"].to_pylist() == ["pole", "answer"]
        assert all(np.isnan(found.cells(n).value[0]) for n in answer_columns(target)[1:4])


def test_a_number_may_stand_for_what_was_not_measured(fit, table, tmp_path):
    rows = "".join(f"{k},{-999 if k % 5 == 0 else 3 * k}\n" for k in range(40))
    outcome = fit(table("x,y\n" + rows), "--target", "y", "--missing-values", "-999,bad")
    assert outcome.code == 2
    assert "missing cells in 8 of 40 rows ('y' 8)" in outcome.err
    words = ("--target", "y", "--missing-values", "-999,bad", "--drop-missing")
    assert "fitted 32 rows" in fit(table("x,y\n" + rows), *words).out


@pytest.mark.parametrize("name", ["solve", "train", "sections"])
def test_a_run_of_an_earlier_version_answers(zeroproof, tmp_path, name):
    new, out, stored = tmp_path / "new.csv", tmp_path / "out.csv", np.load(STORED / f"{name}.npz")
    write_csv(new, {"x": stored["X"][:, 0].tolist()})
    assert zeroproof("predict", STORED / name, new, "--out", out).code == 0
    found = read_table(out)
    np.testing.assert_allclose(found.cells("y").value, stored["decoded"].ravel(), rtol=1e-6)
    gap = [word == "gap" for word in found.columns["y_status"].to_pylist()]
    assert gap == stored["gap"].ravel().tolist()


def test_a_column_that_changes_in_the_middle_of_a_stream_is_handed_on(
    solved, zeroproof, tmp_path, monkeypatch
):
    monkeypatch.setattr("zeroproof.data.tables._BLOCK", 1000)
    path, out = tmp_path / "long.csv", tmp_path / "out.parquet"
    cells = [f"{k},{k / 1000}" for k in range(1000)]
    path.write_text("id,x\n" + "\n".join([*cells, "A7,", *cells[:5]]) + "\n")
    assert zeroproof("predict", solved[0], path, "--out", out, "--keep", "id,x").code == 0
    found = pq.read_table(out)
    assert found["id"].to_pylist()[1000] == "A7"
    assert np.isnan(found["x"].to_pylist()[1000])
    assert found["y_status"].to_pylist()[1000] == "input-missing"


def test_a_reader_that_has_read_enough_ends_it_without_a_word(solved, tmp_path):
    path = tmp_path / "long.csv"
    path.write_text("x\n" + "0.5\n" * 300_000)
    words = [COMMAND, "predict", solved[0], path, "--out", "-"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"y,y_error")
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_units_of_a_row_reach_report_and_poles(zeroproof, table, tmp_path):
    rows = "\n".join(f"{k / 20},{1 / (k / 20 - 1.03)}" for k in range(41))
    data = table(f"distance,signal\nmm,mV\n{rows}\n")
    outcome = zeroproof("fit", data, "--target", "signal", "--out", tmp_path / "run")
    assert outcome.code == 0
    assert "At distance [mm] = 1.03" in outcome.out
    later = table("distance\ncm\n1\n2\n")
    outcome = zeroproof("predict", tmp_path / "run", later, "--out", tmp_path / "a.csv")
    assert outcome.code == 2
    assert "in cm, fitted in mm" in outcome.err
