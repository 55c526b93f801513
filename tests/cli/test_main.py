import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = Path(sys.executable).with_name("zeroproof")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "expected"),
        (["train"], "invalid choice: 'train' (choose from"),
        (["pole", "run"], "did you mean poles?"),
        (["fit"], "the following arguments are required: data, target, out"),
        (["fit", "a.csv", "--target", "y"], "the following arguments are required: out"),
        (["predict", "run"], "the following arguments are required"),
        (["poles"], "the following arguments are required: run"),
        (["poles", "run", "--all", "true"], "unrecognized"),
        (["fit", "a.csv", "--target", "y", "--out", "run", "--stps", "3"], "mean steps?"),
        (["predict", "run", "a.csv", "--kep", "x"], "did you mean keep?"),
        (["fit", "a.csv", "b.csv", "--target", "y", "--out", "run"], "unrecognized"),
        (["fit", "a.csv", "--target"], "expected one argument"),
    ],
)
def test_wrong_usage_is_one_sentence_with_advice(refused, tmp_path, monkeypatch, words, sentence):
    monkeypatch.chdir(tmp_path)
    said = refused(*words)
    assert sentence in said
    assert said.endswith("; see zeroproof --help")
    assert list(tmp_path.iterdir()) == []


def test_the_console_script_answers_with_code_and_sentence(tmp_path):
    words = [COMMAND, "fit", tmp_path / "no.csv", "--target", "y", "--out", tmp_path / "run"]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith(f"zeroproof: {tmp_path / 'no.csv'} must be a readable file")
    assert ended.stderr.count("\n") == 1


def test_help_imports_nothing_that_fits():
    code = (
        "import sys; from zeroproof.cli import main\n"
        "assert main(['--help']) == main(['fit', '--help']) == 0\n"
        "assert not {'torch', 'zeroproof.training', 'zeroproof.cli.sections'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
