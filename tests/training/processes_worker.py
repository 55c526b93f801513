"""Runs what tests of processes ask for: alone, and on two that find one another as torchrun says.

`python processes_worker.py FOLDER` forks them, so that what they import is imported once.
"""

import os
import socket
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from zeroproof.autodiff import GradientPolicy
from zeroproof.errors import ZeroProofError
from zeroproof.layers import ProjectiveMLP
from zeroproof.scm import SCM
from zeroproof.training import (
    AdaptiveSampler,
    AdaptiveSampling,
    SCMTrainer,
    SCMTrainingLoss,
    TrainingConfig,
    head_readout,
)

FIT = SCMTrainingLoss(normalizer="chordal", lambda_margin=0.1, relative_margin=True)
WORLD = 2


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(1, 8), nn.Tanh())
        self.N, self.D = nn.Linear(8, 1), nn.Linear(8, 1)

    def forward(self, x):
        h = self.trunk(x)
        return self.N(h), self.D(h)


class Normed(Net):
    """With running statistics, which differ from process to process, and with chance."""

    def __init__(self):
        super().__init__()
        self.trunk.extend([nn.BatchNorm1d(8), nn.Dropout(0.1)])


class Half(Net):
    """Tuples that are finite for negative x alone."""

    def forward(self, x):
        N, D = super().forward(x)
        return torch.where(x < 0, N, torch.inf), D


class Rooted(nn.Module):
    """A pole at 0.5 and, at -0.5, a root whose gradient alone is nan; with running statistics."""

    def __init__(self):
        super().__init__()
        self.scale, self.inner = nn.Parameter(torch.ones(1)), Net()
        self.norm = nn.BatchNorm1d(1, momentum=None)

    def forward(self, x):
        pole = (1 / SCM(self.scale * (x - 0.5))).payload
        root = (self.scale * (x + 0.5)).abs()
        root = torch.where(root > 0, root.sqrt(), torch.zeros_like(root))
        N, D = self.inner(torch.tanh(pole) + root)
        return N, D + 0 * self.norm(x.detach()).sum()


def spoilt(count, bad):
    """Inputs that are nan, all those of one process's first batch among them."""
    x, y = rows(count).tensors
    x = x.clone()
    x[bad], x[20] = torch.nan, torch.inf
    return TensorDataset(x, y)


def at_poles():
    x, _ = finite(64).tensors
    x = x.clone()
    x[5], x[27], x[28] = 0.5, -0.5, 0.5
    return TensorDataset(x, torch.sin(x))


def squares(outputs, targets):
    return (outputs[0] * targets[1] - outputs[1] * targets[0]).square().mean()


def rows(count):
    x = torch.linspace(-1, 1, count)[:, None]
    y = 1 / (x - 0.3)
    y[::7] = torch.inf  # rows that the sign loss counts, unequally many on the processes
    return TensorDataset(x, y)


def finite(count):
    x = torch.linspace(-1, 1, count)[:, None]
    return TensorDataset(x, 1 / (x - 0.3))


class Stop:
    def __init__(self, rank):
        self.rank = rank

    def on_batch_end(self, trainer):
        if trainer.accelerator.process_index == self.rank and trainer.step == 2:
            trainer.stop("asked")


class Kill:
    """Leave on every process at once, after a step or in a validation."""

    def __init__(self, step=-1, epoch=-1):
        self.step, self.epoch = step, epoch

    def on_batch_end(self, trainer):
        if trainer.step == self.step:
            raise KeyboardInterrupt

    def on_validate_end(self, trainer):
        if trainer.epoch == self.epoch:
            raise KeyboardInterrupt


def case(name, world):
    """Return the keywords of a case, or the names of all."""
    whole = rows(96)
    cases = {
        "shuffled": {"data": whole, "shuffle": True, "config": {"tau_train_max": 5e-4}},
        "uneven": {"data": rows(45)},
        "one short batch": {"data": rows(5), "val": rows(3)},
        "fewer rows than one batch": {"data": rows(20), "val": rows(20)},
        "dropped": {"data": rows(45), "drop_last": True},
        "accumulated": {
            "data": finite(45),
            "loss_fn": squares,
            "config": {"grad_accumulation_steps": 2, "target_scale": 10.0},
        },
        "any loss": {"data": finite(45), "loss_fn": squares, "config": {"target_scale": 10.0}},
        "no finite row on one": {"data": rows(96), "model": Half},
        "bad inputs": {"data": spoilt(96, slice(8, 16))},
        "bad inside": {"data": at_poles(), "model": Rooted},
        "bad, accumulated": {
            "data": at_poles(),
            "model": Rooted,
            "loss_fn": squares,
            "config": {"grad_accumulation_steps": 2},
        },
        "clipped": {"data": whole, "config": {"max_grad_norm": 0.05}},
        "clamped": {
            "data": whole,
            "loss_fn": SCMTrainingLoss(normalizer="attached"),
            "config": {"gradient_policy": GradientPolicy.CLAMP},
        },
        "averaged": {"data": whole, "config": {"ema_decay": 0.9, "keep_best": True}},
        "too little coverage": {
            "data": whole,
            "model": Half,
            "config": {"coverage_patience": 2, "max_epochs": 5},
        },
        "stopped by one": {"data": whole, "callbacks": [Stop(world - 1)], "config": {"seed": 0}},
        "bfloat16": {"data": whole, "config": {"use_amp": True}},
    }
    return cases[name] if name else list(cases)


