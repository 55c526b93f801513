from collections import namedtuple

import pytest
import torch

from zeroproof.cli import main
from zeroproof.data import write_csv

Outcome = namedtuple("Outcome", ["code", "out", "err"])


@pytest.fixture
def zeroproof(capsys):
    """Run the command line in this process."""

    def run(*words):
        code = main([str(word) for word in words])
        return Outcome(code, *capsys.readouterr())

    return run


@pytest.fixture
def refused(zeroproof):
    """Run a command line that must end with one sentence and a code, and write nothing."""

    def run(*words, code=2):
        outcome = zeroproof(*words)
        assert (outcome.code, outcome.out) == (code, "")
        lines = outcome.err.splitlines()
        assert len(lines) == 1
        assert lines[0].startswith("zeroproof: ")
        return lines[0].removeprefix("zeroproof: ")

    return run


@pytest.fixture
def data(tmp_path):
    """Write 60 rows of 1 / (x - 0.31), three of them on the pole."""
    x = torch.linspace(-1, 1, 60, dtype=torch.float64)
    y = 1 / (x - 0.31)
    x[:3], y[:3] = 0.31, torch.tensor([torch.inf, -torch.inf, torch.nan])
    path = tmp_path / "data.csv"
    write_csv(path, {"x": x.tolist(), "y": y.tolist()})
    return path


@pytest.fixture
def fitted(zeroproof, data, tmp_path):
    """Return the folder of a quick fit."""
    run = tmp_path / "run"
    words = ("fit", data, "--target", "y", "--out", run, "--steps", 50, "--hidden", "8")
    assert zeroproof(*words).code == 0
    return run
