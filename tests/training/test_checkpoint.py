"""Checkpoints: whole, checked, and refused by name where they do not fit."""

import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from zeroproof.errors import CheckpointError, DamagedCheckpointError
from zeroproof.training import (
    SCMTrainingLoss,
    find_checkpoint,
    list_checkpoints,
    load_checkpoint,
    load_weights,
    save_checkpoint,
)

X = torch.linspace(-1, 1, 24)[:, None]
Y = 1 / (X - 0.3)
FIT = SCMTrainingLoss(normalizer="chordal", lambda_margin=0, lambda_sign=0, lambda_rejection=0)
STATE = {
    "numbers": [1, 2.5, 1e-320, 10**30, True, None, "text", math.inf, -math.inf],
    "pair": (1, [2.0, ()]),
    "by number": {0: "a", 7: {"$inner": torch.ones(2)}},
    "$marked": {"$tensor": "no tensor"},
    "tensors": {
        "half": torch.tensor([1.5, math.nan], dtype=torch.bfloat16),
        "empty": torch.zeros(0, 3),
        "scalar": torch.tensor(7),
        "mask": torch.tensor([True, False]),
        "complex": torch.tensor([1 + 2j], dtype=torch.complex128),
        "strided": torch.arange(6).reshape(2, 3).T,
    },
}


def same(one, other):
    if isinstance(one, torch.Tensor):
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)
        return True
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return type(one) is type(other) and all(map(same, one, other))
    return one == other and type(one) is type(other)


# --- the file


def test_a_state_comes_back_as_it_was(tmp_path):
    path = save_checkpoint(tmp_path, 12, STATE)
    assert path.name == "step-000000012"
    assert same(load_checkpoint(path), STATE)
    assert sorted(each.name for each in path.iterdir()) == ["state.json", "state.safetensors"]


def test_nan_is_kept_and_numpy_numbers_are_numbers(tmp_path):
    state = load_checkpoint(
        save_checkpoint(tmp_path, 0, {"nan": math.nan, "np": np.float64(0.1), "int": np.int64(3)})
    )
    assert math.isnan(state["nan"])
    assert (state["np"], state["int"]) == (0.1, 3)


def test_two_names_of_one_tensor_are_stored(tmp_path):
    tensor = torch.ones(3)
    state = load_checkpoint(save_checkpoint(tmp_path, 0, {"a": tensor, "b": tensor[1:]}))
    assert state["b"].tolist() == [1, 1]


def test_what_is_no_number_is_refused_by_its_place(tmp_path):
    with pytest.raises(CheckpointError, match=r"outer\.1\.inner must be made of .* got object"):
        save_checkpoint(tmp_path, 0, {"outer": [0, {"inner": object()}]})
    assert list(tmp_path.iterdir()) == []