def trained(keywords, world, **extra):
    torch.manual_seed(0)
    model = keywords.get("model", Net)()
    options = {"max_epochs": 3, "progress": False, "seed": 3, "log_every": 2}
    loader, val = (
        DataLoader(
            data,
            batch_size=16 // world,
            shuffle=keywords.get("shuffle", False),
            drop_last=keywords.get("drop_last", False),
        )
        for data in (keywords["data"], keywords.get("val", rows(30)))
    )
    return SCMTrainer(
        model,
        torch.optim.SGD(model.parameters(), lr=0.3),
        keywords.get("loss_fn", FIT),
        loader,
        val,
        config=TrainingConfig(**{**options, **keywords.get("config", {}), **extra}),
        accelerator=keywords.get("accelerator"),
        callbacks=keywords.get("callbacks", ()),
    )


def outcome(trainer):
    clockless = [
        {k: v for k, v in row.items() if not k.startswith("time_")} for row in trainer.history
    ]
    weights = torch.cat([p.detach().flatten() for p in trainer.model.parameters()])
    return clockless, weights, trainer.stop_reason, trainer.step


def own_lists(rank, world):
    """Batches of a loader that is no DataLoader: three on one process, one on the other."""
    x, y = rows(40).tensors
    parts = [(x[:10], y[:10]), (x[10:20], y[10:20]), (x[20:30], y[20:30]), (x[30:], y[30:])]
    if world == 1:
        joint = tuple(torch.cat(z) for z in zip(parts[0], parts[3], strict=True))
        return [joint, parts[1], parts[2]]
    return parts[:3] if rank == 0 else parts[3:]


def weighed(batches, rank, world):
    """Return them as dicts, with weights for the labels of the first process alone."""
    own, found = torch.linspace(0, 2, 10)[:, None], []
    for x, y in batches:
        weight = own if world > 1 else torch.cat([own, torch.ones(len(y) - 10, 1)])
        found.append({"x": x, "y": y, **({} if rank else {"weight": weight})})
    return found


def from_lists(batches):
    torch.manual_seed(0)
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    config = TrainingConfig(max_epochs=2, progress=False)
    trainer = SCMTrainer(model, optimizer, FIT, batches, config=config)
    trainer.fit()
    return outcome(trainer)


def resumed(folder, world, kill, every, *others, model=Net):
    """Return a run that was not interrupted, and one that was left and taken up again."""
    keywords = {"data": rows(90), "shuffle": True, "model": model}
    keywords["config"] = {"tau_train_max": 5e-4}
    found = []
    for name in ("whole", "left"):
        extra = {"checkpoint_dir": f"{folder}/{name}", "checkpoint_every_steps": every}
        if name == "left":
            with suppress(KeyboardInterrupt):
                trained({**keywords, "callbacks": [kill, *others]}, world, **extra).fit()
        trainer = trained({**keywords, "callbacks": [Kill(), *others]}, world, **extra)
        trainer.fit(resume_from="auto" if name == "left" else None)
        found.append(outcome(trainer))
    return found


def sharded():
    """Return an accelerator for FSDP2, which Accelerate itself does not switch on for CPUs."""
    from accelerate import FullyShardedDataParallelPlugin
    from accelerate.utils import DistributedType

    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2, auto_wrap_policy="no_wrap", cpu_ram_efficient_loading=False
    )
    accelerator = Accelerator(cpu=True, fsdp_plugin=plugin)
    accelerator.state.distributed_type = DistributedType.FSDP
    accelerator.state.fsdp_plugin = plugin
    return accelerator


def readout_rows():
    x = torch.linspace(-1, 1, 128, dtype=torch.float64)[:, None]
    noise = torch.randn(128, 1, generator=torch.Generator().manual_seed(0)).double()
    return x, torch.sin(2 * x) / (x - 0.3) * (1 + 0.02 * noise)


def readout_net():
    torch.manual_seed(0)
    return ProjectiveMLP(1, 1, hidden=(16,)).double()


