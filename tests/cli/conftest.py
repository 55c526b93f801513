import contextlib
import functools
import io
import json
import shutil
from collections import namedtuple

import pytest
import torch

from zeroproof.cli import main
from zeroproof.data import write_csv

Outcome = namedtuple("Outcome", ["code", "out", "err"])

METHODS = {
    "solve": ("--method", "solve"),
    "train": ("--method", "train", "--steps", 50, "--hidden", "8"),
}


@pytest.fixture(params=METHODS)
def method(request):
    """Return the words that ask for a method, with few steps."""
    return METHODS[request.param]


@pytest.fixture
def quick():
    """Return the words that ask for a short training."""
    return METHODS["train"]


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


@pytest.fixture(scope="session")
def pole(tmp_path_factory):
    """Write 60 rows of 1 / (x - 0.31), three of them on the pole."""
    x = torch.linspace(-1, 1, 60, dtype=torch.float64)
    y = 1 / (x - 0.31)
    x[:3], y[:3] = 0.31, torch.tensor([torch.inf, -torch.inf, torch.nan])
    path = tmp_path_factory.mktemp("pole") / "data.csv"
    write_csv(path, {"x": x.tolist(), "y": y.tolist()})
    path.write_text(path.read_text().replace("nan", "#DIV/0!"))
    return path


@pytest.fixture
def data(pole, tmp_path):
    """Return the table of the pole, in a folder of the test's own."""
    return shutil.copy(pole, tmp_path / "data.csv")


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """Fit a table once for all tests; returns the folder and what was said."""

    @functools.cache
    def run(path, *words):
        folder, said = tmp_path_factory.mktemp("once") / "run", io.StringIO()
        with contextlib.redirect_stdout(said):
            assert main(["fit", str(path), "--out", str(folder), *map(str, words)]) == 0
        return folder, said.getvalue()

    return run


@pytest.fixture
def table(tmp_path):
    """Write a table as it is given."""

    def make(content):
        path = tmp_path / "table.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return make


@pytest.fixture
def fit(zeroproof, tmp_path):
    """Fit a table into the folder `run`."""
    return lambda data, *words: zeroproof("fit", data, "--out", tmp_path / "run", *words)


@pytest.fixture
def solved(once, pole):
    """Return the folder of a solved fit, which no test may change, and what was said of it."""
    return once(pole, "--target", "y", *METHODS["solve"])


@pytest.fixture
def fitted(once, pole, tmp_path, method):
    """Return the folder of a fit, the test's own."""
    return shutil.copytree(once(pole, "--target", "y", *method)[0], tmp_path / "run")


@pytest.fixture
def trained(once, pole, tmp_path):
    """Return the folder of a short training, the test's own."""
    return shutil.copytree(once(pole, "--target", "y", *METHODS["train"])[0], tmp_path / "run")


@pytest.fixture
def tree():
    """Return the content of all files below a folder."""
    return lambda folder: {
        path.relative_to(folder): path.is_file() and path.read_bytes() for path in folder.rglob("*")
    }


@pytest.fixture
def strict():
    """Read JSON that holds no nan and no infinity."""

    def refuse(constant):
        raise AssertionError(constant)

    return lambda path: json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
