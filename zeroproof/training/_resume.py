"""All parts of a run as one state, into a checkpoint and back."""

import copy
import dataclasses
import itertools
import os
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from zeroproof._extras import require
from zeroproof.errors import CheckpointError, DamagedCheckpointError, RangeError, ZeroProofError
from zeroproof.training._keeping import Average, Best, all_state, set_all_state
from zeroproof.training._progress import Progress
from zeroproof.training._source import Source
from zeroproof.training.callbacks import Events
from zeroproof.training.checkpoint import (
    check_model_state,
    copied,
    list_checkpoints,
    load_checkpoint,
    remove_stale,
    save_checkpoint,
)
from zeroproof.training.config import TrainingConfig

__all__ = ["RunParts", "check_place", "resume", "save"]

# what may differ without making it another run
_FREE = {
    *("device", "progress", "max_epochs", "max_steps", "log_dir", "log_every"),
    *("checkpoint_dir", "checkpoint_every_steps", "keep_checkpoints", "max_skipped_steps"),
    *("readout", "calibrate"),
}


class RunParts(NamedTuple):
    """What a run is made of."""

    config: TrainingConfig
    model: nn.Module
    loss_fn: Callable[..., Any]
    optimizer: torch.optim.Optimizer
    scheduler: Any
    scaler: torch.amp.GradScaler
    average: Average | None
    best: Best
    events: Events
    progress: Progress
    sources: Mapping[str, Source]
    accelerator: Any


def check_place(run: RunParts, *, fresh: bool) -> None:
    """Find out before the first step whether checkpoints can be written.

    Raises:
        CheckpointError: The folder cannot be written, or a new run would mix with another one.
    """
    if run.config.checkpoint_dir is None:
        return
    copied(run.events.state())  # what cannot be stored shall be known now
    for part, source in run.sources.items():
        if source.keeps_workers():
            warnings.warn(
                f"{part}_loader has persistent_workers, whose random numbers no checkpoint can "
                "hold: a run that goes on may end with other bits",
                stacklevel=3,
            )
    folder, problem = _folder(run.config), ""
    if run.accelerator.is_main_process:
        remove_stale(folder)
        if fresh and list_checkpoints(folder):
            problem = (
                f"checkpoint_dir must hold no checkpoint when a run begins, but {folder} has "
                f"{len(list_checkpoints(folder))}: pass fit(resume_from='auto') to go on, or "
                "another folder"
            )
        else:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryFile(dir=folder):
                    pass
            except OSError as error:
                problem = (
                    f"checkpoint_dir must be a folder that can be written, got {folder}: "
                    f"{error.strerror}"
                )
    problem = _from_main(run, problem)
    if problem:
        raise CheckpointError(problem)


def save(run: RunParts) -> Path | None:
    """Write a checkpoint; all processes have to call.

    Warns:
        UserWarning: It could not be written; training may go on, older checkpoints are whole.
    """
    config, path, problem = run.config, None, ""
    mine = {**run.progress.own_state(run.sources), "callbacks": run.events.state()}
    own = _gathered(run, [mine])
    if run.accelerator.is_main_process:
        state = {**_common(run), "processes": own}
        try:
            path = save_checkpoint(
                _folder(config), run.progress.step, state, config.keep_checkpoints
            )
        except OSError as error:
            problem = f"no checkpoint could be written at step {run.progress.step}: {error}"
    problem = _from_main(run, problem)
    if problem:
        warnings.warn(problem, stacklevel=3)
        return None
    return Path(_from_main(run, str(path)))


