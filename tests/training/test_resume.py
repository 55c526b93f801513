"""A run that was killed and taken up again ends with the same bits as one that was not."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

WORKER = Path(__file__).with_name("resume_worker.py")
# what happens to a run: killed after a step, in a validation, or while a checkpoint is written
MOMENTS = {
    "plain": [3, 4, 7, 13, 14, 26, 50, "writing 2", "renaming 3", "removing 4"],
    "own generator": [9],
    "workers": [9, 16],
    "float16": [9],
    "accumulated": [6],
    "after epochs": [20],
    "adaptive": [10, 30],
    "before validation": [13, "validating 2"],
    "own loss": [9],
    "no seed": [7],
}
CASES = [(name, moment) for name, moments in MOMENTS.items() for moment in moments]
pytestmark = pytest.mark.xdist_group("killed")  # what is run for all of them, is run once


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("killed")
    command = [
        sys.executable,
        "-W",
        "ignore::UserWarning",
        str(WORKER),
        str(folder),
        json.dumps(MOMENTS),
    ]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return folder


def assert_same(one, other, place="answer"):
    assert type(one) is type(other), place
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), place
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), place
        for key in one:
            assert_same(one[key], other[key], f"{place}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), place
        for index, pair in enumerate(zip(one, other, strict=True)):
            assert_same(*pair, f"{place}.{index}")
    else:
        assert one == other, place


@pytest.mark.parametrize(("name", "moment"), CASES, ids=str)
def test_what_was_killed_ends_as_what_was_not(answers, name, moment):
    whole, resumed = (torch.load(answers / f"{x}.pt") for x in (name, f"{name} {moment}"))
    assert_same(resumed, whole)
    assert len(whole["history"]) == 4


@pytest.mark.parametrize(("name", "moment"), CASES, ids=str)
def test_two_whole_checkpoints_are_left_and_nothing_else(answers, name, moment):
    names = sorted(path.name for path in (answers / name / str(moment) / "kept").iterdir())
    assert len(names) == 2
    assert all(name.startswith("step-") for name in names)
