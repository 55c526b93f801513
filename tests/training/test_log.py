"""What a run writes down while it goes on, and where."""

import csv
import json
import shutil

import pytest
import torch
from accelerate import Accelerator
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from zeroproof.errors import TrainingError
from zeroproof.training import SCMTrainer, SCMTrainingLoss, TrainingConfig

X = torch.linspace(-1, 1, 24)[:, None]
Y = 1 / (X - 0.3)
FIT = SCMTrainingLoss(normalizer="chordal", lambda_margin=0, lambda_sign=0, lambda_rejection=0)


@pytest.fixture
def run(seeded, tmp_path):
    def build(accelerator=None, callbacks=(), loss_fn=FIT, data=((X, Y),) * 4, **options):
        model = seeded()
        options = {"max_epochs": 2, "progress": False, "log_every": 3, **options}
        return SCMTrainer(
            model,
            torch.optim.SGD(model.parameters(), lr=0.05),
            loss_fn,
            list(data),
            [(X, Y)],
            config=TrainingConfig(**options),
            accelerator=accelerator,
            callbacks=callbacks,
        )

    return build


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_steps_and_epochs_are_lines_and_the_history_is_a_table(run, tmp_path):
    history = run(log_dir=tmp_path / "log").fit()
    steps, epochs = (lines(tmp_path / "log" / f"{name}.jsonl") for name in ("steps", "epochs"))
    assert [row["step"] for row in steps] == [3, 6]
    assert {"train_loss", "train_coverage", "train_gap", "skipped_steps", "lr"} < steps[0].keys()
    assert [(row.pop("epoch"), row.pop("step")) for row in epochs] == [(0, 4), (1, 8)]
    assert epochs == history
    with (tmp_path / "log" / "history.csv").open(encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert [float(row["val_loss"]) for row in table] == [row["val_loss"] for row in history]


def test_a_line_is_the_mean_of_the_steps_since_the_one_before(run, tmp_path):
    values = iter([1.0, 2.0, 6.0, 5.0, 7.0, 9.0])

    def loss_fn(outputs, targets):
        zero = 0 * outputs[0].sum()
        return zero + (next(values) if outputs[0].requires_grad else 0.0)

    run(loss_fn=loss_fn, data=[(X, Y)] * 6, max_epochs=1, log_dir=tmp_path).fit()
    assert [row["train_loss"] for row in lines(tmp_path / "steps.jsonl")] == [3.0, 7.0]


def test_a_value_that_is_not_finite_is_null(run, tmp_path):
    class Infinite:
        def on_epoch_end(self, trainer):
            trainer.row["own"] = float("inf")

    run(callbacks=[Infinite()], log_dir=tmp_path).fit()
    assert lines(tmp_path / "epochs.jsonl")[0]["own"] is None


def test_thresholds_that_differ_are_counted_in_bins(run, tmp_path):
    trainer = run(tau_train_min=1e-4, tau_train_max=1e-3, log_dir=tmp_path)
    trainer.fit()
    row = lines(tmp_path / "epochs.jsonl")[1]
    assert (sum(row["tau_train_counts"]), len(row["tau_train_edges"])) == (4, 33)
    assert row["tau_train_counts"] == trainer.thresholds.counts


def test_lines_of_another_run_are_put_aside(run, tmp_path):
    for _ in range(3):
        run(log_dir=tmp_path).fit()
    names = sorted(path.name for path in tmp_path.glob("steps*.jsonl"))
    assert names == ["steps-1.jsonl", "steps-2.jsonl", "steps.jsonl"]
    assert len({(tmp_path / name).read_text() for name in names}) == 1


def test_a_folder_that_cannot_be_is_found_before_the_first_step(run, tmp_path):
    (tmp_path / "log").write_text("a file")
    with pytest.raises(TrainingError, match=r"log_dir must be a folder .* got .*exists"):
        run(log_dir=tmp_path / "log").fit()


def test_a_folder_that_vanishes_does_not_end_the_run(run, tmp_path):
    class Vanish:
        def on_epoch_begin(self, trainer):
            shutil.rmtree(tmp_path / "log", ignore_errors=True)

    with pytest.warns(UserWarning, match="a log line could not be written"):
        history = run(callbacks=[Vanish()], log_dir=tmp_path / "log").fit()
    assert len(history) == 2


@pytest.mark.parametrize("value", ["text", [1.0], torch.ones(2)], ids=["text", "list", "tensor"])
def test_a_row_holds_numbers_alone(run, tmp_path, value):
    class Odd:
        def on_epoch_end(self, trainer):
            trainer.row["own"] = value

    with pytest.raises(TrainingError, match="must be a number, got"):
        run(callbacks=[Odd()], log_dir=tmp_path).fit()


def test_a_run_that_goes_on_drops_what_it_will_write_again(run, tmp_path):
    class Leave:
        def on_batch_end(self, trainer):
            if trainer.step == 7:
                raise KeyboardInterrupt

    class Stay:
        pass

    Stay.__name__ = "Leave"
    place = {"checkpoint_dir": tmp_path / "kept", "checkpoint_every_steps": 5}
    with pytest.raises(KeyboardInterrupt):
        run(callbacks=[Leave()], log_dir=tmp_path / "log", **place).fit()
    with (tmp_path / "log" / "steps.jsonl").open("a") as file:
        file.write('{"step": 6, "tr')  # killed while it wrote
    run(callbacks=[Stay()], log_dir=tmp_path / "log", **place).fit(resume_from="auto")
    assert [row["step"] for row in lines(tmp_path / "log" / "steps.jsonl")] == [3, 6]
    assert [row["epoch"] for row in lines(tmp_path / "log" / "epochs.jsonl")] == [0, 1]


def test_a_tracker_of_accelerate_gets_the_same(run, tmp_path):
    accelerator = Accelerator(log_with="tensorboard", project_dir=tmp_path)
    history = run(accelerator).fit()
    (folder,) = {path.parent for path in tmp_path.rglob("events.out.tfevents*")}
    events = EventAccumulator(str(folder)).Reload()
    assert {"step/train_loss", "epoch/val_loss", "epoch/train_coverage"} <= set(
        events.Tags()["scalars"]
    )
    read = [(event.step, event.value) for event in events.Scalars("epoch/val_loss")]
    expected = [(4 * (i + 1), row["val_loss"]) for i, row in enumerate(history)]
    assert read == [(step, pytest.approx(value, rel=1e-6)) for step, value in expected]
    assert [event.step for event in events.Scalars("step/train_loss")] == [3, 6]


def test_without_a_place_nothing_is_written(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run().fit()
    assert list(tmp_path.iterdir()) == []
