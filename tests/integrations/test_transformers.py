import math
import os

import pytest
import torch
from accelerate.state import AcceleratorState
from torch import nn
from transformers import Trainer, TrainingArguments

from zeroproof.autodiff import GradientPolicy, active_policy, gradient_policy, policies
from zeroproof.errors import DataError, RangeError, TrainingError
from zeroproof.integrations.transformers import ProjectiveTrainerMixin, shares
from zeroproof.training import TrainingConfig

from .conftest import LOSS, X, Y

PROJECT, CLAMP, REJECT = GradientPolicy.PROJECT, GradientPolicy.CLAMP, GradientPolicy.REJECT
ROWS = [{"x": x, "labels": y} for x, y in zip(X, Y, strict=True)]


class Mine(ProjectiveTrainerMixin, Trainer):
    pass


@pytest.fixture(autouse=True)
def _own_process_state():
    """Leave no precision and no environment to the tests after these."""
    environment = dict(os.environ)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    os.environ.clear()
    os.environ.update(environment)


@pytest.fixture
def trainer(tmp_path):
    def build(model, *, loss_fn=LOSS, config=None, rows=ROWS, metrics=None, **options):
        arguments = TrainingArguments(
            output_dir=str(tmp_path / "out"),
            **{
                "use_cpu": True,
                "report_to": "none",
                "disable_tqdm": True,
                "save_strategy": "no",
                "logging_strategy": "no",
                "num_train_epochs": 1,
                "per_device_train_batch_size": len(X),
                "per_device_eval_batch_size": 9,
                "max_grad_norm": 0.0,
                "lr_scheduler_type": "constant",
                **options,
            },
        )
        return Mine(
            model=model,
            args=arguments,
            train_dataset=rows,
            eval_dataset=rows,
            loss_fn=loss_fn,
            config=config,
            compute_metrics=metrics,
            optimizers=(torch.optim.SGD(model.parameters(), lr=0.1), None),
        )

    return build


@pytest.mark.parametrize("policy", [PROJECT, CLAMP, REJECT])
def test_steps_are_those_of_a_loop_written_by_hand(policy, model, trainer, by_hand, weights):
    config = TrainingConfig(gradient_policy=policy, target_scale=0.1)
    own = model()
    trainer(own, config=config, num_train_epochs=3).train()
    expected = by_hand(model(), [(X, Y)] * 3, policy, scale=0.1)
    torch.testing.assert_close(weights(own), weights(expected), rtol=1e-5, atol=1e-6)
    moved = float((weights(own) - weights(model())).abs().max())
    assert (moved < 1e-6) if policy is REJECT else (moved > 1e-3)


def test_accumulated_batches_are_the_mean_of_their_losses(model, trainer, by_hand, weights):
    class Anything(nn.Module):
        """Its keyword arguments would make the Trainer leave the division to the loss."""

        def __init__(self):
            super().__init__()
            self.inner = model()

        def forward(self, x, **options):
            assert not options
            return self.inner(x)

    own = Anything()
    options = {"per_device_train_batch_size": 12, "gradient_accumulation_steps": 2}
    trainer(own, **options).train()
    expected = by_hand(model(), [(X, Y)], PROJECT)
    torch.testing.assert_close(weights(own), weights(expected), rtol=1e-5, atol=1e-6)


def test_predictions_are_strict_and_in_the_units_of_y(model, trainer):
    rows = [{"x": x, "labels": y} for x, y in zip(X, Y, strict=True)]
    rows[5]["x"] = torch.tensor([math.nan])
    config = TrainingConfig(target_scale=5.0)
    answers = trainer(model(), config=config, rows=rows).predict(rows)
    decoded, bottom, gap = answers.predictions
    with torch.no_grad():
        N, D = model()(X)
    assert bottom[:, 0].nonzero()[0].tolist() == [5]
    assert not gap.any()
    expected = (5 * N / D)[~torch.as_tensor(bottom)]
    torch.testing.assert_close(torch.as_tensor(decoded[~bottom]), expected)
    torch.testing.assert_close(torch.as_tensor(answers.label_ids), Y)


def test_evaluation_reports_loss_coverage_and_gap(model, trainer):
    low, high = model()(X)[1].abs().quantile(torch.tensor([0.3, 0.6])).tolist()
    config = TrainingConfig(tau_infer=low, tau_train_min=high, tau_train_max=high)
    own = trainer(model(), config=config)
    report = own.evaluate()
    _, bottom, gap = own.objective.decode(own.model(X))
    assert report["eval_coverage"] == pytest.approx(1 - float(bottom.float().mean()))
    assert report["eval_gap"] == pytest.approx(float(gap.float().mean()))
    assert 0 < report["eval_gap"] < report["eval_coverage"] < 1
    with torch.no_grad():
        loss = float(own.objective(own.model(X), Y))
    assert report["eval_loss"] == pytest.approx(loss, rel=1e-6)


