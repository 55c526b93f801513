"""Blocks on two processes: the same fit as one process gives that holds all of them."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from zeroproof import ProjectiveRegressor

WORKER = """
import sys, numpy as np, torch
import torch.distributed as dist
from zeroproof import ProjectiveRegressor
from zeroproof.errors import ZeroProofError
folder, rank = sys.argv[1], int(sys.argv[2])
dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
cases, answers = torch.load(f"{folder}/cases.pt", weights_only=False), {}
for name, (options, X, y, shares) in cases.items():
    begin, end = (0, shares[0]) if rank == 0 else (shares[0], sum(shares))
    rows = range(begin, end, 100)
    blocks = [(X[i : min(i + 100, end)], y[i : min(i + 100, end)]) for i in rows]
    try:
        model = ProjectiveRegressor(**options).fit_batches(blocks)
    except ZeroProofError as error:
        answers[name] = str(error)
    else:
        fit = model.fitted_.fit
        N, D = fit.model.tuples(torch.from_numpy(X[:200]))
        answers[name] = N, D, model.fitted_.sign, fit.power
torch.save(answers, f"{folder}/answers{rank}.pt")
dist.destroy_process_group()
"""
RNG = np.random.default_rng(0)
PLANE = RNG.uniform(-1, 1, (1200, 2))
LINE = RNG.uniform(-1, 1, (1200, 1))
NOISY = np.sin(PLANE @ [2.0, 1.0]) + 0.1 * RNG.normal(size=1200)
HOLES = np.where(RNG.random(1200) < 0.3, np.nan, NOISY)
FIXED = {"features": "polynomial", "degrees": (2, 0), "polish": "none"}
BELL = 1 / (LINE[:, 0] ** 2 + 0.3) * (1 + 0.05 * RNG.normal(size=1200))
CASES = {
    "halves": (FIXED, PLANE, NOISY, (600, 600)),
    "unequal": (FIXED, PLANE, NOISY, (1150, 50)),
    "no row on one": (FIXED, PLANE, NOISY, (0, 1200)),
    "two outputs": (FIXED, PLANE, np.c_[NOISY, NOISY + PLANE[:, 0]], (700, 500)),
    "complex": (FIXED, PLANE, NOISY + 1j * PLANE[:, 0], (700, 500)),
    "missing": ({**FIXED, "missing": "drop"}, PLANE, HOLES, (700, 500)),
    "affine": ({"degrees": (0, 2), "topology": "affine"}, LINE, BELL, (700, 500)),
}
SPOILED = np.where(np.arange(1200) == 900, np.nan, PLANE[:, 0])
REFUSED = {
    "bad row": (FIXED, np.c_[SPOILED, PLANE[:, 1]], NOISY, (700, 500)),
    "no row": (FIXED, PLANE, NOISY, (0, 0)),
}
pytestmark = pytest.mark.xdist_group("batches")  # what is run for all of them, is run once


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    torch.save({**CASES, **REFUSED}, folder / "cases.pt")
    command = [sys.executable, "-c", WORKER, str(folder)]
    workers = [subprocess.Popen([*command, str(rank)]) for rank in range(2)]
    assert [worker.wait(timeout=120) for worker in workers] == [0, 0]
    return [torch.load(folder / f"answers{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("name", CASES)
def test_processes_that_share_the_rows_find_what_one_finds(answers, name):
    options, X, y, _ = CASES[name]
    blocks = [(X[i : i + 100], y[i : i + 100]) for i in range(0, 1200, 100)]
    alone = ProjectiveRegressor(**options).fit_batches(blocks).fitted_
    first, second = (each[name] for each in answers)
    assert all(map(torch.equal, first[:3], second[:3]))
    N, D = alone.fit.model.tuples(torch.from_numpy(X[:200]))
    torch.testing.assert_close(first[0], N, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(first[1], D, rtol=1e-10, atol=1e-10)
    assert torch.equal(first[2], alone.sign)
    assert first[3] == second[3] == alone.fit.power


def test_an_error_on_one_process_ends_all(answers):
    first, second = (each["bad row"] for each in answers)
    assert second == "X must be finite, got inf or NaN in a batch"
    assert first == f"process 1 could not use its rows: {second}"


def test_no_row_on_any_process_is_said_on_all(answers):
    message = "batches must hold at least one row, got none"
    assert [each["no row"] for each in answers] == [message, message]
