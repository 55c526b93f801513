"""The trainer's checkpoints: when they are written, what they fit, what is refused."""

import math
import shutil
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from tests.stored import edited
from zeroproof.errors import CheckpointError, DamagedCheckpointError, RangeError
from zeroproof.training import (
    SCMTrainer,
    SCMTrainingLoss,
    TrainingConfig,
    list_checkpoints,
    load_weights,
    save_checkpoint,
)

X = torch.linspace(-1, 1, 24)[:, None]
Y = 1 / (X - 0.3)
FIT = SCMTrainingLoss(normalizer="chordal", lambda_margin=0, lambda_sign=0, lambda_rejection=0)


def cut(path, name):
    data = (path / name).read_bytes()
    (path / name).write_bytes(data[: len(data) // 2])


def left(folder):
    """What is in a folder of checkpoints, beside the file by which a run holds it."""
    return [path for path in folder.iterdir() if path.name != ".lock"]


@pytest.fixture
def run(seeded, tmp_path):
    def build(model=None, optimizer=torch.optim.SGD, scheduler=None, callbacks=(), **options):
        model = seeded() if model is None else model
        data = options.pop("data", [(X, Y)] * 2)
        optimizer = optimizer(model.parameters(), lr=0.05)
        return SCMTrainer(
            model,
            optimizer,
            FIT,
            data,
            config=TrainingConfig(
                **{
                    "max_epochs": 2,
                    "progress": False,
                    "checkpoint_dir": tmp_path / "kept",
                    **options,
                }
            ),
            scheduler=scheduler(optimizer) if scheduler else None,
            callbacks=callbacks,
        )

    return build


def test_there_is_one_after_each_epoch_and_the_last_are_kept(run, tmp_path):
    trainer = run(keep_checkpoints=1)
    trainer.fit()
    assert [path.name for path in left(tmp_path / "kept")] == ["step-000000004"]
    assert trainer.checkpoint == tmp_path / "kept" / "step-000000004"


def test_there_is_one_at_the_end_whatever_the_cadence(run, tmp_path):
    run(checkpoint_every_steps=3).fit()
    names = sorted(path.name for path in left(tmp_path / "kept"))
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
    names = sorted(path.name for path in left(tmp_path / "kept"))
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
    cut(moved, "state.json")
    with pytest.raises(DamagedCheckpointError, match="step-000000002"):
        run().fit(resume_from=moved)


def test_a_path_may_be_spelled_otherwise_and_nothing_is_lost(run, tmp_path, monkeypatch):
    run().fit()
    monkeypatch.chdir(tmp_path)
    for place in ("kept/step-000000002", "kept/../kept/step-000000002"):
        with pytest.raises(CheckpointError, match="must hold nothing newer"):
            run().fit(resume_from=place)
    other = save_checkpoint(tmp_path / "other", 9, {"model": {}})
    with pytest.raises(CheckpointError, match="nothing of another run, but has"):
        run().fit(resume_from=other)
    assert len(list_checkpoints(tmp_path / "kept")) == 2


def test_a_folder_without_checkpoints_is_named(run, tmp_path):
    with pytest.raises(CheckpointError, match="must hold a whole checkpoint, got none"):
        run().fit(resume_from=tmp_path)


def test_a_finished_run_that_is_started_again_writes_nothing(run, tmp_path):
    run(checkpoint_every_steps=3, keep_checkpoints=1).fit()
    before = list_checkpoints(tmp_path / "kept")
    again = run(checkpoint_every_steps=3, keep_checkpoints=1)
    again.fit(resume_from="auto")
    assert list_checkpoints(tmp_path / "kept") == before == [again.checkpoint]


def test_a_place_in_the_home_folder_is_found_there(run, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    run(checkpoint_dir="~/mine", log_dir="~/log").fit()
    assert (tmp_path / "mine" / "step-000000004").is_dir()
    assert (tmp_path / "log" / "epochs.jsonl").is_file()


@pytest.mark.parametrize(
    "value",
    [object(), "\udcff", 10**5000, torch.eye(2).to_sparse()],
    ids=["object", "text", "digits", "sparse"],
)
def test_what_cannot_be_stored_is_found_before_the_first_step(run, value):
    class Odd:
        def state_dict(self):
            return {"it": value}

        def load_state_dict(self, state):
            raise AssertionError

    trainer = run(callbacks=[Odd()])
    with pytest.raises(CheckpointError, match=r"0\.it must (be made of|have|be a dense)"):
        trainer.fit()
    assert trainer.step == 0


def test_a_copy_under_a_later_name_is_passed_over(run, tmp_path):
    run().fit()
    shutil.copytree(tmp_path / "kept" / "step-000000004", tmp_path / "kept" / "step-000000999")
    trainer = run(max_epochs=3)
    with pytest.warns(UserWarning, match="left out: .*999 must hold the step of its name, got"):
        trainer.fit(resume_from="auto")
    assert trainer.step == 6
    assert (tmp_path / "kept" / "damaged-step-000000999").is_dir()


def test_a_limit_on_patience_may_be_raised(run):
    low = {"coverage_threshold": 1.0, "tau_infer": 1.0, "tau_train_min": 1.0}
    low |= {"tau_train_max": 1.0, "score": "angle", "max_epochs": 6}
    first = run(coverage_patience=2, **low)
    first.fit()
    assert (first.stop_reason, len(first.history)) == ("coverage", 2)
    again = run(coverage_patience=4, **low)
    with pytest.warns(UserWarning, match="coverage_patience 2 -> 4"):
        again.fit(resume_from="auto")
    assert (again.stop_reason, len(again.history)) == ("coverage", 4)


def test_weights_of_another_precision_and_lazy_ones_are_refused(run, seeded, tmp_path):
    run().fit()
    with pytest.raises(CheckpointError, match=r"in torch\.float64, got torch\.float32"):
        load_weights(tmp_path / "kept", seeded().double())
    with pytest.raises(CheckpointError, match="a model that has run once, got lazy parameters"):
        load_weights(tmp_path / "kept", nn.LazyLinear(3))


def test_workers_that_live_on_are_warned_of(run):
    loader = DataLoader(TensorDataset(X, Y), num_workers=1, persistent_workers=True)
    with pytest.warns(UserWarning, match="train_loader has persistent_workers"):
        run(data=loader, max_epochs=1).fit()


def test_auto_needs_a_folder(trained):
    with pytest.raises(RangeError, match="resume_from='auto' must come with a checkpoint_dir"):
        trained().fit(resume_from="auto")


def plateau(optimizer):
    return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        ({"optimizer": torch.optim.Adam}, "the optimizer it was written with, 'SGD', got 'Adam'"),
        ({"data": [(X, Y)] * 3}, r"'list of 2 batches'\}, got \{'train': 'list of 3 batches"),
        ({"scheduler": plateau}, "the scheduler it was written with, None, got 'Reduce"),
        ({"callbacks": [object()]}, "the callbacks it was written with"),
        ({"ema_decay": 0.9}, "the moving average it was written with, False, got True"),
        (
            {"use_amp": True, "amp_dtype": torch.float16},
            "the loss scaler it was written with, False, got True",
        ),
    ],
    ids=["optimizer", "loader", "scheduler", "callbacks", "average", "scaler"],
)
def test_a_checkpoint_of_another_run_is_refused_and_nothing_is_lost(
    run, seeded, weights, tmp_path, other, sentence
):
    run().fit()
    before = sorted(path.name for path in left(tmp_path / "kept"))
    trainer = run(**other)
    with pytest.raises(CheckpointError, match=sentence):
        trainer.fit(resume_from="auto")
    assert torch.equal(weights(trainer.model), weights(seeded()))
    assert sorted(path.name for path in left(tmp_path / "kept")) == before


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


def test_on_a_disk_that_is_full_training_goes_on_and_older_ones_stay(tmp_path):
    program = f"""
import resource, sys, warnings
import torch
from zeroproof.layers import ProjectiveMLP
from zeroproof.training import SCMTrainer, SCMTrainingLoss, TrainingConfig, find_checkpoint
model, x = ProjectiveMLP(1, 1), torch.linspace(-1, 1, 8)[:, None]
optimizer = torch.optim.Adam(model.parameters())
config = TrainingConfig(max_epochs=3, progress=False, checkpoint_dir={str(tmp_path)!r})
class Fill:
    def on_epoch_end(self, trainer):
        if trainer.epoch == 1:  # no file may grow beyond that, as on a disk with little room
            resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
data, loss_fn = [(x, x)], SCMTrainingLoss()
trainer = SCMTrainer(model, optimizer, loss_fn, data, config=config, callbacks=[Fill()])
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    assert len(trainer.fit()) == 3
said = [str(each.message) for each in said if "no checkpoint could be written" in str(each.message)]
assert len(said) == 3, said  # after the second and third epoch, and at the end
assert all("tensors could not be written" in each for each in said), said
assert [path.name for path in trainer.checkpoint.parent.glob("[!.]*")] == ["step-000000001"]
assert find_checkpoint({str(tmp_path)!r})[1]["progress"]["step"] == 1
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 0, ended.stderr[-2000:]


HARMS = {
    "nan": lambda state: state["progress"].update(seconds=math.nan),
    "no counts": lambda state: state.pop("progress"),
    "a word": lambda state: state["progress"].update(seconds={"$float": "abc"}),
    "no process": lambda state: state.update(processes=[]),
    "groups": lambda state: state["optimizer"].update(param_groups=[]),
    "random": lambda state: state["processes"][0]["now"].update(torch=[1, 2]),
    "sums": lambda state: state["processes"][0].update(sums=[1] * 99),
}


@pytest.mark.parametrize("harm", HARMS)
def test_whatever_is_wrong_in_a_state_the_one_before_is_taken(run, tmp_path, weights, harm):
    whole = run()
    whole.fit()
    shutil.rmtree(tmp_path / "kept")
    first = run()
    first.fit()
    last = list_checkpoints(tmp_path / "kept")[0]
    edited(last, lambda record: HARMS[harm](record["state"]))
    again = run()
    with pytest.warns(UserWarning, match="a damaged checkpoint is left out: .*step-000000004"):
        again.fit(resume_from="auto")
    assert again.step == 4
    assert len(again.history) == 2
    assert torch.equal(weights(again.model), weights(whole.model))


def test_a_state_that_cannot_be_set_changes_nothing(run, seeded, tmp_path, weights):
    run().fit()
    for path in list_checkpoints(tmp_path / "kept"):
        edited(path, lambda record: HARMS["sums"](record["state"]))
    trainer = run()
    before = torch.get_rng_state()
    with pytest.raises(DamagedCheckpointError, match="must hold the state of a run, but: TypeErr"):
        trainer.fit(resume_from=list_checkpoints(tmp_path / "kept")[0])
    assert torch.equal(weights(trainer.model), weights(seeded()))
    assert trainer.optimizer.state == {}
    assert (trainer.step, trainer.history) == (0, [])
    assert torch.equal(torch.get_rng_state(), before)


def test_what_is_damaged_again_and_again_is_put_aside_each_time(run, tmp_path):
    for _ in range(3):
        with pytest.warns(UserWarning, match="damaged|begins anew"):
            run(max_epochs=1).fit(resume_from="auto")
        for path in list_checkpoints(tmp_path / "kept"):
            cut(path, "state.json")
    with pytest.warns(UserWarning, match="damaged"):
        run(max_epochs=1).fit(resume_from="auto")
    names = sorted(path.name for path in left(tmp_path / "kept"))
    one = "damaged-step-000000002"
    assert names == [one, f"{one}-2", f"{one}-3", "step-000000002"]


class Halved(torch.optim.SGD):
    """Keeps beside its groups what a copy lacks."""

    def __init__(self, parameters, lr):
        super().__init__(parameters, lr=lr)
        self.factor = 0.5

    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p.grad.mul_(self.factor)
        return super().step(closure)


class Embedded(nn.Module):
    """Has sparse gradients alone."""

    def __init__(self):
        super().__init__()
        self.rows = nn.Embedding(24, 2, sparse=True)

    def forward(self, x):
        N, D = self.rows(((x[:, 0] + 1) * 11.5).round().long()).chunk(2, -1)
        return N, D


@pytest.mark.parametrize(
    ("optimizer", "kind"), [(Halved, None), (torch.optim.SparseAdam, Embedded)], ids=str
)
def test_an_optimizer_that_a_copy_cannot_try_goes_on_all_the_same(
    run, weights, tmp_path, optimizer, kind
):
    def built(**options):
        torch.manual_seed(0)
        return run(model=kind and kind(), optimizer=optimizer, **options)

    whole = built(checkpoint_dir=tmp_path / "whole", max_epochs=4)
    whole.fit()
    built().fit()
    again = built(max_epochs=4)
    again.fit(resume_from="auto")
    assert again.step == 8
    assert torch.equal(weights(whole.model), weights(again.model))
