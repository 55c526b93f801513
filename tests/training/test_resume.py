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
    "plain": [14, "writing 2", "renaming 3"],
    "own generator": [9],
    "workers": [9],
    "float16": [9],
    "accumulated": [6],
    "after epochs": [20],
    "adaptive": [10],
    "before validation": ["validating 2"],
    "own loss": [9],
}
MORE = {
    "plain": [3, 4, 7, 13, 26, 50, "removing 4"],
    "workers": [16],
    "adaptive": [30],
    "before validation": [13],
    "no seed": [7],
}
CASES = [
    pytest.param(name, moment, id=f"{name}-{moment}", marks=marks)
    for moments_of, marks in ((MOMENTS, ()), (MORE, pytest.mark.slow))
    for name, moments in moments_of.items()
    for moment in moments
]
pytestmark = pytest.mark.xdist_group("killed")  # what is run for all of them, is run once


@pytest.fixture(scope="module")
def answers(request, tmp_path_factory):
    asked = {}  # of the tests that were chosen
    for item in request.session.items:
        if item.path == request.path:
            name, moment = item.callspec.params["name"], item.callspec.params["moment"]
            asked.setdefault(name, []).append(moment)
    folder = tmp_path_factory.mktemp("killed")
    command = [
        sys.executable,
        "-W",
        "ignore::UserWarning",
        str(WORKER),
        str(folder),
        json.dumps(asked),
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


@pytest.mark.parametrize(("name", "moment"), CASES)
def test_what_was_killed_ends_as_what_was_not(answers, name, moment):
    whole, resumed = (torch.load(answers / f"{x}.pt") for x in (name, f"{name} {moment}"))
    assert_same(resumed, whole)
    assert len(whole["history"]) == 4
    # two whole checkpoints are left, and nothing else but the file by which a run holds its folder
    names = sorted(path.name for path in (answers / name / str(moment) / "kept").iterdir())
    assert len(names) == 3
    assert names[0] == ".lock"
    assert all(name.startswith("step-") for name in names[1:])
