"""Rows that are not finite leave the batch; the rest has the gradient that it would have alone."""

import copy
import math
import random
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from zeroproof.autodiff import GradientPolicy, gradient_policy
from zeroproof.errors import DataError, TrainingError
from zeroproof.layers import ProjectiveHead, ProjectiveMLP, Rational
from zeroproof.scm import SCM
from zeroproof.training import (
    SCMTrainer,
    SCMTrainingLoss,
    SoundRows,
    TrainingConfig,
    lift_targets,
)

QUIET = "ignore:.*left out of training"
LOSS = SCMTrainingLoss(normalizer="chordal")
POLE = 0.25
STEPS_ALONE = {
    "progress": False,
    "coverage_threshold": 0,
    "target_scale": 1.0,
    "readout": None,
    "calibrate": False,
}


def inverse(x):
    return (1 / (SCM(x) - POLE)).payload


class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = ProjectiveHead(8, 1)


class Middle(Head):
    """A rational function in the middle of a net, which meets its pole at 0.25 for any scale."""

    def __init__(self):
        super().__init__()
        self.scale, self.lift = nn.Parameter(torch.ones(1)), nn.Linear(1, 8)
        self.rational = Rational((1, 1), returns="tensor", init=([1, 0], [0, 1]))
        self.rational.denominator.requires_grad_(False)

    def forward(self, x):
        return self.head(torch.tanh(self.lift(self.rational(self.scale * (x - POLE)))))


class Divided(Head):
    """SCM division, then batch statistics and chance: one row spoils all."""

    def __init__(self):
        super().__init__()
        self.lift, self.norm, self.drop = nn.Linear(1, 8), nn.BatchNorm1d(8), nn.Dropout(0.3)

    def forward(self, x):
        return self.head(self.drop(torch.tanh(self.norm(self.lift(inverse(x))))))


class Recurrent(Head):
    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(1, 8, batch_first=True)

    def forward(self, x):
        return self.head(self.gru(inverse(x))[0][:, -1])


class Attentive(Head):
    def __init__(self):
        super().__init__()
        self.lift, self.mix = nn.Linear(1, 8), nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x):
        z = self.lift(inverse(x))
        return self.head(self.mix(z, z, z)[0].mean(1))


class Convolved(Head):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(1, 8, 3)

    def forward(self, x):
        return self.head(torch.tanh(self.conv(inverse(x).transpose(1, 2))).mean(-1))


class Rooted(Head):
    """Finite values; at the root of 0 the gradient alone is nan."""

    def __init__(self):
        super().__init__()
        self.scale, self.lift = nn.Parameter(torch.ones(1)), nn.Linear(1, 8)

    def forward(self, x):
        z = (self.scale * (x - POLE)).abs()
        root = torch.where(z > 0, z.sqrt(), torch.zeros_like(z))
        return self.head(torch.tanh(self.lift(root)))


NETS = {
    "rational": (Middle, ()),
    "division, batch norm, dropout": (Divided, ()),
    "gru": (Recurrent, (5,)),
    "attention": (Attentive, (5,)),
    "convolution": (Convolved, (5,)),
    "root": (Rooted, ()),
}


