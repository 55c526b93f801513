"""Two processes make the same run as one with the same global batches."""

import pytest
import torch

from tests.training.conftest import run_processes

SAME = [
    "shuffled",
    "uneven",
    "one short batch",
    "fewer rows than one batch",
    "dropped",
    "accumulated",
    "any loss",
    "no finite row on one",
    "bad inputs",
    "bad inside",
    "bad, accumulated",
    "clipped",
    "clamped",
    "averaged",
    "too little coverage",
    "lists",
    "no batch on one",
    "weights on one",
]
pytestmark = pytest.mark.xdist_group("processes")  # what is run for all of them, is run once


@pytest.mark.parametrize("name", SAME)
def test_two_processes_make_the_run_of_one(answers, name):
    (history, weights, reason, steps), *others = (each[name] for each in answers)
    for rows, theirs, their_reason, their_steps in others:
        assert (their_reason, their_steps, len(rows)) == (reason, steps, len(history))
        for row, expected in zip(rows, history, strict=True):
            assert row == pytest.approx(expected, rel=1e-5, abs=1e-7)
        torch.testing.assert_close(theirs, weights, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [*SAME, "stopped by one", "bfloat16"])
def test_both_processes_tell_the_same_to_the_bit(answers, name):
    first, second = (each[name] for each in answers[1:])
    assert first[0] == second[0]
    assert torch.equal(first[1], second[1])
    assert first[2:] == second[2:]


def test_the_cases_are_what_they_say(answers):
    alone = answers[0]
    assert alone["too little coverage"][2] == "coverage"
    assert alone["no finite row on one"][0][0]["masked_rows"] == 48
    for name, masked in (("bad inputs", 9), ("bad inside", 3), ("bad, accumulated", 3)):
        row = alone[name][0][0]
        assert (row["masked_rows"], row["skipped_steps"]) == (masked, 0), name
    assert alone["shuffled"][0][0]["tau_train_std"] > 0
    assert alone["clipped"][0][0]["grad_norm"] > 0.05
    assert {name: alone[name][3] for name in ("uneven", "dropped", "accumulated")} == {
        "uneven": 9,
        "dropped": 6,
        "accumulated": 6,
    }


def test_what_a_callback_of_one_process_asks_for_all_do_after_the_epoch(answers):
    assert [each["stopped by one"][2:] for each in answers[1:]] == [("asked", 6)] * 2
    assert answers[0]["stopped by one"][2:] == ("asked", 2)  # at once where nobody waits


@pytest.mark.parametrize("place", ["in an epoch", "in a validation", "after a wish"])
@pytest.mark.parametrize("process", [0, 1, 2])
def test_a_run_that_was_left_ends_as_one_that_was_not(answers, process, place):
    whole, resumed = answers[process][f"left {place}"]
    assert whole[0] == resumed[0]
    assert torch.equal(whole[1], resumed[1])
    assert whole[2:] == resumed[2:]


def test_bfloat16_on_two_processes_stays_near(answers):
    history, theirs = answers[0]["bfloat16"][0], answers[1]["bfloat16"][0]
    assert theirs[-1]["val_loss"] == pytest.approx(history[-1]["val_loss"], rel=0.05)


def test_weights_spread_over_processes_make_the_same_epoch(answers):
    expected = answers[0]["clipped"][0][0]
    for each in answers[1:]:
        row, kind, shape = each["sharded"]
        assert (kind, shape) == ("DTensor", (1, 8))
        clockless = {key: value for key, value in row.items() if not key.startswith("time_")}
        assert clockless == pytest.approx(expected, rel=1e-5)
        assert each["sharded checkpoint"].startswith("checkpoint_dir must be None for weights")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("written by one", "must be resumed with the processes it was written with, 1, got 2"),
        (
            "no batch at all",
            "train_loader must yield at least one batch (x, y) with rows, got none",
        ),
    ],
)
def test_what_one_process_cannot_do_is_said_on_both(answers, name, sentence):
    assert all(sentence in each[name] for each in answers[1:])


@pytest.mark.slow
def test_torchrun_starts_the_same_runs(answers, tmp_path):
    run_processes(tmp_path, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    for rank in range(2):
        started = torch.load(tmp_path / f"answers2-{rank}.pt")
        for name in SAME:
            history, weights, *rest = started[name]
            expected = answers[1 + rank][name]
            assert (history, rest) == (expected[0], list(expected[2:]))
            assert torch.equal(weights, expected[1])
