"""What importing costs, and what may be left uninstalled."""

import json
import subprocess
import sys

import pytest

import zeroproof

# modules that are loaded after a statement, as seen by a fresh interpreter
PROBE = "import json, sys\n{}\nprint(json.dumps(sorted(sys.modules)))"
OPTIONAL = (
    *("accelerate", "lightning", "matplotlib", "pandas", "pyarrow", "pytorch_lightning"),
    *("safetensors", "sklearn", "torchmetrics", "tqdm", "transformers"),
)


def loaded(statement):
    command = [sys.executable, "-c", PROBE.format(statement)]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def test_the_root_loads_neither_torch_nor_any_subpackage():
    modules = loaded("import zeroproof; zeroproof.__version__; dir(zeroproof)")
    assert "torch" not in modules
    assert [name for name in modules if name.startswith("zeroproof")] == ["zeroproof"]


@pytest.mark.parametrize("name", sorted(set(zeroproof.__all__) - {"__version__"}))
def test_every_name_of_the_root_arrives_when_used(name):
    assert getattr(zeroproof, name).__name__ == name


def test_an_unknown_name_of_the_root_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'zeroproof' has no attribute 'nothing'"):
        _ = zeroproof.nothing


def test_training_and_plots_load_no_optional_package():
    modules = set(loaded("import zeroproof.training, zeroproof.plots"))
    assert (modules - set(loaded("import torch"))) & set(OPTIONAL) == set()


def test_deployment_loads_no_training_code():
    modules = loaded("import zeroproof.inference")
    rooms = {name.split(".")[1] for name in modules if name.startswith("zeroproof.")}
    assert rooms & {"training", "losses", "plots"} == set()
