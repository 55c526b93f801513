"""A folder of checkpoints belongs to one run at a time, and to nobody once its process is gone."""

import errno
import fcntl
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.training.conftest import run_bare
from zeroproof.errors import CheckpointError
from zeroproof.layers import ProjectiveHead
from zeroproof.training import (
    Callback,
    SCMTrainer,
    SCMTrainingLoss,
    TrainingConfig,
    list_checkpoints,
)

# several processes import torch at once, so one worker makes these tests
pytestmark = pytest.mark.xdist_group("one run")
ANOTHER = "must belong to one run at a time, but another one is writing to .* choose another folder"
# waits before its fourth step until it is told to go on
PROGRAM = """
import os
import sys
import time
import warnings
from pathlib import Path

import torch
from torch.utils.data import DataLoader, TensorDataset

from zeroproof.errors import CheckpointError
from zeroproof.layers import ProjectiveHead
from zeroproof.training import Callback, SCMTrainer, SCMTrainingLoss, TrainingConfig

place, resume, workers = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])


def tell(word, text=""):
    (place / f"{word}-{os.getpid()}").write_text(text)


def wait_for(word):
    while not (place / word).exists():
        time.sleep(0.001)


class Wait(Callback):
    def on_batch_begin(self, trainer):
        if trainer.step == 3:
            tell("trains")
            wait_for("go")


x = torch.linspace(-1, 1, 16)[:, None]
loader = DataLoader(TensorDataset(x, 1 / (x - 0.3)), batch_size=4, num_workers=workers)
model = ProjectiveHead(1, 1)
trainer = SCMTrainer(
    model,
    torch.optim.SGD(model.parameters(), lr=0.1),
    SCMTrainingLoss(),
    loader,
    config=TrainingConfig(max_epochs=2, progress=False, checkpoint_dir=place / "kept"),
    callbacks=[Wait()],
)
tell("ready")
wait_for("start")
try:
    trainer.fit(resume_from=resume or None)
except CheckpointError as error:
    tell("refused", f"{trainer.step} steps: {error}")
"""

REFUSED = """
import sys

import torch

from zeroproof.errors import CheckpointError
from zeroproof.layers import ProjectiveHead
from zeroproof.training import SCMTrainer, SCMTrainingLoss, TrainingConfig

model, x = ProjectiveHead(1, 1), torch.ones(4, 1)
config = TrainingConfig(max_epochs=1, progress=False, checkpoint_dir=sys.argv[1])
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
trainer = SCMTrainer(model, optimizer, SCMTrainingLoss(), [(x, x)], config=config)
try:
    trainer.fit()
except CheckpointError as error:
    assert "one run at a time" in str(error)
    assert trainer.step == 0
else:
    raise AssertionError("it was not refused")
"""


@pytest.fixture
def start(tmp_path):
    runs = []

    def begin(resume="", workers=0):
        command = [sys.executable, "-W", "ignore", "-c", PROGRAM, tmp_path, resume, str(workers)]
        runs.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
        return runs[-1]

    yield begin
    for run in runs:
        run.kill()
        run.wait()
        run.stderr.close()


@pytest.fixture
def told(tmp_path):
    def wait(word, count=1):
        end = time.monotonic() + 120
        while len(found := list(tmp_path.glob(f"{word}-*"))) < count:
            assert time.monotonic() < end, word
            time.sleep(0.01)
        return found

    return wait


@pytest.fixture
def build(tmp_path):
    def trainer(*callbacks):
        model, x = ProjectiveHead(1, 1), torch.linspace(-1, 1, 16)[:, None]
        options = {"max_steps": 1, "progress": False, "checkpoint_dir": tmp_path / "kept"}
        return SCMTrainer(
            model,
            torch.optim.SGD(model.parameters(), lr=0.1),
            SCMTrainingLoss(),
            [(x, 1 / (x - 0.3))],
            config=TrainingConfig(**options),
            callbacks=callbacks,
        )

    return trainer


