"""Checkpoints: whole, checked, and refused by name where they do not fit."""

import json
import math
import shutil

import numpy as np
import pytest
import torch
from torch import nn

from zeroproof.errors import CheckpointError, DamagedCheckpointError, RangeError
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


def nested(levels, kind):
    value = kind()
    for _ in range(levels - 1):
        value = kind([value])
    return value


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("\udcff", r"it\.0 must have numbers and text that a file can hold, .*surrogates"),
        ({"\udcff": 1}, r"it\.0 must have numbers and text"),
        (10**5000, r"it\.0 must have numbers and text .*digits"),
        (nested(3000, list), "must be nested in at most 100 levels, got more"),
        (torch.eye(2).to_sparse(), r"it\.0 must be a dense tensor .* torch\.sparse_coo on cpu"),
        (torch.eye(2).cfloat().to_sparse(), r"it\.0 must be a dense tensor"),
        (torch.ones(2, device="meta"), r"it\.0 must be a dense tensor .* on meta"),
        (torch.ones(2, dtype=torch.uint8).view(torch.bits8), r"it\.0 must be a dense tensor"),
        (np.longdouble(1), "nested in at most 100 levels|made of numbers"),
    ],
    ids=["text", "key", "digits", "deep", "sparse", "complex", "meta", "bits", "long"],
)
def test_what_no_file_can_hold_is_refused_and_leaves_no_trace(tmp_path, value, sentence):
    with pytest.raises(CheckpointError, match=sentence):
        save_checkpoint(tmp_path, 0, {"it": [value]})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", [list, tuple])
def test_the_deepest_that_is_written_is_read(tmp_path, kind):
    state = {"it": nested(98, kind)}
    assert load_checkpoint(save_checkpoint(tmp_path, 0, state)) == state


def test_a_tensor_may_have_the_name_that_the_format_keeps_for_itself(tmp_path):
    state = {"__metadata__": torch.ones(2), "state": {"__metadata__": torch.zeros(3)}}
    assert same(load_checkpoint(save_checkpoint(tmp_path, 0, state)), state)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"step": -1}, "step must be a whole number of at least 0, got -1"),
        ({"step": 2.0}, "step must be a whole number"),
        ({"step": 2, "keep": 0}, "keep must be a whole number of at least 1, got 0"),
    ],
)
def test_a_step_below_none_and_keeping_none_are_refused(tmp_path, options, sentence):
    kept = save_checkpoint(tmp_path, 1, {})
    with pytest.raises(RangeError, match=sentence):
        save_checkpoint(tmp_path, state={}, **options)
    assert list(tmp_path.iterdir()) == [kept]


def test_a_name_of_another_step_is_damage(tmp_path):
    good = save_checkpoint(tmp_path, 24, {})
    copied = shutil.copytree(good, tmp_path / "step-000000999")
    with pytest.raises(DamagedCheckpointError, match="must hold the step of its name, got step 24"):
        load_checkpoint(copied)
    with pytest.warns(UserWarning, match="damaged checkpoint is left out: .*step-000000999"):
        assert find_checkpoint(tmp_path) == (good, {})


def test_a_name_in_other_digits_is_no_checkpoint(tmp_path):
    good = save_checkpoint(tmp_path, 1, {})
    (tmp_path / "step-\u0660\u0660\u0660\u0660\u0660\u0660\u0660\u0660\u0669").mkdir()
    assert list_checkpoints(tmp_path) == [good]


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


@pytest.mark.parametrize(
    "changed",
    [
        {"model": None},
        {"model": [1]},
        {"model": {0: torch.ones(1)}},
        {"model": {"weight": 3, "bias": torch.ones(2)}},
        {"progress": [1]},
        {"progress": {"in_head": True}},
        {"progress": {"in_head": True, "scale": 2.0}},
    ],
    ids=["none", "list", "keys", "number", "progress", "scale", "head"],
)
def test_a_checkpoint_without_weights_to_set_is_refused_untouched(tmp_path, changed):
    model = nn.Linear(1, 2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    other = nn.Linear(1, 2).state_dict()
    save_checkpoint(tmp_path, 1, {"model": {"bias": other["bias"], **other}} | changed)
    with pytest.raises(CheckpointError, match="step-000000001 must hold"):
        load_weights(tmp_path, model)
    assert same(dict(model.state_dict()), before)
    save_checkpoint(tmp_path, 2, {"of another kind": 1})
    with pytest.raises(CheckpointError, match="must hold a model's parameters, got NoneType"):
        load_weights(tmp_path, model)


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