def headed(model, result):
    return tuple(result), [p.detach().clone() for p in model.parameters()]


def readouts(rank):
    """Return heads that were fitted to rows of which each process has its own."""
    x, y = readout_rows()
    model, config = (
        readout_net(),
        TrainingConfig(
            max_epochs=2, progress=False, seed=0, target_scale=1.0, readout=None, calibrate=False
        ),
    )
    loader = DataLoader(TensorDataset(x, y), batch_size=16)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    trainer = SCMTrainer(model, optimizer, SCMTrainingLoss(), loader, config=config)
    trainer.fit()
    trunk = {name: value.clone() for name, value in model.state_dict().items()}
    answers = {"trainer": (*headed(model, trainer.readout()), trunk)}
    for name, share in (("halves", 64), ("unequal", 112)):
        own = tuple(z.split([share, 128 - share])[rank] for z in (x, y))
        model = readout_net()
        answers[name] = headed(model, head_readout(model, [own]))
    model = readout_net()
    before = [p.clone() for p in model.parameters()]
    try:
        head_readout(model, [] if rank else [(x, y)])
    except ZeroProofError as error:
        answers["no row"] = str(error)
    answers["untouched"] = all(map(torch.equal, before, model.parameters()))
    return answers


def scores(rank):
    """Return what is drawn from after processes with different models scored the rows."""

    class Line(nn.Module):
        def forward(self, x):
            return torch.ones_like(x), x - (0.2 if rank else 7.2)

    accelerator = Accelerator()
    trainer = SimpleNamespace(
        model=Line(), history=[{}], device=accelerator.device, accelerator=accelerator
    )
    sampler = AdaptiveSampler(20, near=0.1)
    AdaptiveSampling(sampler, torch.arange(20.0)[:, None]).on_epoch_end(trainer)
    return sampler.probabilities


def on_two(folder, rank):
    """Return what only two processes can tell."""
    answers = {"readouts": readouts(rank), "scores": scores(rank)}
    for name, attempt in (
        ("written by one", lambda: alone(folder, WORLD).fit(resume_from="auto")),
        ("no batch at all", lambda: from_lists([])),
    ):
        try:
            attempt()
        except ZeroProofError as error:
            answers[name] = str(error)
    config = {"max_epochs": 1, "max_grad_norm": 0.05, "seed": None}
    trainer = trained({"data": rows(96), "config": config, "accelerator": sharded()}, WORLD)
    weight = trainer.model.N.weight
    trainer.fit()
    answers["sharded"] = (trainer.history[0], type(weight).__name__, tuple(weight.shape))
    try:
        trained({"data": rows(96), "accelerator": sharded()}, WORLD, checkpoint_dir=folder)
    except ZeroProofError as error:
        answers["sharded checkpoint"] = str(error)
    return answers


def alone(folder, world):
    return trained({"data": rows(90)}, world, checkpoint_dir=f"{folder}/alone")


def main(folder):
    rank, world = (int(os.environ.get(*name)) for name in (("RANK", 0), ("WORLD_SIZE", 1)))
    answers = {}
    for name in case("", world):
        trainer = trained(case(name, world), world)
        trainer.fit()
        answers[name] = outcome(trainer)
    answers["lists"] = from_lists(own_lists(rank, world))
    answers["weights on one"] = from_lists(weighed(own_lists(rank, world), rank, world))
    answers["no batch on one"] = from_lists([] if rank else own_lists(0, WORLD))
    for name, kill, every, others, model in (
        ("in an epoch", Kill(step=5), 4, (), Net),
        ("in a validation", Kill(epoch=1), 6, (), Normed),
        ("after a wish", Kill(step=5), 4, (Stop(world - 1),), Net),
    ):
        place = f"{folder}/{world} {name}"
        answers[f"left {name}"] = resumed(place, world, kill, every, *others, model=model)
    if world == WORLD:
        answers |= on_two(folder, rank)
    else:
        alone(folder, world).fit()
    torch.save(answers, Path(folder) / f"answers{world}-{rank}.pt")
    if world == WORLD:
        torch.distributed.destroy_process_group()


def forked(folder):
    """Run alone, then on two processes; return whether all ended well."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    ended = []
    for world in (1, WORLD):
        children = []
        for rank in map(str, range(world)):
            if child := os.fork():
                children.append(child)
                continue
            if world > 1:
                place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(world)}
                os.environ.update(place, RANK=rank, LOCAL_RANK=rank)
            try:
                main(folder)
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        ended += [os.waitpid(child, 0)[1] for child in children]
    return not any(ended)


if __name__ == "__main__":
    if "RANK" in os.environ:
        main(sys.argv[1])
    else:
        sys.exit(not forked(sys.argv[1]))