def rows(count, steps=(), seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = 2 * torch.rand(count, *steps, 1, generator=generator) - 1
    return x, x.reshape(count, -1).sum(1, keepdim=True)


def fitted(make, data, *, optimizer=None, **options):
    torch.manual_seed(5)
    model = make()
    optimizer = optimizer or (lambda p: torch.optim.Adam(p, lr=0.01))
    config = TrainingConfig(**{**STEPS_ALONE, "max_epochs": 2, **options})
    trainer = SCMTrainer(model, optimizer(model.parameters()), LOSS, data, config=config)
    torch.manual_seed(9)
    trainer.fit()
    return trainer


def same(one, other, rtol=0.0, atol=0.0):
    for name, value in other.state_dict().items():
        torch.testing.assert_close(one.state_dict()[name], value, rtol=rtol, atol=atol)


def spoilt(x, bad, kind):
    x = x.clone()
    x[bad] = math.nan if kind == "input" else x[bad]
    if kind == "inside":
        x[bad, ...] = POLE if x.ndim == 2 else x[bad]
        if x.ndim > 2:
            x[bad, 2] = POLE
    return x


def objective(outputs, y):
    return LOSS(outputs=outputs, targets=lift_targets(y))


# --- the weights are those of the sound rows alone


@pytest.mark.filterwarnings(QUIET)
@pytest.mark.parametrize("kind", ["input", "inside"])
@pytest.mark.parametrize("net", NETS)
def test_weights_are_those_of_a_run_on_the_sound_rows(net, kind):
    make, steps = NETS[net]
    x, y = rows(48, steps)
    bad = torch.zeros(48, dtype=torch.bool)
    bad[[3, 16, 17, 40]] = True
    parts = torch.arange(48).split(16)
    data = [(spoilt(x, bad, kind)[part], y[part]) for part in parts]
    alone = [(x[part][~bad[part]], y[part][~bad[part]]) for part in parts]
    ours, theirs = fitted(make, data), fitted(make, alone)
    same(ours.model, theirs.model)
    row, other = ours.history[-1], theirs.history[-1]
    assert (row["masked_rows"], row["skipped_steps"]) == (4, 0)
    assert row["train_loss"] == pytest.approx(other["train_loss"], rel=1e-6)


@pytest.mark.filterwarnings(QUIET)
@pytest.mark.parametrize("share", [0.001, 0.01, 0.1])
@pytest.mark.parametrize("size", [1, 7, 64, 1000])
def test_rows_with_bad_inputs_make_no_difference(share, size):
    count = 1000
    x, y = rows(count)
    bad = torch.rand(count, generator=torch.Generator().manual_seed(1)) < share
    bad[5] = True
    parts = torch.arange(count).split(size)
    poison = torch.tensor([math.nan, math.inf, -math.inf])[torch.arange(count) % 3][:, None]
    x = torch.where(bad[:, None], poison, x)
    data = [(x[part], y[part]) for part in parts]
    alone = [(a[~bad[part]], b[~bad[part]]) for (a, b), part in zip(data, parts, strict=True)]
    alone = [batch for batch in alone if len(batch[1])]
    ours = fitted(lambda: ProjectiveMLP(1, 1), data, max_epochs=1)
    same(ours.model, fitted(lambda: ProjectiveMLP(1, 1), alone, max_epochs=1).model)
    assert ours.history[0]["masked_rows"] == int(bad.sum())
    assert ours.history[0]["skipped_steps"] == len(parts) - len(alone)


@pytest.mark.filterwarnings(QUIET)
@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("net", ["rational", "root"])
def test_a_window_is_the_mean_over_its_sound_rows(net, size):
    x, y = rows(48)
    bad = torch.zeros(48, dtype=torch.bool)
    bad[[1, 9, 10]] = True
    bad[16:24] = True  # a whole micro-batch
    parts = torch.arange(48).split(8)
    data = [(spoilt(x, bad, "inside")[part], y[part]) for part in parts]
    windows = torch.arange(48).split(8 * size)
    alone = [(x[part][~bad[part]], y[part][~bad[part]]) for part in windows]
    sgd = {"optimizer": lambda p: torch.optim.SGD(p, lr=0.1)}
    make, _ = NETS[net]

    def squares(outputs, targets):
        return (outputs[0] * targets[1] - outputs[1] * targets[0]).square().mean()

    ours = fitted(make, data, grad_accumulation_steps=size, **sgd)
    theirs = fitted(make, alone, **sgd)
    assert ours.step == theirs.step
    assert ours.history[-1]["skipped_steps"] == 0
    same(ours.model, theirs.model, rtol=1e-5, atol=1e-6)


# --- what a second run sees


@pytest.mark.filterwarnings(QUIET)
@pytest.mark.parametrize("source", ["python", "numpy", "own torch", "own numpy"])
def test_chance_of_any_source_falls_alike(source):
    class Noisy(Middle):
        def __init__(self):
            super().__init__()
            self.torch, self.numpy = torch.Generator().manual_seed(1), np.random.default_rng(1)

        def forward(self, x):
            draw = {
                "python": random.random,
                "numpy": lambda: float(np.random.rand()),  # noqa: NPY002 - the global one is meant
                "own torch": lambda: float(torch.rand((), generator=self.torch)),
                "own numpy": lambda: float(self.numpy.random()),
            }[source]
            return super().forward((x - POLE) * (1 + draw()) + POLE)

    def run(data):
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002
        return fitted(Noisy, data, max_epochs=4).model

    x, y = rows(32)
    bad = torch.zeros(32, dtype=torch.bool)
    bad[4] = True
    data = [(spoilt(x, bad, "inside")[part], y[part]) for part in torch.arange(32).split(16)]
    alone = [(x[:16][~bad[:16]], y[:16][~bad[:16]]), (x[16:], y[16:])]
    same(run(data), run(alone))


def test_the_first_row_is_told_once_in_every_fit_with_its_number():
    x, y = rows(32)
    x[[3, 20]] = math.nan
    model = ProjectiveMLP(1, 1)
    config = TrainingConfig(max_epochs=3, progress=False)
    trainer = SCMTrainer(
        model,
        torch.optim.Adam(model.parameters()),
        LOSS,
        [(x[:16], y[:16]), (x[16:], y[16:])],
        config=config,
    )
    for _ in range(2):
        with pytest.warns(UserWarning, match=r"1 of 16 rows of a batch \(3\) were left") as seen:
            trainer.fit()
        assert len(seen) == 1
        assert [row["masked_rows"] for row in trainer.history] == [2, 2, 2]


# --- what cannot be taken apart


class Crowd(Head):
    """Attention over the batch: every row sees every other one."""

    def __init__(self):
        super().__init__()
        self.lift, self.mix = nn.Linear(1, 8), nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x):
        z = self.lift(x)[None]
        return self.head(self.mix(z, z, z)[0][0])


