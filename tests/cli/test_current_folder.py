"""A folder of data is data: no code in it is run, but that of a class a configuration names."""

import subprocess
import sys

import pytest

# what a library looks for, and takes if it is there
PROBED = "lz4 cython charset_normalizer scikits sksparse uarray omegaconf jsonschema requests dill"
SECTIONS = """
data: {train: data.csv, batch_size: 16}
target: y
out: run
trainer: {max_epochs: 1, device: cpu}
model: {class_path: MODEL}
optimizer: {class_path: torch.optim.SGD, init_args: {lr: 0.01}}
"""
NETS = """
import importlib.util
import own_help
import torch

open("ran", "a").write("own_nets ")

class Net(torch.nn.Module):
    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.head = torch.nn.Linear(in_features, 2 * out_features)
        assert importlib.util.find_spec("lz4") is None, "looked for after the import"

    def forward(self, x):
        return self.head(x).chunk(2, -1)
"""
PRINT = "fit --print-config"
OWN, OTHER = "zeroproof.layers.ProjectiveMLP", "own_nets.Net"


@pytest.fixture
def place(data, tmp_path):
    """Fill the folder of the data with code that says that it ran."""
    for name in (*PROBED.split(), "own_help", "evil"):
        text = f"open('ran', 'a').write('{name} ')\nclass Net: pass\n"
        (tmp_path / f"{name}.py").write_text(text)
    (tmp_path / "own_nets.py").write_text(NETS)
    for name, model in {"own": OWN, "other": OTHER, "evil": "evil.Net"}.items():
        (tmp_path / f"{name}.yaml").write_text(SECTIONS.replace("MODEL", model))
    return tmp_path


@pytest.mark.parametrize(
    ("commands", "ran"),
    [
        (["fit data.csv --target y --out run", "predict run data.csv --out a.csv"], ""),
        (
            [
                "fit -c own.yaml",
                "fit -c evil.yaml --print-config",
                "fit --print-config --model evil.Net",
            ],
            "",
        ),
        (["fit -c other.yaml"], "own_help own_nets "),
    ],
    ids=["plain", "own", "other"],
)
def test_code_beside_the_data_is_not_run(place, commands, ran):
    program = f"""
import sys
from zeroproof.cli import main
before = list(sys.path)
for words in {commands!r}:
    assert main(words.split()) == 0, words
assert sys.path == before
"""
    ended = subprocess.run(
        [sys.executable, "-P", "-c", program],
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ((place / "ran").read_text() if ran else (place / "ran").exists()) == (ran or False)
    if "evil.yaml" in str(commands):
        assert ended.stdout.count("\n  class_path: evil.Net\n  init_args: {}\n") == 2


def test_code_that_cannot_be_run_is_a_sentence(refused, place, monkeypatch):
    monkeypatch.chdir(place)
    (place / "broken_nets.py").write_text("1 / 0")
    words = ("fit", "-c", "own.yaml", "--model")
    said = refused(*words, "broken_nets.Net")
    assert said == "class_path must name a class to import, got broken_nets.Net: division by zero"
    assert not (place / "run").exists()