def test_metrics_of_the_user_take_their_place(model, trainer):
    def metrics(predicted):
        return {"rows": len(predicted.label_ids), **shares(predicted)}

    report = trainer(model(), metrics=metrics).evaluate()
    assert (report["eval_rows"], report["eval_coverage"]) == (len(X), 1)


def test_nothing_is_gathered_where_the_loss_alone_is_asked_for(model, trainer):
    own = trainer(model(), prediction_loss_only=True)
    assert set(own.evaluate()) & {"eval_loss", "eval_coverage"} == {"eval_loss"}
    loss, *rest = own.prediction_step(own.model, {"x": X, "labels": Y}, prediction_loss_only=True)
    assert torch.isfinite(loss)
    assert rest == [None, None]


def test_rows_without_labels_are_predicted_and_not_trained_on(model, trainer):
    rows = [{"x": x} for x in X]
    answers = trainer(model(), rows=rows).predict(rows)
    assert answers.label_ids is None
    assert answers.predictions[0].shape == (24, 1)
    with pytest.raises(DataError, match="a batch must have 'labels' to train on, got x"):
        trainer(model(), rows=rows).train()


def test_under_bf16_tuples_and_loss_are_float32(trainer):
    seen = []

    class Plain(nn.Linear):
        def forward(self, x):
            outputs = super().forward(x)
            seen.append(outputs.dtype)
            return outputs[:, :1], outputs[:, 1:]

    def loss_fn(outputs, targets):
        seen.append((outputs[0].dtype, outputs[1].dtype, torch.is_autocast_enabled("cpu")))
        return LOSS(outputs=outputs, targets=targets)

    trainer(Plain(1, 2), loss_fn=loss_fn, bf16=True).train()
    assert set(seen) == {torch.bfloat16, (torch.float32, torch.float32, False)}


def test_the_bound_of_clamp_follows_the_loss_scale(model, trainer):
    bounds, own = [], model()
    next(own.parameters()).register_hook(
        lambda _: bounds.append(policies.ruling_in_force(-1).bound)
    )
    fitted = trainer(own, config=TrainingConfig(gradient_policy=CLAMP))
    fitted.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=256.0)  # as fp16 on a GPU
    fitted.current_gradient_accumulation_steps = 1
    fitted.training_step(own, {"x": X, "labels": Y})
    assert bounds == [256.0]


def test_the_context_is_closed_if_a_step_raises(model, trainer):
    fitted = trainer(model(), config=TrainingConfig(gradient_policy=REJECT))
    with gradient_policy(PROJECT):
        with pytest.raises(DataError, match="must have 'labels'"):
            fitted.training_step(fitted.model, {"x": X})
        assert active_policy() is PROJECT


def test_models_that_return_something_else_are_refused(trainer):
    rows = [{"input": x, "labels": y} for x, y in zip(X, Y, strict=True)]
    with pytest.raises(TrainingError, match=r"must return a pair of tensors \(N, D\)"):
        trainer(nn.Linear(1, 1), rows=rows).train()
    with pytest.raises(RangeError, match="max_epochs must be left to the training loop"):
        trainer(nn.Linear(1, 1), config=TrainingConfig(max_epochs=3))