def resume(run: RunParts, place: str | os.PathLike[str]) -> Path | None:
    """Set all parts to the state in a checkpoint; `None` if there is none and "auto" was asked for.

    Args:
        run: The parts, new.
        place: `"auto"` for the newest whole checkpoint of `checkpoint_dir`, or a checkpoint, or a
            folder of them.

    Raises:
        CheckpointError: It belongs to another run; nothing was changed.
        RangeError: `"auto"` without a `checkpoint_dir`.

    Warns:
        UserWarning: A damaged checkpoint was left out, there is nothing to resume from, or options
            differ from those of the run.
    """
    automatic = place == "auto"
    if automatic and run.config.checkpoint_dir is None:
        raise RangeError("resume_from='auto' must come with a checkpoint_dir, got none")
    folder = _folder(run.config) if automatic else Path(place).expanduser()
    one = not automatic and (folder.name.startswith("step-") or not folder.is_dir())
    for path in [folder] if one else list_checkpoints(folder):
        problem = _taken_up(run, path, automatic=automatic)
        if not problem:
            return path
        if one:
            raise DamagedCheckpointError(problem)
        warnings.warn(f"a damaged checkpoint is left out: {problem}", stacklevel=4)
    if not automatic:
        raise CheckpointError(f"{folder} must hold a whole checkpoint, got none")
    _put_aside(run, _newer(run, None, automatic=True))
    warnings.warn(f"{folder} holds no checkpoint; the run begins anew", stacklevel=4)
    return None


def _taken_up(run: RunParts, path: Path, *, automatic: bool) -> str:
    """Set all parts to a checkpoint's state; return why it is damaged, on all processes alike.

    Then everything is as it was before.
    """
    newer: list[Path] = []
    problems: list[str] = []
    callbacks: list[Any] = []
    before = None
    try:
        state = load_checkpoint(path)
        newer = _newer(run, path, automatic=automatic)
        _check(run, state, path)
        # a copy: what is set is written into the tensors there are
        before = copied({**_common(run), "own": run.progress.own_state(run.sources)})
        own = state["processes"][run.accelerator.process_index]
        callbacks = [*own["callbacks"]]
        list(zip(run.events.callbacks, callbacks, strict=True))  # a state for each
        able = _step_fails(run.optimizer) is None
        _set(run, state, own)
        if able and (failure := _step_fails(run.optimizer)) is not None:
            problems.append(f"{path} must hold a state to step with, but: {failure!r}")
    except DamagedCheckpointError as error:
        problems.append(str(error))
    except ZeroProofError:
        raise
    except Exception as error:  # from reading to the last setter: a state that cannot be set
        problems.append(f"{path} must hold the state of a run, but: {error!r}")
    problems = _gathered(run, problems)
    if not problems:
        run.events.restore(callbacks)  # last: an error of theirs is not the file's
        _put_aside(run, newer)
        return ""
    if before is not None:
        _set(run, before, before["own"])
        run.progress.now = {}
    return problems[0]