def test_of_two_runs_that_start_at_once_one_trains(tmp_path, start, told):
    runs = [start(), start("auto")]
    told("ready", 2)
    (tmp_path / "start").touch()
    told("trains")
    (refused,) = told("refused")
    (tmp_path / "go").touch()
    for each in runs:
        _, said = each.communicate(timeout=120)
        assert each.returncode == 0, said
    assert refused.read_text().startswith(
        "0 steps: checkpoint_dir must belong to one run at a time"
    )
    assert len(told("trains")) == 1
    names = [path.name for path in list_checkpoints(tmp_path / "kept")]
    assert names == ["step-000000008", "step-000000004"]


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="asks Linux for the workers")
def test_the_folder_of_a_killed_run_is_free_at_once_though_its_workers_live(
    tmp_path, start, told, build
):
    run = start(workers=2)
    (tmp_path / "start").touch()
    told("trains")
    with pytest.raises(CheckpointError, match=ANOTHER):
        build().fit(resume_from="auto")
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    run.kill()  # as SIGKILL
    run.wait()
    trainer = build()
    with pytest.warns(UserWarning, match="holds no checkpoint; the run begins anew"):
        trainer.fit(resume_from="auto")
    assert trainer.step == 1
    assert len(children) == 2
    for child in map(int, children):
        os.kill(child, 0)  # is there


def test_a_run_within_a_run_of_one_process_is_refused_and_one_after_the_other_works(build):
    refused = []

    class Nested(Callback):
        def on_epoch_end(self, trainer):
            with pytest.raises(CheckpointError, match=ANOTHER) as error:
                build().fit(resume_from="auto")
            refused.append(error)

    outer = build(Nested())
    outer.fit()
    assert len(refused) == 1
    assert outer.step == 1
    for trainer in (outer, build(Nested())):
        trainer.fit(resume_from="auto")
        assert trainer.step == 1


def lose_folder(kept):
    shutil.rmtree(kept)


def lose_lock(kept):
    (kept / ".lock").unlink()


@pytest.mark.parametrize("lose", [lose_folder, lose_lock])
def test_a_folder_that_was_lost_is_held_anew_from_the_next_checkpoint_on(build, tmp_path, lose):
    class Lose(Callback):
        def on_batch_end(self, trainer):
            lose(tmp_path / "kept")

        def on_checkpoint_end(self, trainer):
            with pytest.raises(CheckpointError, match=ANOTHER):
                build().fit(resume_from="auto")

    trainer = build(Lose())
    trainer.fit()
    assert list_checkpoints(tmp_path / "kept") == [trainer.checkpoint]
    assert build(Lose()).fit(resume_from="auto") == trainer.history  # nobody holds it


@pytest.mark.parametrize("lose", [lose_folder, lose_lock])
def test_a_run_whose_folder_another_one_took_ends_and_prunes_nothing(build, tmp_path, lose):
    seen = []

    class Outer(Callback):
        def on_batch_end(self, trainer):
            lose(tmp_path / "kept")
            build(Inner(trainer)).fit()

    class Inner(Callback):
        def __init__(self, outer):
            self.outer = outer

        def on_checkpoint_end(self, trainer):
            with pytest.raises(CheckpointError, match=ANOTHER):
                self.outer._checkpoints.save()
            seen.append(list_checkpoints(tmp_path / "kept") == [trainer.checkpoint])

    build(Outer()).fit()
    assert seen == [True]


def test_a_run_that_ended_with_an_error_leaves_the_folder_free(build):
    class Fail(Callback):
        def on_batch_end(self, trainer):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        build(Fail()).fit()
    assert len(build().fit()) == 1


def test_all_processes_of_a_second_run_are_refused(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(REFUSED)
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2"]
    (tmp_path / "kept").mkdir()
    with (tmp_path / "kept" / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        run_bare([sys.executable, *launcher, str(program), str(tmp_path / "kept")])
    assert list_checkpoints(tmp_path / "kept") == []


def test_where_a_folder_cannot_be_locked_a_warning_says_so_and_the_run_goes_on(build, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", refuse)  # no such file system is at hand
    with pytest.warns(UserWarning, match=r"cannot be locked .*see to it that no second run"):
        assert len(build().fit()) == 1