class Graph(Head):
    """Each node sees its neighbours."""

    def __init__(self):
        super().__init__()
        self.lift = nn.Linear(1, 8)

    def forward(self, x, edges):
        z = self.lift(x)
        return self.head(torch.tanh(z.index_add(0, edges[0], z[edges[1]])))


RING = torch.stack([torch.arange(11), (torch.arange(11) + 1) % 11])


@pytest.mark.parametrize(
    ("make", "others", "bad"),
    [(Crowd, (), 3), (Graph, (RING,), 3), (Graph, (RING,), 11)],
    ids=["crowd", "neighbour", "lonely node"],
)
def test_a_batch_whose_rows_see_each_other_is_skipped_and_told(make, others, bad):
    x, y = rows(12)
    poisoned = x.clone()
    poisoned[bad] = math.nan
    good = (x, *others, y)
    with pytest.warns(UserWarning, match=r"a batch of 12 rows was left out .*(see each|run alone)"):
        ours = fitted(make, [good, (poisoned, *others, y), good])
    same(ours.model, fitted(make, [good, good]).model)
    row = ours.history[0]
    assert (row["skipped_steps"], row["masked_rows"]) == (1, 12)


@pytest.mark.filterwarnings(QUIET)
def test_normalisation_over_the_single_row_that_is_left_skips_the_batch():
    x, y = rows(18)
    x[16] = math.nan
    parts = torch.arange(18).split(2)
    ours = fitted(Divided, [(x[part], y[part]) for part in parts])
    same(ours.model, fitted(Divided, [(x[part], y[part]) for part in parts[:-1]]).model)
    assert ours.history[0]["skipped_steps"] == 1


@pytest.mark.filterwarnings(QUIET)
def test_a_gradient_that_no_row_is_to_blame_for_skips_the_batch_after_few_trials():
    class Broken(ProjectiveMLP):
        def __init__(self):
            super().__init__(1, 1)
            self.zero, self.calls = nn.Parameter(torch.zeros(1)), 0

        def forward(self, x):
            self.calls += 1
            N, D = super().forward(x)
            return N + self.zero.abs().sqrt(), D

    x, y = rows(64)
    with pytest.raises(TrainingError, match="every step of epoch 1 had a non-finite"):
        fitted(Broken, [(x, y)])
    model = Broken()
    with pytest.warns(UserWarning, match="no row is to blame"):
        SoundRows(model, objective).backward(x, y)
    assert model.calls < 10
    assert all(p.grad is None for p in model.parameters())


