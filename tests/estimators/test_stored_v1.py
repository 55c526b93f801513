"""Folders that earlier code wrote still load and answer as they did; see tests/data/stored_v1."""

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from zeroproof import ProjectiveRegressor
from zeroproof.errors import DamagedCheckpointError
from zeroproof.export import load_run, predict_rows
from zeroproof.training import load_checkpoint

STORED = Path(__file__).parents[1] / "data" / "stored_v1"
MODELS = sorted(path.stem for path in (STORED / "models").glob("*.npz"))
CLOSE = {"rtol": 1e-9, "atol": 1e-12}
FLOAT32 = {"rtol": 1e-3, "atol": 1e-5}  # rounding of a float32 network, amplified near its pole


@pytest.fixture(scope="module")
def make():
    """Return the script that wrote the folders: it builds what a user has to bring along."""
    spec = importlib.util.spec_from_file_location("make_stored", STORED / "make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def assert_answers(got, place, tolerance):
    wanted = np.load(place)
    decoded, bottom, gap = map(np.asarray, got)
    assert np.array_equal(bottom, wanted["bottom"])
    assert np.array_equal(gap, wanted["gap"])
    assert bottom.any()
    assert not bottom.all()
    assert decoded.dtype == wanted["decoded"].dtype
    np.testing.assert_allclose(decoded[~bottom], wanted["decoded"][~bottom], **tolerance)
    assert np.isnan(decoded[bottom]).all()


def test_every_kind_of_model_is_there():
    text = "".join(path.read_text() for path in (STORED / "models").glob("*/model.json"))
    for kind in (
        "CoefficientForm", "FactoredForm", "BarycentricForm", "FormModel", "ReadoutModel",
        "GradedFeatures", "RandomFeatures", "ModuleFeatures",
    ):  # fmt: skip
        assert f'"kind": "{kind}"' in text.replace('":"', '": "')


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.filterwarnings("ignore:.*lie outside the data")
def test_a_stored_model_answers_as_it_did(name, make):
    features = make.user_module().double() if name == "module" else None
    if features is not None:
        torch.nn.init.zeros_(features[0].weight)  # the folder has the weights
    model = ProjectiveRegressor.load(STORED / "models" / name, features=features)
    place = STORED / "models" / f"{name}.npz"
    assert_answers(model.predict_strict(np.load(place)["X"]), place, CLOSE)


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
@pytest.mark.filterwarnings("ignore:.*lie outside the data")
def test_a_solved_run_answers_as_it_did():
    place = STORED / "solve.npz"
    model = ProjectiveRegressor.load(STORED / "solve")
    assert_answers(model.predict_strict(np.load(place)["X"]), place, CLOSE)


@pytest.mark.parametrize("name", ["train", "sections"])
def test_a_trained_run_answers_as_it_did(name):
    place = STORED / f"{name}.npz"
    X = torch.from_numpy(np.load(place)["X"])
    assert_answers(predict_rows(load_run(STORED / name), X), place, FLOAT32)


@pytest.mark.parametrize("step", [12, 21], ids=["within an epoch", "at the end"])
def test_a_stored_checkpoint_goes_on_to_the_same_end(step, make, tmp_path):
    name = f"step-{step:09d}"
    shutil.copytree(STORED / "checkpoints" / name, tmp_path / "kept" / name)
    run = make.trainer(tmp_path / "kept")
    run.fit(resume_from="auto")
    assert run.step == 21
    wanted = np.load(STORED / "checkpoints.npz")
    found = make.end(run)
    assert found.keys() == set(wanted.files)
    for key, value in found.items():
        np.testing.assert_allclose(value, wanted[key], rtol=1e-9, atol=1e-9, err_msg=key)


def test_a_damaged_checkpoint_of_the_former_format_is_named(tmp_path):
    (first, *_) = sorted((STORED / "checkpoints").glob("step-*"))
    shutil.copytree(first, tmp_path / first.name)
    file = tmp_path / first.name / "state.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(DamagedCheckpointError, match=f"{first.name} must hold a whole checkpoint"):
        load_checkpoint(tmp_path / first.name)
