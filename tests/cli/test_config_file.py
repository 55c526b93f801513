import pytest
import yaml

from zeroproof.cli.arguments import listed, with_files


@pytest.fixture
def config(tmp_path):
    """Write a configuration file."""

    def write(text):
        path = tmp_path / "run.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def sections_of(words):
    return {flag: yaml.safe_load(text) for flag, _, text in (word.partition("=") for word in words)}


def test_a_path_gives_way_to_what_the_file_holds(config):
    path = str(config("data: rows.csv\nmodel: my.Net\ntarget: [a, 'b,c', 3]\nfeatures: null\n"))
    found = sections_of(with_files(["-c", path, f"--out={path}"]))
    assert found == {
        "--target": 'a,"b,c",3',
        "--out": path,
        "--data": {"train": "rows.csv"},
        "--model": {"class_path": "my.Net"},
    }


def test_later_options_of_a_section_overrule_those_of_the_same_name(config):
    path = config("trainer: {score: angle}\noptimizer: {class_path: SGD, init_args: {lr: 1e-3}}\n")
    before = ["--trainer.score", "x", "--trainer.seed=3", "--optimizer", "Adam", "--model", "a.B"]
    after = ["--optimizer.lr", "0.1", "--optimizer", "{momentum: 0.5}", "--model.width", "[4]"]
    assert sections_of(with_files([*before, f"--config={path}", *after])) == {
        "--trainer": {"score": "angle", "seed": "3"},
        "--optimizer": {"class_path": "SGD", "lr": "0.1", "momentum": 0.5},
        "--model": {"class_path": "a.B", "width": "[4]"},
    }


def test_what_a_file_says_arrives_as_it_does_from_the_command_line(zeroproof, config):
    path = config("target: [a, 'b,c', 3]\nlearning_rate: 1e-3\nhidden: [4, 4]\nmethod: train\n")
    said = yaml.safe_load(zeroproof("fit", "-c", path, "--print-config").out)
    assert (said["target"], said["learning_rate"], said["hidden"]) == ('a,"b,c",3', 1e-3, "4,4")
    assert (
        yaml.safe_load(zeroproof("fit", "-c", config("target: 5\n"), "--print-config").out)[
            "target"
        ]
        == "5"
    )


def test_a_name_with_a_comma_is_quoted_in_a_list():
    assert listed(["a", "b,c", 2]) == 'a,"b,c",2'


def nested(depth):
    return "target: " + "[" * depth + "]" * depth


MUST = "run.yaml must hold options in YAML, NAME: VALUE, "
BAD = {
    "nothing": ("", MUST + "got None"),
    "list": ("- a\n", MUST + "got ['a']"),
    "text": ("rows.csv\n", MUST + "got 'rows.csv'"),
    "broken": ("target: [\n", "but while parsing a flow node "),
    "bytes": (b"target: \xff\n", "but 'utf-8' codec can't decode byte 0xff"),
    "deep": (nested(3000), "but it must nest at most 50 deep"),
    "deeper": (nested(300_000), "got 'target: [[["),
    "large": ("x,y\n" + "1,2\n" * 20000, "got 'x,y"),
    "near": ("targt: y\n", "unrecognized arguments: --targt=y; did you mean target?"),
    "inside": ("trainer: {max_epoch: 3}\n", "option 'max_epoch'; did you mean trainer.max_epochs?"),
    "too deep": ("data: {target: y}\n", "Group 'data' does not accept option 'target'"),
    "another file": ("config: other.yaml\n", "must not name another, got 'other.yaml'"),
    "a list": ("out: [run]\n", "out must have one value, got ['run']"),
    "a mapping": ("target: {a: 1}\n", "target must have one value, got {'a': 1}"),
    "NUL": ('out: "a\\0b"\n', MUST + "got {'out': 'a\\x00b'}"),
    "far": ("zzz: y\n", "unrecognized arguments: --zzz=y; see zeroproof --help"),
    "number": ("5: y\n", "unrecognized arguments: --5=y"),
    "no section": ("trainer: 3\n", "--trainer must be options, NAME: VALUE, got 3"),
    "no data": (
        "data: [a.csv]\n",
        "data must have one value, got ['a.csv']",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_cannot_be_used_is_refused(refused, config, name):
    text, sentence = BAD[name]
    words = ("--target", "y", "--out", "run", "--data.train", "a.csv")
    assert sentence in refused("fit", *words, "-c", config(text))


def test_a_file_that_is_missing_is_refused(refused, tmp_path):
    path = tmp_path / "no.yaml"
    said = refused("fit", f"--config={path}")
    assert said.startswith(f"{path} must hold options in YAML")
    assert said.endswith("No such file or directory")
    assert "expected one argument" in refused("fit", "-c")