# --- kinds of inputs


class Named(Head):
    def __init__(self):
        super().__init__()
        self.embed, self.lift = nn.Embedding(5, 8), nn.Linear(2, 8)

    def forward(self, kind, z, mask=None, note=""):
        assert mask.shape == (3, 3)
        assert note == "as it is"
        return self.head(torch.tanh(self.embed(kind) + self.lift(torch.view_as_real(z))))


@pytest.mark.filterwarnings(QUIET)
def test_inputs_may_be_named_whole_numbers_and_complex_and_others_pass():
    _, y = rows(12)
    generator = torch.Generator().manual_seed(2)
    kind = torch.randint(5, (12,), generator=generator)
    z = torch.randn(12, dtype=torch.complex64, generator=generator)
    z[4] = complex(0, math.inf)
    mask, sound = torch.full((3, 3), -math.inf), torch.arange(12) != 4
    batch = {"kind": kind, "z": z, "mask": mask, "note": "as it is", "y": y}
    alone = {**batch, "kind": kind[sound], "z": z[sound], "y": y[sound]}
    same(fitted(Named, [batch]).model, fitted(Named, [alone]).model)


class Counted(Head):
    """Whole numbers alone: of kind 0 the gradient is nan, the value is finite."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(5, 8)

    def forward(self, kind):
        size = (self.embed(kind) * kind[:, None]).abs()
        return self.head(torch.where(size > 0, size.sqrt(), torch.zeros_like(size)))


@pytest.mark.filterwarnings(QUIET)
def test_halving_the_batch_finds_the_rows_where_inputs_have_no_gradient():
    _, y = rows(40)
    kind = 1 + torch.arange(40) % 4
    kind[[0, 13, 14]] = 0
    sound = kind > 0
    same(fitted(Counted, [(kind, y)]).model, fitted(Counted, [(kind[sound], y[sound])]).model)


# --- loss scalers, sparse gradients, no rows


@pytest.mark.filterwarnings(QUIET)
def test_a_loss_scaler_keeps_its_skipped_steps_to_itself(monkeypatch):
    x, y = rows(32)
    model = ProjectiveMLP(1, 1)
    calls, optimizer = [], torch.optim.Adam(model.parameters())
    model.register_forward_hook(lambda *_: calls.append(0))
    config = TrainingConfig(max_epochs=1, use_amp=True, amp_dtype=torch.float16, **STEPS_ALONE)

    def large(outputs, targets):
        return 1e5 * LOSS(outputs=outputs, targets=targets)

    row = SCMTrainer(model, optimizer, large, [(x, y)] * 20, config=config).fit()[0]
    assert 0 < row["skipped_steps"] < 20
    assert row["masked_rows"] == 0
    assert len(calls) == 20


@pytest.mark.parametrize("norm", [None, 0.01])
@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_sparse_gradients_train_as_dense_ones(kind, norm):
    class Looked(Head):
        def __init__(self, sparse):
            super().__init__()
            self.embed = nn.Embedding(5, 8, sparse=sparse)

        def forward(self, index):
            return self.head(torch.tanh(self.embed(index)))

    index, y = torch.tensor([0, 1, 1, 2, 4, 4]), torch.linspace(-1, 1, 6)[:, None]
    found = []
    for sparse in (True, False):
        torch.manual_seed(5)
        model = Looked(sparse)
        if kind == "adam":
            model.head.requires_grad_(False)
        parameters = [p for p in model.parameters() if p.requires_grad]
        adam = torch.optim.SparseAdam if sparse else torch.optim.Adam
        optimizer = (torch.optim.SGD if kind == "sgd" else adam)(parameters, lr=0.1)
        config = TrainingConfig(max_epochs=1, max_grad_norm=norm, **STEPS_ALONE)
        trainer = SCMTrainer(model, optimizer, LOSS, [(index, y)], config=config)
        trainer.fit()
        found.append((model, trainer.history[0].get("grad_norm")))
    (ours, norm_ours), (theirs, norm_theirs) = found
    same(ours, theirs, atol=1e-6 if kind == "sgd" else 1e-3)  # their epsilons differ in place
    assert norm_ours == (None if norm is None else pytest.approx(norm_theirs, rel=1e-5))


def test_a_sparse_gradient_that_is_not_finite_is_seen():
    embed = nn.Embedding(3, 2, sparse=True)
    over = SoundRows(embed, lambda z, y: (z * y).sum())
    y = torch.tensor([[1.0], [math.nan]])
    with pytest.warns(UserWarning, match=r"1 of 2 rows .* \(1\)"):
        loss = over.backward(torch.tensor([0, 1]), y)
    assert over.sound.tolist() == [True, False]
    assert torch.isfinite(loss)
    assert embed.weight.grad.coalesce().indices().tolist() == [[0]]


@pytest.mark.parametrize("part", ["train", "val"])
def test_batches_without_a_row_are_no_batches(part):
    x, y = rows(8)
    good, none = [(x, y)], [(x[:0], y[:0])] * 3
    model = ProjectiveMLP(1, 1)
    loaders = (none, good) if part == "train" else (good, none)
    trainer = SCMTrainer(model, torch.optim.Adam(model.parameters()), LOSS, *loaders)
    with pytest.raises(
        DataError, match=f"{part}_loader must yield at least one batch .* with rows"
    ):
        trainer.fit()
    same(
        fitted(lambda: ProjectiveMLP(1, 1), [*none, *good, *none]).model,
        fitted(lambda: ProjectiveMLP(1, 1), good).model,
    )


# --- loops of one's own


@pytest.mark.filterwarnings(QUIET)
@pytest.mark.parametrize("form", ["tensor", "tuple", "mapping"])
def test_a_loop_of_five_lines(form):
    x, y = rows(24)
    x[[2, 11]] = math.nan
    x[5] = POLE
    sound = torch.isfinite(x[:, 0]) & (x[:, 0] != POLE)

    def trained(batches, take):
        torch.manual_seed(5)
        model = Middle()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        step = take(model)
        with gradient_policy(GradientPolicy.PROJECT):
            for a, b in batches:
                optimizer.zero_grad()
                step(a, b)
                optimizer.step()
        return model

    def ours(model):
        over = SoundRows(model, objective)
        wrapped = {"tensor": lambda a: a, "tuple": lambda a: (a,), "mapping": lambda a: {"x": a}}
        return lambda a, b: over.backward(wrapped[form](a), b)

    def theirs(model):
        return lambda a, b: objective(model(a), b).backward()

    same(trained([(x, y)] * 5, ours), trained([(x[sound], y[sound])] * 5, theirs))


def test_gradients_of_earlier_batches_stay_and_a_skipped_batch_adds_none():
    x, y = rows(24)
    model = Rooted()
    over = SoundRows(model, objective)
    objective(model(x[:8]), y[:8]).backward()
    before = [p.grad.clone() for p in model.parameters()]
    with pytest.warns(UserWarning, match="no row is to blame|not finite"):
        loss = over.backward(torch.full_like(x, math.nan), y)
    assert loss.isnan()
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), before, strict=True))
    part = spoilt(x[8:], torch.arange(16) == 4, "inside")
    sound = torch.arange(16) != 4
    with pytest.warns(UserWarning, match=r"1 of 16 rows of a batch \(4\)"):
        over.backward(part, y[8:])
    reference = copy.deepcopy(model)
    reference.zero_grad()
    objective(reference(part[sound]), y[8:][sound]).backward()
    for p, q, g in zip(model.parameters(), reference.parameters(), before, strict=True):
        torch.testing.assert_close(p.grad, g + q.grad)
    assert (over.masked_rows, over.reruns, over.skipped) == (25, 1, 1)


def test_nothing_is_said_where_all_is_sound():
    x, y = rows(24)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours = fitted(Divided, [(x, y)])
    assert ours.history[0]["masked_rows"] == 0
