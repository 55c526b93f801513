"""What a file of options, a name or a place can do to a program: it is refused in one sentence."""

import os

import pytest

BOMB = "a: &a [x, x]\n" + "".join(
    f"{chr(98 + k)}: &{chr(98 + k)} [*{chr(97 + k)}, *{chr(97 + k)}]\n" for k in range(20)
)


@pytest.mark.parametrize(
    ("text", "told"),
    [(BOMB, "aliases such as *a must be written out"), ("a: " + "[" * 30_000, "at most 50 deep")],
    ids=["bomb", "deep"],
)
def test_options_are_checked_before_they_are_built(refused, tmp_path, text, told):
    (tmp_path / "run.yaml").write_text(text)
    assert told in refused("fit", "-c", tmp_path / "run.yaml")


def test_an_option_of_the_command_line_does_not_nest_either(refused, data):
    assert "must not nest as deep" in refused("fit", data, "--seed", "[" * 40_000)


def test_a_name_with_a_break_is_no_column(refused, data, tmp_path):
    told = refused("fit", data, "--target", "a\nb", "--out", tmp_path / "run")
    assert "--target must list column names" in told


def test_answers_replace_no_pipe(refused, fitted, data, tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    told = refused("predict", fitted, data, "--out", tmp_path / "pipe.csv")
    assert "must name a file to write, got the device or pipe" in told
    assert (tmp_path / "pipe.csv").is_fifo()


@pytest.mark.parametrize(
    "code", ["raise SystemExit(0)", "import sys; sys.path.pop(); raise OSError"]
)
def test_a_foreign_module_cannot_end_the_program(refused, data, tmp_path, monkeypatch, code):
    monkeypatch.chdir(tmp_path)
    (tmp_path / f"ends{len(code)}.py").write_text(code)
    words = ("--target", "y", "--out", "run", "--model", f"ends{len(code)}.Net")
    assert "class_path must name a class to import" in refused("fit", data, *words)
