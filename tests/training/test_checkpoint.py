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
    SCMTrainer,
    SCMTrainingLoss,
    TrainingConfig,
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
    names = ["step-000000100", "step-000000020.1", "step-000000020"]
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


def test_a_newer_version_is_refused_and_not_passed_over(tmp_path):
    save_checkpoint(tmp_path, 1, {})
    path = save_checkpoint(tmp_path, 2, {})
    record = json.loads((path / "state.json").read_text())
    (path / "state.json").write_text(json.dumps(record | {"version": 99}))
    with pytest.raises(CheckpointError, match="format version 1, got 99: use the version of"):
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


# --- the trainer's


@pytest.fixture
def run(seeded, tmp_path):
    def build(model=None, optimizer=torch.optim.SGD, scheduler=None, callbacks=(), **options):
        model = seeded() if model is None else model
        optimizer = optimizer(model.parameters(), lr=0.05)
        return SCMTrainer(
            model,
            optimizer,
            FIT,
            [(X, Y)] * 2,
            config=TrainingConfig(
                max_epochs=2,
                progress=False,
                checkpoint_dir=tmp_path / "kept",
                **options,
            ),
            scheduler=scheduler(optimizer) if scheduler else None,
            callbacks=callbacks,
        )

    return build


def longer(trainer, epochs):
    return {"max_epochs": epochs}


def test_there_is_one_after_each_epoch_and_the_last_are_kept(run, tmp_path):
    trainer = run(keep_checkpoints=1)
    trainer.fit()
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["step-000000004"]
    assert trainer.checkpoint == tmp_path / "kept" / "step-000000004"


def test_there_is_one_at_the_end_whatever_the_cadence(run, tmp_path):
    run(checkpoint_every_steps=3).fit()
    names = sorted(path.name for path in (tmp_path / "kept").iterdir())
    assert names == ["step-000000003", "step-000000004"]


def test_a_finished_run_is_finished_and_a_limit_may_be_raised(run, weights, seeded):
    first = run()
    first.fit()
    again = run()
    again.fit(resume_from="auto")
    assert again.stop_reason == "max_epochs"
    assert again.history == first.history
    assert torch.equal(weights(again.model), weights(first.model))


def test_a_new_run_does_not_mix_with_another(run):
    run().fit()
    with pytest.raises(CheckpointError, match=r"must hold no checkpoint when a run begins, .* 2"):
        run().fit()


def test_nothing_to_resume_from_begins_anew_with_a_warning(run):
    with pytest.warns(UserWarning, match="holds no checkpoint; the run begins anew"):
        history = run().fit(resume_from="auto")
    assert len(history) == 2


def test_all_damaged_are_put_aside_and_the_run_begins_anew(run, tmp_path):
    run().fit()
    for path in list_checkpoints(tmp_path / "kept"):
        cut(path, "state.json")
    with pytest.warns(UserWarning, match="damaged|begins anew"):
        run().fit(resume_from="auto")
    names = sorted(path.name for path in (tmp_path / "kept").iterdir())
    assert names == [f"{kind}step-00000000{step}" for kind in ("damaged-", "") for step in (2, 4)]


def test_a_path_is_taken_as_it_is(run, tmp_path):
    run().fit()
    older = tmp_path / "kept" / "step-000000002"
    with pytest.raises(CheckpointError, match=r"must hold nothing newer than .*step-000000002"):
        run().fit(resume_from=older)
    moved = shutil.move(older, tmp_path / "step-000000002")
    shutil.rmtree(tmp_path / "kept")
    trainer = run()
    trainer.fit(resume_from=moved)
    assert trainer.step == 4
    flip(moved, "state.json")
    with pytest.raises(DamagedCheckpointError, match="step-000000002"):
        run().fit(resume_from=moved)


def test_auto_needs_a_folder(trained):
    with pytest.raises(RangeError, match="resume_from='auto' must come with a checkpoint_dir"):
        trained().fit(resume_from="auto")


def plateau(optimizer):
    return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        ({"optimizer": torch.optim.Adam}, "the optimizer it was written with, 'SGD', got 'Adam'"),
        ({"scheduler": plateau}, "the scheduler it was written with, None, got 'Reduce"),
        ({"callbacks": [object()]}, "the callbacks it was written with"),
        ({"ema_decay": 0.9}, "the moving average it was written with, False, got True"),
        (
            {"use_amp": True, "amp_dtype": torch.float16},
            "the loss scaler it was written with, False, got True",
        ),
    ],
    ids=["optimizer", "scheduler", "callbacks", "average", "scaler"],
)
def test_a_checkpoint_of_another_run_is_refused_and_nothing_is_lost(
    run, seeded, weights, tmp_path, other, sentence
):
    run().fit()
    before = sorted(path.name for path in (tmp_path / "kept").iterdir())
    trainer = run(**other)
    with pytest.raises(CheckpointError, match=sentence):
        trainer.fit(resume_from="auto")
    assert torch.equal(weights(trainer.model), weights(seeded()))
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == before


def test_a_checkpoint_of_another_architecture_is_refused(run, Tuples):
    run().fit()
    with pytest.raises(CheckpointError, match=r"must hold trunk\.0\.weight of shape"):
        run(Tuples(5)).fit(resume_from="auto")


def test_a_state_that_no_trainer_wrote_is_refused(run, tmp_path, Tuples):
    save_checkpoint(tmp_path / "kept", 3, {"model": Tuples().state_dict()})
    with pytest.raises(CheckpointError, match="must be a trainer's checkpoint, but lacks 'names'"):
        run().fit(resume_from="auto")


def test_other_options_are_warned_of(run):
    run().fit()
    with pytest.warns(UserWarning, match="other options: grad_accumulation_steps 1 -> 2"):
        run(grad_accumulation_steps=2).fit(resume_from="auto")


def test_a_folder_without_permission_is_found_before_the_first_step(run, monkeypatch):
    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    trainer = run()
    with pytest.raises(CheckpointError, match=r"must be a folder .* Permission denied"):
        trainer.fit()
    assert trainer.step == 0


def test_a_place_that_is_a_file_is_found_before_the_first_step(run, tmp_path):
    (tmp_path / "kept").write_text("a file")
    trainer = run()
    with pytest.raises(CheckpointError, match=r"must be a folder .* got .*kept: File exists"):
        trainer.fit()
    assert trainer.step == 0


def test_a_full_disk_is_a_warning_and_training_goes_on(run, monkeypatch, tmp_path):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("zeroproof.training.checkpoint._flush", full)
    with pytest.warns(UserWarning, match="no checkpoint could be written") as warned:
        history = run().fit()
    assert [str(each.message) for each in warned] == [
        f"no checkpoint could be written at step {step}: [Errno 28] No space left on device"
        for step in (2, 4, 4)  # after each epoch, and once more at the end
    ]
    assert len(history) == 2
    assert list((tmp_path / "kept").iterdir()) == []


def test_what_a_killed_process_left_is_removed(run, tmp_path):
    left = tmp_path / "kept" / ".step-000000002-x7k"
    left.mkdir(parents=True)
    run().fit()
    assert not left.exists()


def test_checkpoints_of_a_compiled_model_are_those_of_the_model(run, seeded, Tuples):
    model = seeded()
    run(torch.compile(model, backend="eager")).fit()
    resumed = run(seeded())
    assert resumed.fit(resume_from="auto")[-1]["train_loss"] > 0
    for name, value in model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name])