def test_the_last_ones_are_kept_and_one_of_the_same_step_is_later(tmp_path):
    for step in (5, 20, 20, 100):
        save_checkpoint(tmp_path, step, {}, keep=3)
    names = ["step-000000100", "step-000000020.1", "step-000000005"]
    assert [path.name for path in list_checkpoints(tmp_path)] == names
    save_checkpoint(tmp_path, 1_000_000_000, {}, keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["step-1000000000"]


def test_other_files_are_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, step, {}, keep=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt", "step-000000003"]


# --- damage


def cut(path, name):
    data = (path / name).read_bytes()
    (path / name).write_bytes(data[: len(data) // 2])


def flip(path, name):
    data = bytearray((path / name).read_bytes())
    data[-9] ^= 1
    (path / name).write_bytes(data)


def remove(path, name):
    (path / name).unlink()


def retype(path, name):
    record = json.loads((path / "state.json").read_text())
    record["version"] = "one"
    (path / "state.json").write_text(json.dumps(record))


@pytest.mark.parametrize("name", ["state.json", "state.safetensors"])
@pytest.mark.parametrize("harm", [cut, flip, remove, retype])
def test_damage_is_named_and_the_one_before_is_used(tmp_path, harm, name):
    good = save_checkpoint(tmp_path, 1, {"value": torch.ones(9)})
    bad = save_checkpoint(tmp_path, 2, {"value": torch.zeros(9)})
    harm(bad, name)
    with pytest.raises(DamagedCheckpointError, match="step-000000002"):
        load_checkpoint(bad)
    with pytest.warns(UserWarning, match="damaged checkpoint is left out: .*step-000000002"):
        path, state = find_checkpoint(tmp_path)
    assert path == good
    assert state["value"].sum() == 9


@pytest.mark.parametrize("version", [99, 0])
def test_another_version_is_refused_and_not_passed_over(tmp_path, version):
    save_checkpoint(tmp_path, 1, {})
    path = save_checkpoint(tmp_path, 2, {})
    record = json.loads((path / "state.json").read_text())
    (path / "state.json").write_text(json.dumps(record | {"version": version}))
    with pytest.raises(CheckpointError, match=f"version 2, got {version}: use the"):
        find_checkpoint(tmp_path)


def test_no_folder_is_no_checkpoint(tmp_path):
    assert list_checkpoints(tmp_path / "none") == []
    assert find_checkpoint(tmp_path / "none") is None
    with pytest.raises(CheckpointError, match="none must be the folder of a checkpoint"):
        load_checkpoint(tmp_path / "none")


# --- weights alone


def test_weights_can_be_read_alone(tmp_path, Tuples, weights):
    model, other = Tuples(), Tuples()
    save_checkpoint(tmp_path, 1, {"model": model.state_dict()})
    for place in (tmp_path, tmp_path / "step-000000001"):
        nn.init.zeros_(other.N.weight)
        load_weights(place, other)
        assert torch.equal(weights(other), weights(model))


def test_weights_of_another_architecture_are_refused_untouched(tmp_path, Tuples, weights):
    save_checkpoint(tmp_path, 1, {"model": Tuples(4).state_dict()})
    model = Tuples(8)
    before = weights(model)
    with pytest.raises(CheckpointError, match=r"must hold .* of shape \(8, 1\), got \(4, 1\)"):
        load_weights(tmp_path, model)
    save_checkpoint(tmp_path, 2, {"model": nn.Linear(1, 1).state_dict()})
    with pytest.raises(CheckpointError, match=r"must hold this model's parameters, but lacks"):
        load_weights(tmp_path, model)
    with pytest.raises(CheckpointError, match="must hold a checkpoint, got none that is whole"):
        load_weights(tmp_path / "nowhere", model)
    assert torch.equal(before, weights(model))


def test_the_one_just_written_is_kept_whatever_its_step(tmp_path):
    save_checkpoint(tmp_path, 50, {}, keep=1)
    path = save_checkpoint(tmp_path, 8, {}, keep=1)
    assert [path] == list_checkpoints(tmp_path)


def test_a_file_of_that_name_is_no_checkpoint(tmp_path):
    path = save_checkpoint(tmp_path, 1, {})
    (tmp_path / "step-000000002").write_text("a file")
    assert list_checkpoints(tmp_path) == [path]


def test_a_state_that_is_nested_without_end_is_damaged(tmp_path):
    path = save_checkpoint(tmp_path, 1, {})
    (path / "state.json").write_text("[" * 100_000)
    with pytest.raises(DamagedCheckpointError, match="must be readable JSON"):
        load_checkpoint(path)


def test_kept_are_so_many_steps_each_by_its_latest(tmp_path):
    for step in (1, 2, 3, 3, 3, 2):
        last = save_checkpoint(tmp_path, step, {"value": step}, keep=2)
    assert last.name == "step-000000002.1"
    names = [path.name for path in list_checkpoints(tmp_path)]
    assert names == ["step-000000003.2", "step-000000002.1"]
