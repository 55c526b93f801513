"""Runs that are killed without warning, and taken up again; each in a process of its own."""

import itertools
import json
import os
import signal
import sys
import traceback
from pathlib import Path

import torch
from accelerate.utils import set_seed
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from zeroproof import _record
from zeroproof.training import (
    AdaptiveSampler,
    AdaptiveSampling,
    CoverageController,
    SCMTrainer,
    SCMTrainingLoss,
    TrainingConfig,
    checkpoint,
    score_of_targets,
)
from zeroproof.training.progress import all_state

# name -> keywords of `run`
VARIANTS = {
    "plain": {},
    "own generator": {"generator": True},
    "workers": {"workers": 2},
    "float16": {"config": {"use_amp": True, "amp_dtype": torch.float16}},
    "accumulated": {"config": {"grad_accumulation_steps": 3}},
    "after epochs": {"config": {"checkpoint_every_steps": None}},
    "adaptive": {"adaptive": True},
    "before validation": {"config": {"checkpoint_every_steps": 13}},
    "own loss": {"own_loss": True},
    "no seed": {"config": {"seed": None}},
}
OPTIONS = {
    "max_epochs": 4,
    "seed": 1,
    "progress": False,
    "keep_best": True,
    "ema_decay": 0.9,
    "scheduler_cadence": "step",
    "tau_train_max": 3e-4,
    "max_grad_norm": 1.0,
    "checkpoint_every_steps": 4,
    "log_every": 3,
}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Linear(1, 8), nn.Tanh(), nn.BatchNorm1d(8), nn.Dropout(0.1), nn.Linear(8, 8)
        )
        self.N, self.D = nn.Linear(8, 1), nn.Linear(8, 1)
        self.register_buffer("seen", torch.zeros(()), persistent=False)

    def forward(self, x):
        self.seen += self.training
        h = self.trunk(x) * (1 + 1e-3 * self.seen)
        return self.N(h), self.D(h)


class Jittered(Dataset):
    """Rows that are drawn anew in every epoch, by whatever process reads them."""

    def __init__(self, x, y):
        self.x, self.y = x, y

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return self.x[index] + 0.01 * torch.randn(1), self.y[index]


class Death:
    """Kills this process: after a step, or in the middle of the nth checkpoint."""

    def __init__(self, moment):
        self._step = moment if isinstance(moment, int) else -1
        self._epoch = -1
        if isinstance(moment, str):
            verb, count = moment.split()
            if verb == "validating":
                self._epoch = int(count)
                return
            # the nth call of what is at work at that moment
            place = {"writing": "checksum", "renaming": "_flush", "removing": "list_checkpoints"}
            calls = {"writing": 1, "renaming": 3, "removing": 1}[verb]
            self._arm(place[verb], int(count) * calls)

    def _arm(self, name, count):
        module = _record if name == "checksum" else checkpoint
        inner, calls = getattr(module, name), itertools.count(1)

        def deadly(*arguments):
            if next(calls) == count:
                os.kill(os.getpid(), signal.SIGKILL)
            return inner(*arguments)

        setattr(module, name, deadly)

    def on_validate_end(self, trainer):
        if trainer.epoch == self._epoch:
            os.kill(os.getpid(), signal.SIGKILL)

    def on_batch_end(self, trainer):
        if trainer.step == self._step:
            os.kill(os.getpid(), signal.SIGKILL)


class OwnLoss(nn.Module):
    """A loss that learns its weight."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(()))
        self.inner = SCMTrainingLoss(normalizer="chordal")

    def forward(self, outputs, targets):
        return self.inner(outputs=outputs, targets=targets) * torch.exp(-self.w) + self.w


def run(folder, moment, resume, *, config=None, **kind):
    workers, generator, adaptive, own_loss = (
        kind.get(name, 0) for name in ("workers", "generator", "adaptive", "own_loss")
    )
    set_seed(0)
    model, x = Net(), torch.linspace(-1, 1, 100)[:, None]
    y = 1 / (x - 0.3)
    own = torch.Generator().manual_seed(5) if generator else None
    dataset = Jittered(x, y) if not adaptive else TensorDataset(x, y)
    order, callbacks = {"shuffle": True, "generator": own}, [Death(moment)]
    if adaptive:
        sampler = AdaptiveSampler(100, seed=2)
        sampler.update(score_of_targets(y))
        order = {"sampler": sampler}
        callbacks += [AdaptiveSampling(sampler, x), CoverageController(0.99)]
    validation = DataLoader(
        TensorDataset(x[::3], y[::3]),
        batch_size=5,
        shuffle=True,  # so that the last bits of its sums tell whether its order came back
        generator=torch.Generator().manual_seed(6),
    )
    loss_fn = OwnLoss() if own_loss else SCMTrainingLoss(normalizer="chordal")
    learned = [*model.parameters(), *(loss_fn.parameters() if own_loss else ())]
    optimizer = torch.optim.AdamW(learned, lr=1e-2)
    places = {"checkpoint_dir": folder / "kept", "log_dir": folder / "log"}
    trainer = SCMTrainer(
        model,
        optimizer,
        loss_fn,
        DataLoader(dataset, batch_size=8, num_workers=workers, **order),
        validation,
        config=TrainingConfig(**{**OPTIONS, **places, **(config or {})}),
        scheduler=torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 60),
        callbacks=callbacks,
    )
    trainer.fit(resume_from="auto" if resume else None)
    return outcome(trainer, folder)


def outcome(trainer, folder):
    """Return all that a run leaves, without what the clock says."""
    return {
        "history": [
            {k: v for k, v in row.items() if not k.startswith("time_")} for row in trainer.history
        ],
        "weights": all_state(trainer.model),
        "optimizer": trainer.optimizer.state_dict(),
        "scheduler": trainer.scheduler.state_dict(),
        "end": [trainer.stop_reason, trainer.best_epoch, trainer.step],
        "log": (folder / "log" / "steps.jsonl").read_text(encoding="utf-8"),
        "last": newest(trainer.checkpoint),
    }


def newest(path):
    """Return what the last checkpoint holds, without what the clock says."""
    state = checkpoint.load_checkpoint(path)
    del state["progress"]["seconds"]
    state["progress"]["history"] = state["progress"]["row"] = None
    return state


def apart(folder, name, moment, resume, answers):
    """Run in a child process; return how it ended."""
    child = os.fork()
    if not child:
        try:
            answer = run(folder, moment, resume, **VARIANTS[name])
            torch.save(answer, answers)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(folder, moments_of):
    run(folder / "warm", None, False, config={"max_epochs": 1})  # what it imports, children have
    for name, moments in moments_of.items():
        apart(folder / name / "whole", name, None, False, folder / f"{name}.pt")
        for moment in moments:
            place, answers = folder / name / str(moment), folder / f"{name} {moment}.pt"
            died = apart(place, name, moment, False, answers)
            assert died == -signal.SIGKILL, (name, moment, died)
            assert not answers.exists()
            apart(place, name, None, True, answers)


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