def _set(run: RunParts, state: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    set_all_state(run.model, state["model"])
    if isinstance(run.loss_fn, nn.Module):
        set_all_state(run.loss_fn, state["loss"])
    run.optimizer.load_state_dict(state["optimizer"])
    if run.scheduler is not None:
        run.scheduler.load_state_dict(state["scheduler"])
    run.scaler.load_state_dict(state["scaler"])
    if run.average is not None:
        run.average.restore(state["average"])
    run.best.restore(state["best"])
    run.progress.restore(state["progress"])
    run.progress.restore_own(own, run.sources)


def _common(run: RunParts) -> dict[str, Any]:
    return {
        "names": _names(run),
        "options": _options(run.config),
        "model": all_state(run.model),
        "loss": all_state(run.loss_fn) if isinstance(run.loss_fn, nn.Module) else None,
        "optimizer": run.optimizer.state_dict(),
        "scheduler": None if run.scheduler is None else run.scheduler.state_dict(),
        "scaler": run.scaler.state_dict(),
        "average": None if run.average is None else run.average.state(),
        "best": run.best.state(),
        "progress": run.progress.state(),
    }


def _names(run: RunParts) -> dict[str, Any]:
    """Return what has to agree before a state may be set."""
    return {
        "processes": run.accelerator.num_processes,
        "optimizer": type(run.optimizer).__name__,
        "parameters per group": [len(g["params"]) for g in run.optimizer.param_groups],
        "scheduler": None if run.scheduler is None else type(run.scheduler).__name__,
        "loss scaler": run.scaler.is_enabled(),
        "loaders": {part: source.kind() for part, source in run.sources.items()},
        "loss": type(run.loss_fn).__name__ if isinstance(run.loss_fn, nn.Module) else None,
        "moving average": run.average is not None,
        "callbacks": [type(callback).__name__ for callback in run.events.callbacks],
    }


def _options(config: TrainingConfig) -> dict[str, str]:
    options = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    if options["target_scale"] == "auto":  # the checkpoint tells s
        del options["target_scale"]
    return {name: repr(x) for name, x in options.items() if name not in _FREE}


def _check(run: RunParts, state: Mapping[str, Any], path: Path) -> None:
    try:
        check_model_state(run.model, state["model"], path)
        if isinstance(run.loss_fn, nn.Module) and state["loss"] is not None:
            check_model_state(run.loss_fn, state["loss"], path)
        for what, mine in _names(run).items():
            if state["names"][what] != mine:
                raise CheckpointError(
                    f"{path} must be resumed with the {what} it was written with, "
                    f"{state['names'][what]!r}, got {mine!r}; "
                    "zeroproof.training.load_weights reads the weights alone"
                )
        before = state["options"]
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{path} must be a trainer's checkpoint, but lacks {error}"
        ) from error
    now = _options(run.config)
    changed = [name for name in now if before.get(name) != now[name]]
    if changed:
        shown = ", ".join(f"{name} {before.get(name)} -> {now[name]}" for name in changed)
        warnings.warn(f"the run goes on with other options: {shown}", stacklevel=5)


def _step_fails(optimizer: torch.optim.Optimizer) -> Exception | None:
    """Return why a copy cannot make a step: torch sets any state, and finds out at the first one.

    Not every optimizer can be tried: `SparseAdam` wants other gradients, and a copy lacks what a
    class of one's own keeps beside its groups. Those that fail before a state is set tell nothing.
    """
    try:
        trial = copy.deepcopy(optimizer)
        for p in (p for group in trial.param_groups for p in group["params"]):
            p.grad = torch.zeros_like(p)
        step: Any = type(trial).step  # a scheduler has put one of the optimizer itself into it
        step(trial, lambda: torch.zeros(()))
    except Exception as error:
        return error
    return None


def _newer(run: RunParts, path: Path | None, *, automatic: bool) -> list[Path]:
    """Return the checkpoints that stand in the way of those to come: of later steps.

    Raises:
        CheckpointError: One was asked for by its path, and there is a later one.
    """
    if run.config.checkpoint_dir is None:
        return []
    there = [each.resolve() for each in list_checkpoints(_folder(run.config))]
    found = None if path is None else path.resolve()
    newer = there[: there.index(found)] if found in there else there
    if newer and not automatic:
        raise CheckpointError(
            f"checkpoint_dir must hold nothing newer than {path}, and nothing of another run, "
            f"but has {newer[0]}: go on from that one, or choose another checkpoint_dir"
        )
    return newer


def _put_aside(run: RunParts, damaged: list[Path]) -> None:
    run.accelerator.wait_for_everyone()  # all have read what is there
    for old in damaged if run.accelerator.is_main_process else ():
        aside = old.with_name(f"damaged-{old.name}")
        numbered = (aside.with_name(f"{aside.name}-{i}") for i in itertools.count(2))
        old.rename(next(x for x in itertools.chain([aside], numbered) if not x.exists()))


def _folder(config: TrainingConfig) -> Path:
    return Path(str(config.checkpoint_dir)).expanduser()


def _gathered(run: RunParts, own: list[Any]) -> list[Any]:
    """Return the lists of all processes as one."""
    if run.accelerator.num_processes == 1:
        return own
    return require("accelerate.utils", extra="train").gather_object(own)


def _from_main(run: RunParts, text: str) -> str:
    """Return what the main process says, on all of them."""
    if run.accelerator.num_processes == 1:
        return text
    (said,) = require("accelerate.utils", extra="train").broadcast_object_list([text])
    return said
