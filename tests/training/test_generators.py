"""Generators that loaders, data sets and models hold come back; what else changes is found."""

import random
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Sampler, Subset

from zeroproof._record import pack, unpack
from zeroproof.autodiff.rewind import Rewind, random_state, set_random_state
from zeroproof.errors import CheckpointError
from zeroproof.training import SCMTrainer, SCMTrainingLoss, TrainingConfig


class Holder:
    def __init__(self, rng):
        self.rng = rng


def numpy_generator(kind):
    return np.random.Generator(kind(3))


KINDS = {
    **{
        kind.__name__: partial(numpy_generator, kind)
        for kind in (np.random.PCG64, np.random.MT19937, np.random.Philox, np.random.SFC64)
    },
    "RandomState": lambda: np.random.RandomState(3),
    "Random": lambda: random.Random(3),
    "torch": lambda: torch.Generator().manual_seed(3),
}


def drawn(generator):
    if isinstance(generator, torch.Generator):
        return torch.rand((), generator=generator).item()
    # an odd number of normal ones: half a pair, and half a word, are part of the state
    return getattr(generator, "gauss", getattr(generator, "normal", None))(0, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_generator_comes_back_through_a_file(kind):
    held = KINDS[kind]()
    drawn(held)
    state = unpack(*pack(random_state({"here": Holder([held])})))
    expected = [drawn(held) for _ in range(5)]
    assert set_random_state(state, {"here": Holder([held])}) == []
    assert [drawn(held) for _ in range(5)] == expected
    fresh = KINDS[kind]()
    set_random_state(state, {"here": Holder([fresh])})
    assert [drawn(fresh) for _ in range(5)] == expected
    assert set_random_state(state, {"here": Holder([])}) == ["here.rng.0"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_second_forward_draws_what_the_first_one_drew(kind):
    model, held = nn.Linear(1, 1), KINDS[kind]()
    model.draws = {"by": [held]}
    rewind = Rewind(model)
    rewind.save()
    first = drawn(held)
    rewind.back()
    assert drawn(held) == first


def test_the_search_ends_in_rings_and_passes_what_is_long():
    rng, ring = random.Random(0), {}
    ring |= {"ring": ring, "data": [random.Random(1)] * 2000, "call": rng.random, "one": rng}
    assert list(random_state({"x": [ring]})["held"]) == ["x.0.one"]
    assert random_state({"x": random.SystemRandom()})["held"] == {}


# --- runs


class Rows(Dataset):
    def __init__(self, rng, size=12):
        self.rng, self.x = rng, torch.linspace(-1, 1, size)[:, None]

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        x = self.x[index] + 0.1 * drawn(self.rng)
        return x, 1 / (x - 0.3)


class Order(Sampler):
    def __init__(self):
        self.rng = random.Random(1)

    def __iter__(self):
        rows = list(range(20))
        self.rng.shuffle(rows)
        return iter(rows)

    def __len__(self):
        return 20


def nested(workers=0):
    """Return a loader whose data set, sampler and collate function each hold generators."""
    draws = np.random.default_rng(7)

    def collate(rows):
        x, y = torch.utils.data.default_collate(rows)
        return x + 0.01 * float(draws.normal()), y

    first, second = Rows(np.random.RandomState(2)), Rows(random.Random(4))
    dataset = ConcatDataset([Subset(first, range(8)), second])
    return DataLoader(dataset, 4, sampler=Order(), collate_fn=collate, num_workers=workers)


class Stream(IterableDataset):
    def __init__(self):
        self.rows = Rows(np.random.default_rng(5))

    def __iter__(self):
        return (self.rows[i] for i in range(12))


def streamed():
    return DataLoader(Stream(), 4)


class Lister:
    """A loader of the user's own, with a class that knows no DataLoader."""

    def __init__(self):
        self.rng = np.random.default_rng(1)

    def __iter__(self):
        for _ in range(5):
            x = torch.as_tensor(self.rng.uniform(-1, 1, (4, 1)), dtype=torch.float32)
            yield x, 1 / (x - 0.3)


class Noisy(nn.Module):
    def __init__(self):
        super().__init__()
        self.N, self.D, self.draws = nn.Linear(1, 1), nn.Linear(1, 1), {"by": random.Random(9)}

    def forward(self, x):
        x = x + 0.1 * self.draws["by"].gauss(0, 1)
        return self.N(x), self.D(x)


class Leave:
    def __init__(self, step):
        self.step = step

    def on_batch_end(self, trainer):
        if trainer.step == self.step:
            raise KeyboardInterrupt


def run(loader, folder, leave=-1, *, resume=False, **options):
    torch.manual_seed(0)
    model = Noisy()
    trainer = SCMTrainer(
        model,
        torch.optim.SGD(model.parameters(), lr=0.1),
        SCMTrainingLoss(normalizer="chordal"),
        loader,
        config=TrainingConfig(
            max_epochs=3, progress=False, seed=1, checkpoint_dir=folder, **options
        ),
        callbacks=[Leave(leave)],
    )
    trainer.fit(resume_from="auto" if resume else None)
    return [p.detach().clone() for p in model.parameters()]


def left_and_resumed(make, folder, leave, **options):
    with pytest.raises(KeyboardInterrupt):
        run(make(), folder, leave, **options)
    return run(make(), folder, resume=True, **options)


@pytest.mark.parametrize(
    ("make", "every"),
    [(nested, 3), (nested, None), (partial(nested, 2), 3), (streamed, 2), (Lister, 3)],
    ids=["nested", "after epochs", "workers", "stream", "own"],
)
def test_runs_with_generators_everywhere_end_with_the_same_bits(make, every, tmp_path):
    whole = run(make(), tmp_path / "whole")
    rest = left_and_resumed(make, tmp_path / "left", 8, checkpoint_every_steps=every)
    assert all(map(torch.equal, rest, whole))


OUTSIDE = random.Random(0)


class Hidden(Rows):
    """Rows that depend on a generator which no attribute leads to."""

    def __init__(self, size=12):
        super().__init__(None, size)

    def __getitem__(self, index):
        return self.x[index] + OUTSIDE.random(), self.x[index]


def hidden():
    OUTSIDE.seed(0)  # as a new process would
    return DataLoader(Hidden(), 4)


def test_a_batch_that_does_not_come_back_is_an_error_that_names_it(tmp_path):
    with pytest.raises(CheckpointError, match=r"batch 0 of epoch 1 .* no checkpoint holds"):
        left_and_resumed(hidden, tmp_path, 5, checkpoint_every_steps=1)


def test_data_that_changed_are_found_in_any_place(tmp_path):
    rows = [[torch.randn(n, 1), torch.randn(n, 1)] for n in (4, 20_000, 4)]  # by either sum
    with pytest.raises(KeyboardInterrupt):
        run(rows, tmp_path, 3, checkpoint_every_steps=1)
    rows[1][1][-1] += 1e-6
    with pytest.raises(CheckpointError, match="batch 1 of epoch 0"):
        run(rows, tmp_path, resume=True, checkpoint_every_steps=1)
    rows[1][1][-1] -= 1e-6
    rows[0][0] = rows[0][0].double()
    with pytest.raises(CheckpointError, match="batch 0 of epoch 0"):
        run(rows, tmp_path, resume=True, checkpoint_every_steps=1)


def test_a_generator_that_is_made_late_is_asked_for(tmp_path):
    class Late(Rows):
        def __init__(self):
            super().__init__(None)

        def __getitem__(self, index):
            self.other = getattr(self, "other", None) or random.Random(3)
            return self.x[index] + self.other.random(), self.x[index]

    with pytest.raises(CheckpointError, match=r"train_loader\.dataset\.other must be there when"):
        left_and_resumed(lambda: DataLoader(Late(), 4), tmp_path, 7)
