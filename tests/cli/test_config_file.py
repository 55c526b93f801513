import pytest

from zeroproof.cli.fit import with_files
from zeroproof.cli.rows import listed

NAMES = {"target": (), "data": ("train", "batch_size"), "trainer": ("max_epochs",), "features": ()}


@pytest.fixture
def config(tmp_path):
    """Write a configuration file."""

    def write(text):
        path = tmp_path / "run.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_a_path_gives_way_to_what_the_file_holds(config):
    path = str(config("data: rows.csv\ntarget: [a, 'b,c', 3]\nfeatures: null\n"))
    inside = 'data:\n  train: rows.csv\ntarget: a,"b,c",3\n'
    words = with_files(["fit", "-c", path, f"--config={path}", "--out", path], NAMES)
    assert words[0] == "fit"
    assert words[1::2] == ["-c", "--config", "--out"]
    assert words[2] == words[4] == inside.replace('a,"b,c",3', 'a,"b,c",3')
    assert words[-1] == path


def test_small_numbers_are_numbers(config):
    text = with_files(["-c", str(config("trainer:\n  max_epochs: 1e-3\n"))], NAMES)[1]
    assert text == "trainer:\n  max_epochs: 0.001\n"


def test_a_number_may_be_a_name(config):
    assert with_files(["-c", str(config("target: 5\n"))], NAMES)[1] == "target: '5'\n"


def test_a_name_with_a_comma_is_quoted_in_a_list():
    assert listed(["a", "b,c", 2]) == 'a,"b,c",2'


BAD = {
    "nothing": ("", "must be a mapping of options, such as target: y, got nothing"),
    "list": ("- a\n", "must be a mapping of options, such as target: y, got a list"),
    "text": ("rows.csv\n", "must be a mapping of options, such as target: y, got a str"),
    "broken": ("target: [\n", "line 2: must be YAML, got"),
    "bytes": (b"target: \xff\n", "must be UTF-8 text, got other bytes"),
    "near": ("targt: y\n", "got 'targt'; did you mean 'target'?"),
    "inside": ("trainer:\n  max_epoch: 3\n", "'trainer.max_epoch'; did you mean 'trainer.max_ep"),
    "elsewhere": ("max_epochs: 3\n", "got 'max_epochs'; did you mean 'trainer.max_epochs'?"),
    "too deep": ("data:\n  target: y\n", "got 'data.target'; did you mean 'target'?"),
    "far": ("zzz: y\n", "must hold options of `zeroproof fit`, got 'zzz'"),
    "number": ("5: y\n", "must hold options of `zeroproof fit`, got '5'"),
    "no section": ("trainer: 3\n", "must hold a mapping under 'trainer', got 3"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_cannot_be_used_is_refused(refused, config, name):
    text, sentence = BAD[name]
    path = config(text)
    said = refused("fit", "-c", path)
    assert said.startswith(str(path))
    assert sentence in said


def test_a_file_that_is_missing_is_refused(refused, tmp_path):
    path = tmp_path / "no.yaml"
    said = refused("fit", f"--config={path}")
    assert said == f"{path} must be a readable YAML file: No such file or directory"
    assert "expected one argument" in refused("fit", "-c")
