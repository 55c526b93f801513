"""The readout of a trained trunk on two processes, each with its own rows."""

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from tests.training.processes_worker import readout_net, readout_rows
from zeroproof.training import head_readout

X, Y = readout_rows()
pytestmark = pytest.mark.xdist_group("processes")  # what is run for all of them, is run once


@pytest.fixture(name="readouts")
def readouts_of_two(answers):
    return [each["readouts"] for each in answers[1:]]


def assert_alike(readouts, model, result):
    first, second = readouts
    assert first[0] == second[0]
    assert all(map(torch.equal, first[1], second[1]))
    assert result.kept
    assert first[0][0] is True
    assert first[0][3] == result.rho
    assert first[0][1:3] == pytest.approx(result[1:3], rel=1e-9)
    for got, exact in zip(first[1], model.parameters(), strict=True):
        torch.testing.assert_close(got, exact.detach(), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", ["halves", "unequal"])
def test_processes_that_share_the_rows_get_the_head_of_one(readouts, name):
    model = readout_net()
    result = head_readout(model, [(X, Y)])
    assert_alike([each[name] for each in readouts], model, result)


def test_the_readout_of_a_trainer_is_of_the_rows_of_all_processes(readouts):
    model = readout_net()
    model.load_state_dict(readouts[0]["trainer"][2])  # as training on both left it
    loader = DataLoader(TensorDataset(X, Y), batch_size=16)
    result = head_readout(model, loader, scale=1.0)
    assert_alike([each["trainer"][:2] for each in readouts], model, result)


def test_a_process_without_rows_is_said_on_all_and_nothing_changes(readouts):
    first, second = (each["no row"] for each in readouts)
    assert second == "loader must yield at least one batch (x, y) with rows, got none"
    assert first == f"process 1 could not use its rows: {second}"
    assert all(each["untouched"] for each in readouts)