def test_nothing_is_left_behind(model, trainer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trainer(model()).train()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


class Sequences(nn.Module):
    """Answers that are the inputs, ⟨1, x⟩, at every step of a sequence."""

    def __init__(self):
        super().__init__()
        self.one = nn.Parameter(torch.ones(()))

    def forward(self, x, attention_mask=None):
        return self.one * torch.ones_like(x), x


# 2 + 6 + 3 steps; denominators: of the second sequence two are 0 and one is in the gap
STEPS = [
    torch.tensor([1.0, 1.0]),
    torch.tensor([1.0, 0.0, 1.0, 1e-5, 0.0, 1.0]),
    torch.tensor([1.0, 1.0, 1.0]),
]
UNEQUAL = [{"x": x[:, None], "labels": torch.ones(len(x), 1)} for x in STEPS]


def padded(rows):
    """What a collator makes: inputs and labels filled up, here without and with a mask."""
    pad = torch.nn.utils.rnn.pad_sequence
    return {
        "x": pad([row["x"] for row in rows], batch_first=True),
        "labels": pad([row["labels"] for row in rows], batch_first=True, padding_value=-100.0),
    }


def masked(rows):
    batch = padded(rows)
    batch["attention_mask"] = (batch["labels"][..., 0] != -100).long()
    batch["labels"] = batch["labels"].masked_fill(batch["labels"] == -100, 0.0)
    return batch


@pytest.mark.parametrize(
    ("collator", "size"),
    [(None, 1), (padded, 2), (padded, 3), (masked, 3)],
    ids=["one by one", "pairs", "padded", "masked"],
)
def test_padding_is_neither_bottom_nor_gap_nor_label(trainer, collator, size):
    def build(**options):
        own = trainer(Sequences(), rows=UNEQUAL, per_device_eval_batch_size=size, **options)
        own.data_collator = collator or own.data_collator
        return own

    own, alone = build(), trainer(Sequences(), rows=UNEQUAL, per_device_eval_batch_size=1)
    report = own.evaluate()
    assert report["eval_coverage"] == pytest.approx(9 / 11)
    assert report["eval_gap"] == pytest.approx(1 / 11)
    assert report["eval_loss"] == pytest.approx(alone.evaluate()["eval_loss"], rel=1e-6)
    decoded, bottom, gap = own.predict(UNEQUAL).predictions
    there = torch.arange(6) < torch.tensor([2, 6, 3])[:, None]
    assert decoded.shape == (3, 6, 1)
    assert (bottom.dtype, gap.dtype) == (bool, bool)
    assert not (bottom & gap).any()
    assert bottom.nonzero()[1].tolist() == [1, 4]
    assert gap.nonzero()[1].tolist() == [3]
    expected = ~there | torch.as_tensor(bottom[..., 0])
    assert torch.isnan(torch.as_tensor(decoded[..., 0])).equal(expected)

    seen = []
    report = build(metrics=lambda predicted: seen.append(predicted) or shares(predicted)).evaluate()
    assert report["eval_coverage"] == pytest.approx(9 / 11)
    assert seen[0].predictions[1].dtype == bool
    assert seen[0][0] is seen[0].predictions


def test_labels_of_padding_are_not_fitted(trainer):
    losses, moved = [], []
    for collator in (padded, masked):
        own = trainer(Sequences(), rows=UNEQUAL, per_device_train_batch_size=3)
        own.data_collator = collator
        own.train()
        moved.append(float(own.model.one.detach()))
        batch = collator(UNEQUAL)
        losses.append(own.compute_loss(Sequences(), batch).item())
    flat = torch.cat(STEPS)[:, None]
    expected = own.objective((torch.ones(11, 1), flat), torch.ones(11, 1))
    assert losses == pytest.approx([float(expected)] * 2, rel=1e-5)
    assert moved[0] == pytest.approx(moved[1], rel=1e-6)
    # in a table it is a number
    table = {"x": torch.ones(3, 2), "labels": torch.full((3, 2), -100.0)}
    assert own.compute_loss(Sequences(), table) > 0.1
    marked = {**table, "attention_mask": torch.tensor([[1, 0]] * 3)}
    half = {"x": torch.ones(3, 1), "labels": torch.full((3, 1), -100.0)}
    for batch in (marked, half):
        assert own.compute_loss(Sequences(), batch) > 0.1


def test_metrics_may_be_computed_batch_by_batch(trainer):
    options = {"batch_eval_metrics": True, "per_device_eval_batch_size": 1}
    report = trainer(Sequences(), rows=UNEQUAL, **options).evaluate()
    assert report["eval_coverage"] == pytest.approx(9 / 11)
    finals = []

    def metrics(predicted, compute_result):
        finals.append(compute_result)
        return shares(predicted)

    trainer(Sequences(), rows=UNEQUAL, metrics=metrics, **options).evaluate()
    assert finals == [False, False, True]
    kept = trainer(Sequences(), rows=UNEQUAL, eval_do_concat_batches=False)
    kept.args.per_device_eval_batch_size = 1
    assert [batch[1].dtype for batch in kept.predict(UNEQUAL).predictions] == [bool] * 3


def test_losses_and_shares_are_those_of_all_rows_whatever_the_batches(model, trainer):
    rows = [dict(row) for row in ROWS]
    rows[5]["labels"], rows[9]["labels"] = torch.tensor([math.inf]), torch.tensor([math.nan])
    reports = [
        trainer(model(), rows=rows, per_device_eval_batch_size=size).evaluate()
        for size in (1, 7, 24)
    ]
    for name in ("eval_loss", "eval_coverage"):
        assert [r[name] for r in reports] == pytest.approx([reports[0][name]] * 3, rel=1e-6)


def test_labels_weigh(model, trainer, weights):
    kept = torch.rand(24, generator=torch.Generator().manual_seed(0)) > 0.4
    labels = torch.where(kept[:, None], Y, math.nan)
    weighted = [
        {"x": x, "labels": y, "weight": 2.0 * k} for x, y, k in zip(X, labels, kept, strict=True)
    ]
    few = [row for row, k in zip(ROWS, kept, strict=True) if k]
    found = []
    for rows in (weighted, few):
        own = model()
        fitted = trainer(own, rows=rows)
        found.append([fitted.evaluate()["eval_loss"], fitted.train() and weights(own)])
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-5, atol=1e-6)


def test_derivatives_in_forward_are_values(trainer, model):
    class Watched(nn.Module):
        def __init__(self):
            super().__init__()
            self.model, self.seen = model(), set()

        def forward(self, x):
            self.seen.add(active_policy())
            return self.model(x)

    net = Watched()
    run = trainer(net, config=TrainingConfig(gradient_policy=REJECT))
    run.train()
    run.evaluate()
    assert net.seen == {PROJECT}
