"""When a trainer calls, what there is to see then, and how a callback ends a run."""

from types import SimpleNamespace

import pytest
import torch

from zeroproof.training import Callback, SCMTrainer, SCMTrainingLoss, TrainingConfig
from zeroproof.training.config import EVENTS

X = torch.linspace(-1, 1, 24)[:, None]
Y = 1 / (X - 0.3)
FIT = SCMTrainingLoss(normalizer="chordal", lambda_margin=0, lambda_sign=0, lambda_rejection=0)


def recorder(seen):
    """Note every event with the epoch and step it came at."""

    def note(event):
        return lambda trainer: seen.append((event, trainer.epoch, trainer.step))

    return SimpleNamespace(**{event: note(event) for event in EVENTS})


@pytest.fixture
def trainer(seeded):
    def build(callbacks, data=2, **options):
        model = seeded()
        loader = options.pop("val_loader", None)
        return SCMTrainer(
            model,
            torch.optim.SGD(model.parameters(), lr=0.05),
            FIT,
            [(X, Y)] * data,
            loader,
            config=TrainingConfig(**{"max_epochs": 1, "progress": False, **options}),
            callbacks=callbacks,
        )

    return build


def test_the_events_come_in_their_order(trainer, tmp_path):
    seen = []
    trainer([recorder(seen)], val_loader=[(X, Y)], checkpoint_dir=tmp_path).fit()
    step = ["on_batch_begin", "on_backward_end", "on_batch_end"]
    assert [event for event, _, _ in seen] == [
        *("on_fit_begin", "on_epoch_begin"),
        *step,
        *step,
        *("on_validate_end", "on_epoch_end", "on_checkpoint_end", "on_fit_end"),
    ]
    assert [(epoch, step) for event, epoch, step in seen if event == "on_batch_end"] == [
        (0, 1),
        (0, 2),
    ]


def test_a_window_of_batches_is_one_batch_to_callbacks(trainer):
    seen = []
    trainer([recorder(seen)], data=5, grad_accumulation_steps=2).fit()
    assert [step for event, _, step in seen if event == "on_batch_end"] == [1, 2, 3]


def test_gradients_are_there_after_backward_and_may_be_changed(trainer, seeded, weights):
    class Silence(Callback):
        def on_backward_end(self, trainer):
            for parameter in trainer.model.parameters():
                assert parameter.grad is not None
                parameter.grad.zero_()

    quiet = trainer([Silence()])
    before = weights(seeded())
    quiet.fit()
    assert torch.equal(weights(quiet.model), before)


def test_the_row_grows_and_may_be_added_to(trainer):
    class Looks(Callback):
        def on_validate_end(self, trainer):
            assert {"train_loss", "val_loss"} <= trainer.row.keys()
            assert not trainer.history

        def on_epoch_end(self, trainer):
            assert trainer.history[-1] is trainer.row
            trainer.row["own"] = 3.0

    history = trainer([Looks()], val_loader=[(X, Y)]).fit()
    assert history[0]["own"] == 3.0


def test_the_loss_may_be_set(trainer):
    class Other(Callback):
        def on_epoch_begin(self, trainer):
            trainer.loss_fn = lambda outputs, targets: 7.0 + 0 * outputs[0].sum()

    assert trainer([Other()]).fit()[0]["train_loss"] == 7.0


def test_stop_ends_the_run_after_the_step(trainer):
    class Enough(Callback):
        def on_batch_end(self, trainer):
            if trainer.step == 3:
                trainer.stop("enough")

    run = trainer([Enough()], max_epochs=9, val_loader=[(X, Y)])
    run.fit()
    assert (run.stop_reason, run.step, len(run.history)) == ("enough", 3, 2)
    assert "val_loss" in run.history[-1]
    assert run.fit()[-1]["skipped_steps"] == 0  # and once more from the beginning
    assert run.step == 3


def test_states_of_callbacks_are_part_of_a_checkpoint(trainer, tmp_path):
    class Counter(Callback):
        def __init__(self):
            self.count = 0

        def on_batch_end(self, trainer):
            self.count += 1

        def state_dict(self):
            return {"count": self.count}

        def load_state_dict(self, state):
            self.count = state["count"]

    first, second = Counter(), Counter()
    trainer([first], checkpoint_dir=tmp_path).fit()
    run = trainer([second], checkpoint_dir=tmp_path, max_epochs=2)
    run.fit(resume_from="auto")
    assert (first.count, second.count) == (2, 4)


def test_an_event_that_is_only_inherited_is_not_called(trainer):
    calls = trainer([Callback()])._events._calls
    assert calls == {event: [] for event in EVENTS}
