"""The readout of a trained trunk on two processes, each with its own rows."""

import os
import socket
import subprocess
import sys

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from zeroproof.layers import ProjectiveMLP
from zeroproof.training import head_readout

WORKER = """
import os, sys, torch
from torch.utils.data import DataLoader, TensorDataset
from zeroproof.errors import ZeroProofError
from zeroproof.layers import ProjectiveMLP
from zeroproof.training import SCMTrainer, SCMTrainingLoss, TrainingConfig, head_readout
folder, rank = sys.argv[1], int(os.environ["RANK"])
x, y = torch.load(f"{folder}/rows.pt")

def net():
    torch.manual_seed(0)
    return ProjectiveMLP(1, 1, hidden=(16,)).double()

def outcome(model, result):
    return tuple(result), [p.detach().clone() for p in model.parameters()]

model, config = net(), TrainingConfig(max_epochs=2, progress=False, seed=0, device="cpu")
loader = DataLoader(TensorDataset(x, y), batch_size=16)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
trainer = SCMTrainer(model, optimizer, SCMTrainingLoss(), loader, config=config)
assert trainer.accelerator.num_processes == 2
trainer.fit()
trunk = {name: value.clone() for name, value in model.state_dict().items()}
answers = {"trainer": (*outcome(model, trainer.readout()), trunk)}
for name, share in (("halves", 64), ("unequal", 112)):
    own = (x.split([share, 128 - share])[rank], y.split([share, 128 - share])[rank])
    model = net()
    answers[name] = outcome(model, head_readout(model, [own]))
model = net()
before = [p.clone() for p in model.parameters()]
try:
    head_readout(model, [(x, y)] if rank == 0 else [])
except ZeroProofError as error:
    answers["no row"] = str(error)
answers["untouched"] = all(map(torch.equal, before, model.parameters()))
torch.save(answers, f"{folder}/answers{rank}.pt")
torch.distributed.destroy_process_group()
"""
X = torch.linspace(-1, 1, 128, dtype=torch.float64)[:, None]
Y = torch.sin(2 * X) / (X - 0.3)
Y = Y * (1 + 0.02 * torch.randn(128, 1, generator=torch.Generator().manual_seed(0)).double())


def net():
    torch.manual_seed(0)
    return ProjectiveMLP(1, 1, hidden=(16,)).double()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


pytestmark = pytest.mark.xdist_group("readout")  # what is run for all of them, is run once


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    torch.save((X, Y), folder / "rows.pt")
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(folder)],
            env={**os.environ, **place, "RANK": str(rank), "LOCAL_RANK": str(rank),
                 "ACCELERATE_USE_CPU": "true"},
        )
        for rank in range(2)
    ]  # fmt: skip
    assert [worker.wait(timeout=120) for worker in workers] == [0, 0]
    return [torch.load(folder / f"answers{rank}.pt") for rank in range(2)]


def assert_alike(answers, model, result):
    first, second = answers
    assert first[0] == second[0]
    assert all(map(torch.equal, first[1], second[1]))
    assert result.kept
    assert first[0][0] is True
    assert first[0][3] == result.rho
    assert first[0][1:3] == pytest.approx(result[1:3], rel=1e-9)
    for got, exact in zip(first[1], model.parameters(), strict=True):
        torch.testing.assert_close(got, exact.detach(), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", ["halves", "unequal"])
def test_processes_that_share_the_rows_get_the_head_of_one(answers, name):
    model = net()
    result = head_readout(model, [(X, Y)])
    assert_alike([each[name] for each in answers], model, result)


def test_the_readout_of_a_trainer_is_of_the_rows_of_all_processes(answers):
    model = net()
    model.load_state_dict(answers[0]["trainer"][2])  # as training on both left it
    loader = DataLoader(TensorDataset(X, Y), batch_size=16)
    result = head_readout(model, loader, scale=1.0)
    assert_alike([each["trainer"][:2] for each in answers], model, result)


def test_a_process_without_rows_is_said_on_all_and_nothing_changes(answers):
    first, second = (each["no row"] for each in answers)
    assert second == "loader must yield at least one batch (x, y), got none"
    assert first == f"process 1 could not use its rows: {second}"
    assert all(each["untouched"] for each in answers)
