"""The demo with few steps: that it runs and reports, not how well it does."""

import json

import pytest

from examples import demo, poles
from zeroproof.cli import main
from zeroproof.estimators import FitOptions

ROOT = demo.HERE.parent


@pytest.fixture
def quick(monkeypatch, tmp_path):
    def few_steps(words):
        extra = ["--steps", "30", "--hidden", "8"] if "train" in words else []
        return main([*words, *extra])

    monkeypatch.setattr(demo, "zeroproof", few_steps)
    monkeypatch.setattr(demo, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(demo, "fitting_time", lambda _: 0.05)
    few_rows = demo.sample_arm
    monkeypatch.setattr(demo, "sample_arm", lambda rows, locked, seed: few_rows(300, 30, seed))
    return tmp_path / "runs"


def test_all_parts_write_their_runs_and_tables(quick, capsys):
    demo.hahn1()
    demo.gamma_function()
    demo.arm()
    said = capsys.readouterr().out
    for part in ("curve_fit", "gradient boosting", "on the data", "false finite", "next to it"):
        assert part in said
    for name in ("hahn1/fit.png", "hahn1-answers.csv", "gamma/fit.png", "arm-predicted.csv"):
        assert (quick / name).is_file()


def test_the_default_fit_is_as_good_on_unseen_copper_as_the_law_it_was_not_told(quick, capsys):
    demo.hahn1()
    lines = capsys.readouterr().out.splitlines()
    error = {line[2:44].strip(): float(line[44:]) for line in lines[-5:]}
    best = error["curve_fit, told the law of degrees (3, 3)"]
    assert error["zeroproof, not told any law"] < 1.1 * best


def test_a_command_that_fails_ends_the_demo(quick):
    with pytest.raises(SystemExit) as stop:
        demo.command("predict", quick / "absent", "no.csv", "--out", quick / "out.csv")
    assert stop.value.code == 2


@pytest.mark.parametrize(("name", "rows"), [("hahn1", 236), ("kirby2", 151), ("thurber", 37)])
def test_the_measured_data_are_complete(name, rows):
    table = demo.read_table(demo.HERE / f"data/{name}.csv")
    values = demo.numbers(table, list(table.columns), finite=True)
    certified = json.loads((demo.HERE / "data/certified.json").read_text())[name]
    assert certified["observations"] == len(values) == rows


def test_the_picture_of_three_poles(monkeypatch, tmp_path, capsys):
    options = FitOptions(hidden=(8,), steps=30, progress=False)
    monkeypatch.setattr(poles, "FitOptions", lambda **_: options)
    poles.main(str(tmp_path / "poles.png"))
    assert (tmp_path / "poles.png").read_bytes().startswith(b"\x89PNG")
    assert "held_out_rms" in capsys.readouterr().out
