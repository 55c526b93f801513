import errno
import os
import signal
import sys

import pytest

from zeroproof.cli import main
from zeroproof.errors import TrainingError

BAD_OPTIONS = {
    "method": ("--method both", "--method must be one of 'solve', 'train', got 'both'"),
    "missing feature": ("--features z", "must have a column 'z', got 'x', 'y'"),
    "target as feature": ("--features x,y", "--features must not name a target"),
    "tau of 0": ("--tau_infer 0", "tau_infer must lie in (0, 1], got 0.0"),
    "tau above 1": ("--tau_train 2", "tau_train must lie in (0, 1], got 2.0"),
    "text tau": ("--tau_infer low", "--tau_infer must be a finite number, got low"),
    "order": ("--tau_infer 0.5 --tau_train 0.1", "tau_infer must not exceed tau_train, got"),
    "seed": ("--seed -3", "seed must be a whole number of at least 0, got -3"),
    "choice": ("--shared_denominator maybe", "--shared_denominator must be true or false"),
    "unknown": ("--gradient_policy NONE", "unrecognized arguments: --gradient_policy NONE"),
    "steps of solve": ("--steps 100", "--steps must come with --method train, got solve"),
    "widths of solve": ("--hidden 8", "--hidden must come with --method train, got solve"),
    "degrees of train": (
        "--method train --degrees 3,3",
        "--degrees must come with --method solve, got train",
    ),
    "budget of train": (
        "--method train --time-budget 3",
        "--time_budget must come with --method solve, got train",
    ),
    # those of train
    "no step": ("--method train --steps 0", "steps must be a whole number of at least 1, got 0"),
    "half a step": ("--steps 1.5", "--steps must be a whole number, got 1.5"),
    "no number": ("--learning_rate fast", "--learning_rate must be a finite number, got fast"),
    "nan": ("--learning_rate nan", "--learning_rate must be a finite number, got nan"),
    "negative rate": (
        "--method train --learning_rate -1",
        "learning_rate must be a finite number above 0",
    ),
    "share": ("--method train --held_out 1", "held_out must lie in (0, 1), got 1.0"),
    "widths": (
        "--method train --hidden 8,a",
        "--hidden must list whole numbers, such as 64,64, got '8,a'",
    ),
    "width of 0": ("--method train --hidden 8,0", "hidden must be a whole number of at least 1"),
    # those of solve
    "family": ("--features_family wavy", "--features-family must be one of 'auto', 'chebyshev'"),
    "degree": ("--degrees a", "--degrees must be a whole number or two, such as 3,3, got 'a'"),
    "three degrees": ("--degrees 1,2,3", "--degrees must be a whole number or two, such as 3,3"),
    "negative degree": ("--degrees 2,-1", "degrees must be a whole number of at least 0, got -1"),
    "degree of waves": (
        "--degrees 3 --features_family random",
        "--degrees must come with --features_family auto, chebyshev, polynomial, got random",
    ),
    "topology": ("--topology round", "topology must be one of 'auto', 'projective', 'affine'"),
    "linear in": ("--linear_in z", "--linear_in must name features, 'x', got 'z'"),
    "weight": ("--weight_power -1", "weight_power must be a finite number above 0, got -1.0"),
    "budget": ("--time_budget 0", "time_budget must be a finite number above 0, got 0.0"),
}


@pytest.mark.parametrize("name", BAD_OPTIONS)
def test_an_option_that_cannot_be_used_is_refused(refused, data, tmp_path, name):
    words, sentence = BAD_OPTIONS[name]
    out = tmp_path / "deep" / "run"
    assert sentence in refused("fit", data, "--target", "y", "--out", out, *words.split())
    assert list(tmp_path.iterdir()) == [data]


def test_the_same_seed_gives_the_same_files(zeroproof, fitted, data, tmp_path, method):
    words = ("fit", data, "--target", "y", "--out", tmp_path / "again")
    assert zeroproof(*words, *method).code == 0
    for name in ("model.safetensors", "rows.csv"):
        assert (tmp_path / "again" / name).read_bytes() == (fitted / name).read_bytes()


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
STAGES = {
    "trained": ("zeroproof.estimators.fit_table", "train"),
    "solved": ("zeroproof.estimators.regressor.ProjectiveRegressor.fit", "solve"),
    "written": ("zeroproof.data.write_csv", "solve"),
    "drawn": ("zeroproof.estimators.fitted.Fitted.picture", "solve"),
}


@pytest.mark.parametrize(("name", "stage"), list(zip(FAILURES, STAGES, strict=True)))
def test_a_fit_that_ends_early_leaves_nothing_behind(
    refused, data, tmp_path, monkeypatch, stage, name
):
    error, code, sentence = FAILURES[name]
    place, method = STAGES[stage]

    def fail(*_):
        raise error

    monkeypatch.setattr(place, fail)
    words = ("fit", data, "--target", "y", "--out", tmp_path / "deep" / "run", "--method", method)
    assert sentence in refused(*words, code=code)
    assert list(tmp_path.iterdir()) == [data]


def test_a_terminated_fit_leaves_nothing(data, tmp_path, monkeypatch):
    def end(*_):
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("zeroproof.estimators.regressor.ProjectiveRegressor.fit", end)
    assert main(["fit", str(data), "--target", "y", "--out", str(tmp_path / "run")]) == 143
    assert list(tmp_path.iterdir()) == [data]
    assert signal.getsignal(signal.SIGTERM) is before


def test_an_earlier_run_survives_a_fit_that_ends_early(
    refused, fitted, data, tmp_path, monkeypatch, tree, method
):
    def fail(*_):
        raise KeyboardInterrupt

    before = tree(tmp_path)
    monkeypatch.setattr("zeroproof.data.write_csv", fail)
    refused("fit", data, "--target", "y", "--out", fitted, *method, code=130)
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("module", "extra", "method"),
    [
        ("matplotlib.figure", "plots", "solve"),
        ("matplotlib.figure", "plots", "train"),
        ("safetensors.torch", "train", "solve"),
        ("safetensors.torch", "train", "train"),
        ("sklearn", "sklearn", "solve"),
        ("jsonargparse", "cli", "solve"),
    ],
)
def test_what_must_be_installed_is_told_before_the_work(
    refused, data, tmp_path, monkeypatch, module, extra, method
):
    def work(*_):
        raise AssertionError

    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr("zeroproof.cli.fit.solve", work)
    monkeypatch.setattr("zeroproof.cli.fit.train", work)
    words = ("fit", data, "--target", "y", "--out", tmp_path / "run", "--method", method)
    assert f"zeroproof-scm[{extra}]" in refused(*words, code=1)
    assert list(tmp_path.iterdir()) == [data]
