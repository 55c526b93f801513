"""The documented command, `torchrun --nproc-per-node 2 program.py`, starts one run of two."""

import json
import sys
from pathlib import Path

import pytest
import torch

from tests.training.conftest import run_bare
from zeroproof.training import list_checkpoints

PROGRAM = """
import json
import sys
from pathlib import Path

import torch
from torch.utils.data import DataLoader, TensorDataset

from zeroproof.data import TableStream
from zeroproof.layers import ProjectiveMLP
from zeroproof.training import SCMTrainer, SCMTrainingLoss, TrainingConfig

folder, batch_size = Path(sys.argv[1]), int(sys.argv[2])
torch.manual_seed(0)
x = torch.linspace(-1, 1, 64)[:, None]
y = 1 / (x - 0.3)
loader = DataLoader(TensorDataset(x, y), batch_size=batch_size, shuffle=True)
model = ProjectiveMLP(1, 1, hidden=(8,))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
loss_fn = SCMTrainingLoss(normalizer="chordal")
# a head that is solved for may differ where no row tells: in directions without an answer
config = TrainingConfig(
    max_epochs=2, seed=0, progress=False, checkpoint_dir=folder / "kept", readout=None
)
stream = TableStream(folder / "rows.csv", features=["x"], target="y", batch_size=1)
before = stream.state_dict()["stream"]["world_size"]  # asked before there is a group
trainer = SCMTrainer(model, optimizer, loss_fn, loader, loader, config=config)
history = trainer.fit()
rank = trainer.accelerator.process_index
rows = sorted(float(x) for x, _ in stream)
text = {"history": history, "step": trainer.step, "rows": rows, "before": before}
(folder / f"told-{rank}.json").write_text(json.dumps(text))
torch.save([p.detach() for p in model.parameters()], folder / f"weights-{rank}.pt")
"""
PLAIN = """
import os
import sys
from pathlib import Path

import torch
from accelerate import Accelerator

from zeroproof.errors import TrainingError
from zeroproof.layers import ProjectiveHead
from zeroproof.training import SCMTrainer, SCMTrainingLoss

plain = Accelerator()
model = ProjectiveHead(1, 1)
optimizer, batch = torch.optim.SGD(model.parameters()), (torch.ones(2, 1),) * 2
said = []
for given in (plain, None):
    try:
        SCMTrainer(model, optimizer, SCMTrainingLoss(), [batch], accelerator=given)
    except TrainingError as error:
        said.append(str(error))
Path(sys.argv[1], f"said-{os.environ['RANK']}.txt").write_text("\\n".join(said))
"""
pytestmark = pytest.mark.xdist_group("processes")


def start(folder, program, processes, *arguments):
    file = folder / "program.py"
    file.write_text(program)
    launcher = [sys.executable]
    if processes > 1:
        torchrun = Path(sys.executable).with_name("torchrun")
        launcher = [str(torchrun), "--standalone", "--nproc-per-node", str(processes)]
    run_bare([*launcher, str(file), str(folder), *arguments])


def test_an_unchanged_program_makes_the_run_of_one_process(tmp_path):
    told, weights = [], []
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        folder.mkdir()
        (folder / "rows.csv").write_text("x,y\n" + "".join(f"{i},1\n" for i in range(10)))
        start(folder, PROGRAM, processes, str(16 // processes))
        for rank in range(processes):
            told.append(json.loads((folder / f"told-{rank}.json").read_text()))
            weights.append(torch.load(folder / f"weights-{rank}.pt"))
    assert [each["step"] for each in told] == [8, 8, 8]
    assert [each["before"] for each in told] == [1, 2, 2]
    for other, theirs in zip(told[1:], weights[1:], strict=True):
        for row, expected in zip(other["history"], told[0]["history"], strict=True):
            shown = {key: x for key, x in expected.items() if not key.startswith("time_")}
            assert {key: row[key] for key in shown} == pytest.approx(shown, rel=1e-5, abs=1e-9)
        for weight, expected in zip(theirs, weights[0], strict=True):
            torch.testing.assert_close(weight, expected, rtol=1e-5, atol=1e-6)
    assert sorted(told[1]["rows"] + told[2]["rows"]) == told[0]["rows"]
    assert min(len(each["rows"]) for each in told[1:]) > 0
    assert len(list_checkpoints(tmp_path / "2" / "kept")) == 2  # written by one


def test_processes_that_accelerate_was_not_told_of_are_refused_with_the_line_to_write(tmp_path):
    start(tmp_path, PLAIN, 2)
    for rank in range(2):
        said = (tmp_path / f"said-{rank}.txt").read_text().splitlines()
        assert len(said) == 2  # handed in, and made earlier in the program
        for sentence in said:
            assert "got 2 by WORLD_SIZE, " in sentence
            assert ", 1 by Accelerate; start" in sentence
            assert "write Accelerator(cpu=True) where it makes its first accelerator" in sentence
