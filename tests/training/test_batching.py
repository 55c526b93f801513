"""Nothing depends on how rows are batched: sums over sums, in windows and in validation."""

import math

import pytest
import torch
from torch import nn

from zeroproof.errors import DataError, TrainingError
from zeroproof.layers import ProjectiveMLP
from zeroproof.training import Callback, SCMTrainer, SCMTrainingLoss, TrainingConfig

X = torch.linspace(-1, 1, 48, dtype=torch.float64)[:, None]
Y = torch.cat([1 / (X - 0.3), X], 1)
Y[5, 0], Y[20, 1], Y[21], Y[40, 0] = math.inf, -math.inf, math.nan, math.nan
# every part counts something: the margin and the coverage reach all rows
LOSS = SCMTrainingLoss(
    normalizer="chordal",
    tau_train=1.2,
    lambda_margin=1.0,
    lambda_rejection=2.0,
    temperature=0.5,
    lambda_separation=0.1,
)
CONFIG = {
    "progress": False,
    "tau_train_min": 1.2,
    "tau_train_max": 1.2,
    "target_scale": 1.0,
    "readout": None,
    "calibrate": False,
    "coverage_threshold": 0.0,
}


class Gradients(Callback):
    def __init__(self):
        self.found = []

    def on_backward_end(self, trainer):
        self.found.append(torch.cat([p.grad.flatten().clone() for p in trainer.model.parameters()]))


def net(*layers):
    torch.manual_seed(0)
    model = ProjectiveMLP(1, 2, hidden=(6,), shared_denominator=False)
    return (nn.Sequential(*layers, model) if layers else model).double()


def run(batches, *, loss_fn=LOSS, model=None, val=None, epochs=1, **options):
    model, seen = model or net(), Gradients()
    trainer = SCMTrainer(
        model,
        torch.optim.SGD(model.parameters(), 0.0),
        loss_fn,
        batches,
        val,
        config=TrainingConfig(max_epochs=epochs, seed=0, **(CONFIG | options)),
        callbacks=[seen],
    )
    return trainer.fit(), seen.found


def split(sizes, *columns, names=("x", "y", "weight")):
    if len(columns) < 3:
        return list(zip(*(x.split(sizes) for x in columns), strict=True))
    cut = zip(*(x.split(sizes) for x in columns), strict=True)
    return [dict(zip(names, parts, strict=True)) for parts in cut]


def mean_square(outputs, targets, weight=None):
    """A user's loss, a mean over labels."""
    squares = (outputs[0] - targets[0]).square() + (outputs[1] - targets[1]).square()
    weight = torch.ones_like(squares) if weight is None else weight.expand_as(squares)
    return (weight * squares).sum() / weight.sum().clamp(min=1e-30)


WEIGHT = torch.linspace(0, 2, 96, dtype=torch.float64).reshape(48, 2).roll(7, 0)
WEIGHT[:9] = 0


@pytest.mark.parametrize("loss_fn", [LOSS, mean_square], ids=["parts", "a mean"])
@pytest.mark.parametrize("weight", [None, WEIGHT, WEIGHT[:, :1] > 0.5], ids=["", "real", "mask"])
def test_an_accumulated_window_has_the_gradient_of_one_batch(loss_fn, weight):
    columns = (X, Y) if weight is None else (X, Y, weight)
    history, (whole,) = run(split(48, *columns), loss_fn=loss_fn)
    assert whole.norm() > 1e-2
    for sizes in (24, 20, 6, [1, 40, 7]):
        batches = split(sizes, *columns)
        row, (gradient,) = run(batches, loss_fn=loss_fn, grad_accumulation_steps=len(batches))
        assert ((gradient - whole).norm() / whole.norm()).item() < 1e-6
        assert row[0]["train_loss"] == pytest.approx(history[0]["train_loss"], rel=1e-6)


@pytest.mark.parametrize("loss_fn", [LOSS, mean_square], ids=["parts", "a mean"])
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["", "weighted"])
def test_the_validation_loss_is_that_of_all_rows(loss_fn, weight):
    columns = (X, Y) if weight is None else (X, Y, weight)
    rows = [
        run([(X, Y)], loss_fn=loss_fn, val=split(size, *columns))[0][0] for size in (1, 5, 25, 48)
    ]
    for name in (n for n in rows[0] if n.startswith("val_")):
        assert [row[name] for row in rows] == pytest.approx([rows[0][name]] * 4, rel=1e-6)
    if weight is None:
        assert rows[0]["val_loss"] == pytest.approx(rows[0]["train_loss"], rel=1e-6)


def test_a_missing_label_teaches_nothing_and_counts_nowhere():
    """Rows that are not there, and labels that are missing: the same run, whatever they say."""
    kept = torch.arange(48) % 3 > 0
    y = torch.where(kept[:, None], Y, math.nan)
    found = [
        run(split(48, *columns), val=split(48, *columns))
        for columns in ((X, y, kept), (X[kept], Y[kept]))
    ]
    (one, (a,)), (other, (b,)) = found
    torch.testing.assert_close(a, b)
    names = ("loss", "coverage", "lost", "caught", "sign", "margin")
    for key in (f"{part}_{name}" for part in ("train", "val") for name in names):
        assert one[0][key] == pytest.approx(other[0][key], rel=1e-6), key


def test_a_window_sees_the_random_numbers_and_the_statistics_of_one_pass():
    class Counted(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("passes", torch.zeros(()))

        def forward(self, x):
            if self.training:
                self.passes += 1
            return x + 0.1 * torch.rand(1, dtype=torch.float64)

    model = net(Counted(), nn.Dropout(0.5))
    run(split(12, X, Y), model=model, grad_accumulation_steps=4)
    assert model[0].passes == 4
    torch.manual_seed(0)
    expected = torch.rand(1, dtype=torch.float64)
    seen = []
    model[0].register_forward_hook(lambda _, x, y: seen.append((y - x[0]).mean() / 0.1))
    run(split(12, X, Y), model=model, grad_accumulation_steps=4)
    assert len(seen) == 8
    assert seen[:4] == seen[4:]
    assert seen[0] == pytest.approx(expected.item())


def test_weights_that_cannot_be_used_are_refused():
    with pytest.raises(DataError, match="train_loader must yield a label of weight above 0"):
        run([{"x": X, "y": Y, "weight": torch.zeros(48)}])
    with pytest.raises(DataError, match=r"finite numbers of at least 0 .* got -1\.0"):
        run([{"x": X, "y": Y, "weight": -torch.ones(48)}])
    with pytest.raises(TrainingError, match="loss_fn must accept weight="):
        run(
            [{"x": X, "y": Y, "weight": WEIGHT}],
            loss_fn=lambda outputs, targets: outputs[0].square().mean(),
        )


@pytest.mark.filterwarnings("ignore:.*left out of training")
def test_a_window_with_bad_rows_has_the_gradient_of_the_sound_ones_in_one_batch():
    bad = torch.zeros(48, dtype=torch.bool)
    bad[[1, 9, 10, 30]] = True
    bad[16:24] = True  # a whole batch of the window
    x = torch.where(bad[:, None], math.nan, X)
    _, (whole,) = run([(X[~bad], Y[~bad])])
    _, (gradient,) = run(split(8, x, Y), grad_accumulation_steps=6)
    assert ((gradient - whole).norm() / whole.norm()).item() < 1e-6
