"""Loaders of every kind as a source of batches: their order, their place, their way back."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    RandomSampler,
    TensorDataset,
)

from zeroproof.data import TableStream
from zeroproof.layers import ProjectiveMLP
from zeroproof.training import SCMTrainer, SCMTrainingLoss, TrainingConfig

X = torch.linspace(-1, 1, 24)[:, None]
Y = 1 / (X - 0.3)


def generated(seed):
    return torch.Generator().manual_seed(seed)


def by_batch_sampler():
    sampler = BatchSampler(RandomSampler(X, generator=generated(4)), 5, drop_last=False)
    return DataLoader(TensorDataset(X, Y), batch_sampler=sampler)


class Keeper:
    """A loader that keeps its own place."""

    def __init__(self):
        self.epoch = self.place = 0

    def __iter__(self):
        order = torch.randperm(24, generator=generated(self.epoch)).split(5)
        while self.place < len(order):
            rows = order[self.place]
            self.place += 1
            yield X[rows], Y[rows]
        self.epoch, self.place = self.epoch + 1, 0

    def state_dict(self):
        return {"epoch": self.epoch, "place": self.place}

    def load_state_dict(self, state):
        self.epoch, self.place = state["epoch"], state["place"]


def by_distributed_sampler():
    dataset = TensorDataset(X, Y)
    sampler = DistributedSampler(dataset, num_replicas=2, rank=1, seed=3)
    return DataLoader(dataset, batch_size=3, sampler=sampler)


LOADERS = {
    "list": lambda: [(X[i : i + 5], Y[i : i + 5]) for i in range(0, 24, 5)],
    "in order": lambda: DataLoader(TensorDataset(X, Y), batch_size=5),
    "shuffled": lambda: DataLoader(TensorDataset(X, Y), batch_size=5, shuffle=True),
    "generator": lambda: DataLoader(
        TensorDataset(X, Y), batch_size=5, shuffle=True, generator=generated(3)
    ),
    "batch sampler": by_batch_sampler,
    "with replacement": lambda: DataLoader(
        TensorDataset(X, Y),
        batch_size=5,
        sampler=RandomSampler(X, replacement=True, num_samples=24, generator=generated(9)),
    ),
    "its own place": Keeper,
    "distributed sampler": by_distributed_sampler,
}


class Seen:
    """Note the rows of every step, and leave after one."""

    def __init__(self, leave=None):
        self.rows, self.marks, self.leave = [], [], leave

    def on_fit_begin(self, trainer):
        def note(_, args):
            if torch.is_grad_enabled():  # a window is run ahead without gradients
                self.rows.append(args[0].clone())

        trainer.model.register_forward_pre_hook(note)

    def on_batch_end(self, trainer):
        self.marks.append(len(self.rows))
        if trainer.step == self.leave:
            raise KeyboardInterrupt


def run(loader, folder, callback, *, resume=False, window=1):
    torch.manual_seed(0)
    model = ProjectiveMLP(1, 1, hidden=(4,))
    trainer = SCMTrainer(
        model,
        torch.optim.Adam(model.parameters()),
        SCMTrainingLoss(),
        loader,
        config=TrainingConfig(
            max_epochs=3,
            progress=False,
            seed=1,
            checkpoint_dir=folder,
            checkpoint_every_steps=2,
            coverage_threshold=0.0,
            grad_accumulation_steps=window,
            target_scale=1.0,  # and no row is read but in an epoch
            readout=None,
            calibrate=False,
        ),
        callbacks=[callback],
    )
    trainer.fit(resume_from="auto" if resume else None)
    return [p.detach().clone() for p in model.parameters()]


@pytest.mark.parametrize(
    ("name", "leave"), [(name, (3, 7)[k % 2]) for k, name in enumerate(LOADERS)]
)
def test_the_rest_of_an_interrupted_run_is_the_same(name, leave, tmp_path):
    whole = Seen()
    expected = run(LOADERS[name](), tmp_path / "whole", whole)
    with pytest.raises(KeyboardInterrupt):
        run(LOADERS[name](), tmp_path / "left", Seen(leave))
    rest = Seen()
    weights = run(LOADERS[name](), tmp_path / "left", rest, resume=True)
    assert all(map(torch.equal, rest.rows, whole.rows[leave - leave % 2 :]))
    assert len(rest.rows) == len(whole.rows) - (leave - leave % 2)
    assert all(map(torch.equal, weights, expected))


def test_epochs_of_a_shuffled_loader_differ(tmp_path):
    seen = Seen()
    run(LOADERS["distributed sampler"](), tmp_path, seen)
    first, second = torch.cat(seen.rows[:4]), torch.cat(seen.rows[4:8])
    assert not torch.equal(first, second)  # whose sampler must be told the epoch


@pytest.mark.parametrize(("workers", "window"), [(2, 1), (0, 3)])
def test_a_streamed_table_goes_on_where_it_was(tmp_path, workers, window):
    table = pa.table({"x": X[:, 0].numpy(), "y": Y[:, 0].numpy()})
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=7)

    def stream():
        return TableStream(
            tmp_path / "rows.parquet",
            features=["x"],
            target="y",
            batch_size=5,
            shuffle=True,
            seed=2,
            num_workers=workers,
        )

    leave = 7 if window == 1 else 5
    whole, rest = Seen(), Seen()
    expected = run(stream(), tmp_path / "whole", whole, window=window)
    with pytest.raises(KeyboardInterrupt):
        run(stream(), tmp_path / "left", Seen(leave), window=window)
    weights = run(stream(), tmp_path / "left", rest, resume=True, window=window)
    begun = whole.marks[leave - leave % 2 - 1]
    assert len(rest.rows) == len(whole.rows) - begun > 0
    assert all(map(torch.equal, rest.rows, whole.rows[begun:]))
    assert all(map(torch.equal, weights, expected))
    assert torch.cat(whole.rows).shape == (72, 1)
