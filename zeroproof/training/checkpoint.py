"""Checkpoints: a run as one state in the one stored form, whole or not there, the last few kept.

checkpoint_dir/
  step-000001200/         step-000001200.1/ for a second one of the same step
    state.safetensors   every tensor
    state.json          all else
  .lock                   held by the one run that writes here
"""

import copy
import dataclasses
import hashlib
import itertools
import json
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor, nn

from zeroproof._checks import positive, whole
from zeroproof._files import folder_in_place
from zeroproof._record import Stored, load_tensors, pack, said, unpack
from zeroproof.errors import CheckpointError, DamagedCheckpointError, RangeError, ZeroProofError
from zeroproof.training.config import Events, TrainingConfig
from zeroproof.training.loaders import from_all
from zeroproof.training.progress import Progress, all_state, set_all_state
from zeroproof.training.readout import heads_of, scale_numerator
from zeroproof.training.step import Forward

__all__ = [
    "Checkpoints",
    "find_checkpoint",
    "list_checkpoints",
    "load_checkpoint",
    "load_weights",
    "save_checkpoint",
]

_NAME = re.compile(r"step-([0-9]{9,})(?:\.([0-9]+))?")
_STALE = re.compile(r"\.step-[0-9]{9,}(\.[0-9]+)?-")  # left by a process that was killed
# options that may differ without making it another run
_FREE = {
    *("device", "progress", "max_epochs", "max_steps", "log_dir", "log_every"),
    *("checkpoint_dir", "checkpoint_every_steps", "keep_checkpoints", "max_skipped_steps"),
    *("readout", "calibrate"),
}


def save_checkpoint(folder: str | Path, step: int, state: Mapping[str, Any], keep: int = 2) -> Path:
    """Write `folder/step-...` under a temporary name, rename it, and remove all but the last.

    Args:
        folder: Where checkpoints live; made if it is missing.
        step: Number of the step, at least 0, part of the name.
        state: At most 99 levels of dicts, lists and tuples of numbers, strings, dense tensors.
        keep: How many steps to keep, this one included; of each its latest checkpoint.

    Returns:
        The checkpoint's own folder.

    Raises:
        CheckpointError: `state` holds something else, or what no file can hold.
        RangeError: `step` is below 0, or `keep` below 1.
        OSError: The disk is full, the folder cannot be written, ...; older ones are untouched.
    """
    folder, step = Path(folder), int(whole(step, "step"))
    whole(keep, "keep", low=1)
    final = _free_name(folder, step)
    with folder_in_place(final) as fresh:
        try:
            _STORED.write(fresh, {"state": state, "step": step})
        except RangeError as error:
            raise CheckpointError(str(error)) from error
        for path in fresh.iterdir():
            _flush(path)
    _flush(folder)
    newest = {_age(path)[0]: path for path in [*reversed(list_checkpoints(folder)), final]}
    steps = [step, *(each for each in sorted(newest, reverse=True) if each != step)]
    kept = {newest[each] for each in steps[:keep]}
    for old in list_checkpoints(folder):
        if old not in kept:
            shutil.rmtree(old, ignore_errors=True)
    return final


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote; nothing is unpickled.

    Raises:
        DamagedCheckpointError: A file is missing, cut or altered, or the name tells another step.
        CheckpointError: It is no checkpoint, or was written in a format that is not read here.
    """
    path = Path(path)
    if not path.is_dir():
        raise CheckpointError(f"{path} must be the folder of a checkpoint, got no folder")
    stored = _STORED.read(path)
    state, named = stored.get("state"), _NAME.fullmatch(path.name)
    if not isinstance(state, dict):
        raise DamagedCheckpointError(f"{path} must hold a state, got {type(state).__name__}")
    if named and stored.get("step", step := int(named[1])) != step:  # not in earlier versions
        found = f"{path} must hold the step of its name, got step {stored['step']}"
        raise DamagedCheckpointError(found)
    return state


def list_checkpoints(folder: str | Path) -> list[Path]:
    """Return the checkpoints in a folder, the newest first; damaged ones are among them."""
    folder = Path(folder)
    if not folder.is_dir():
        return []
    return sorted(
        (path for path in folder.iterdir() if _NAME.fullmatch(path.name) and path.is_dir()),
        key=_age,
        reverse=True,
    )


def find_checkpoint(folder: str | Path) -> tuple[Path, dict[str, Any]] | None:
    """Return the newest whole checkpoint of a folder and its state; `None` if there is none.

    Warns:
        UserWarning: One is damaged; it is named, and the one before it is tried.

    Raises:
        CheckpointError: The newest whole one was written in a format that is not read here.
    """
    for path in list_checkpoints(folder):
        try:
            return path, load_checkpoint(path)
        except DamagedCheckpointError as error:
            warnings.warn(f"a damaged checkpoint is left out: {error}", stacklevel=3)
    return None


def load_weights(path: str | Path, model: nn.Module) -> None:
    """Load the model's parameters and buffers from a checkpoint, and nothing else.

    Args:
        path: A checkpoint, or a folder of them, of which the newest whole one is taken.
        model: A model of the same architecture.

    Raises:
        DamagedCheckpointError: The checkpoint is not as it was written.
        CheckpointError: There is none, or it holds no model like this one; nothing was loaded.
    """
    path = Path(path)
    if not _NAME.fullmatch(path.name):
        found = find_checkpoint(path)
        if found is None:
            raise CheckpointError(f"{path} must hold a checkpoint, got none that is whole")
        path, state = found
    else:
        state = load_checkpoint(path)
    _check_model_state(model, state.get("model"), path)
    before = copy.deepcopy(all_state(model))
    try:
        set_all_state(model, state["model"])
        progress = state.get("progress", {})
        if progress.get("in_head"):  # as when `fit` ends: answers are in the units of y
            (head,) = heads_of(model)
            scale_numerator(head, positive(progress["scale"], "scale"))
    except Exception as error:  # whatever a setter says to what it cannot take
        set_all_state(model, before)
        raise CheckpointError(
            f"{path} must hold what this model can be set to, but has {said(error)}"
        ) from error


# Open files whose lock is held here. The system lets go of it when no process has the file open any
# more, and a worker of a loader, which is forked, lives on for some seconds after a kill.
_LOCKS: set[IO[str]] = set()


def _leave_locks() -> None:
    for lock in _LOCKS:
        lock.close()
    _LOCKS.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_locks)


class Checkpoints:
    """The checkpoints of one run: its folder, and all its parts as one state.

    Args:
        config: Options.
        accelerator: Of this process.
        model: The model.
        forward: What has the loss, which may be a module.
        events: The callbacks.
        parts: Whatever else has `state_dict` and `load_state_dict`, by name, or is absent;
            `"progress"` knows the loaders.
    """

    def __init__(
        self,
        config: TrainingConfig,
        accelerator: Any,
        model: nn.Module,
        forward: Forward,
        events: Events,
        parts: Mapping[str, Any],
    ) -> None:
        self._config, self._accelerator, self._model = config, accelerator, model
        self._forward, self._events, self._parts = forward, events, parts
        self._progress: Progress = parts["progress"]
        self._folder = Path(str(config.checkpoint_dir)).expanduser()
        self._lock: IO[str] | None = None

    @contextmanager
    def held(self, *, fresh: bool) -> Iterator[None]:
        """Within, the folder is that of this run alone; found out before the first step.

        Raises:
            CheckpointError: It cannot be written, another run has it, or a new run would mix with
                an earlier one.
        """
        if self._config.checkpoint_dir is None:
            yield
            return
        _copied(self._events.state())  # what cannot be stored shall be known now
        for part, source in self._progress.sources.items():
            if source.keeps_workers():
                warnings.warn(
                    f"{part}_loader has persistent_workers, whose random numbers no checkpoint can "
                    "hold: a run that goes on may end with other bits",
                    stacklevel=4,
                )
        problem = doubt = ""
        with ExitStack() as until_over:
            if self._accelerator.is_main_process:
                try:
                    until_over.callback(self._let_go)
                    problem, doubt = self._take()
                    with tempfile.TemporaryFile(dir=self._folder):
                        pass
                    if not problem:
                        problem = self._cleared(fresh=fresh)
                except OSError as error:
                    problem = (
                        f"checkpoint_dir must be a folder that can be written, got {self._folder}: "
                        f"{error.strerror}"
                    )
            problem, doubt = from_all([(problem, doubt)], self._accelerator)[0]
            if problem:
                raise CheckpointError(problem)
            if doubt:
                warnings.warn(doubt, stacklevel=4)
            yield

    def _take(self) -> tuple[str, str]:
        """Hold the folder for this run; return why that cannot be, and what is doubtful in it."""
        place = self._folder / ".lock"
        with suppress(OSError):  # gone with its folder, where another run may have begun
            if self._lock and os.path.samestat(os.fstat(self._lock.fileno()), place.stat()):
                return "", ""
        self._let_go()
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock = place.open("a")
        _LOCKS.add(self._lock)
        problem = doubt = ""
        try:
            import fcntl  # not on Windows

            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._let_go()
            problem = (
                f"checkpoint_dir must belong to one run at a time, but another one is writing to "
                f"{self._folder}: wait until it is over, or choose another folder"
            )
        except (ImportError, OSError) as error:
            doubt = (
                f"checkpoint_dir {self._folder} cannot be locked ({error}): "
                "see to it that no second run writes there"
            )
        return problem, doubt

    def _let_go(self) -> None:
        if self._lock is not None:
            self._lock.close()
            _LOCKS.discard(self._lock)
            self._lock = None

    def _cleared(self, *, fresh: bool) -> str:
        """Remove what a process left that was killed; return why a new run cannot begin here."""
        for path in self._folder.iterdir():
            if _STALE.match(path.name):
                shutil.rmtree(path, ignore_errors=True)
        there = list_checkpoints(self._folder)
        if not (fresh and there):
            return ""
        return (
            f"checkpoint_dir must hold no checkpoint when a run begins, but {self._folder} has "
            f"{len(there)}: pass fit(resume_from='auto') to go on, or another folder"
        )

    def save(self) -> Path | None:
        """Write a checkpoint; all processes have to call.

        Raises:
            CheckpointError: Another run has taken the folder, or the state cannot be stored.

        Warns:
            UserWarning: It could not be written; training may go on, older checkpoints are whole.
        """
        mine = {**self._progress.own_state(), "callbacks": self._events.state()}
        own = from_all([mine], self._accelerator)
        path = problem = refused = ""
        if self._accelerator.is_main_process:
            step, keep = self._progress.step, self._config.keep_checkpoints
            state = {**self._common(), "processes": own}
            try:
                refused, problem = self._take()
                if not refused:
                    path = str(save_checkpoint(self._folder, step, state, keep))
            except CheckpointError as error:
                refused = str(error)  # on all processes, of which none shall wait for this one
            except OSError as error:
                problem = f"no checkpoint could be written at step {step}: {error}"
        path, problem, refused = from_all([(path, problem, refused)], self._accelerator)[0]
        if refused:
            raise CheckpointError(refused)
        if problem:
            warnings.warn(problem, stacklevel=3)
        return Path(path) if path else None

    def resume(self, place: str | os.PathLike[str]) -> Path | None:
        """Set all parts to a checkpoint's state; `None` if "auto" was asked for and there is none.

        Args:
            place: `"auto"` for the newest whole checkpoint of `checkpoint_dir`, or a checkpoint, or
                a folder of them.

        Raises:
            CheckpointError: It belongs to another run; nothing was changed.
            RangeError: `"auto"` without a `checkpoint_dir`.

        Warns:
            UserWarning: A damaged checkpoint was left out, there is nothing to resume from, or
                options differ from those of the run.
        """
        automatic = place == "auto"
        if automatic and self._config.checkpoint_dir is None:
            raise RangeError("resume_from='auto' must come with a checkpoint_dir, got none")
        folder = self._folder if automatic else Path(place).expanduser()
        one = not automatic and (folder.name.startswith("step-") or not folder.is_dir())
        for path in [folder] if one else list_checkpoints(folder):
            problem = self._taken_up(path, automatic=automatic)
            if not problem:
                return path
            if one:
                raise DamagedCheckpointError(problem)
            warnings.warn(f"a damaged checkpoint is left out: {problem}", stacklevel=3)
        if not automatic:
            raise CheckpointError(f"{folder} must hold a whole checkpoint, got none")
        self._put_aside(self._newer(None, automatic=True))
        warnings.warn(f"{folder} holds no checkpoint; the run begins anew", stacklevel=3)
        return None

    def _taken_up(self, path: Path, *, automatic: bool) -> str:
        """Set all parts to a checkpoint's state; return why it is damaged, on all processes alike.

        Then everything is as it was before.
        """
        newer: list[Path] = []
        problems: list[str] = []
        callbacks: list[Any] = []
        before = None
        try:
            state = load_checkpoint(path)
            newer = self._newer(path, automatic=automatic)
            self._check(state, path)
            # a copy: what is set is written into the tensors there are
            before = _copied({**self._common(), "own": self._progress.own_state()})
            own = state["processes"][self._accelerator.process_index]
            callbacks = [*own["callbacks"]]
            list(zip(self._events.callbacks, callbacks, strict=True))  # a state for each
            able = _step_fails(self._parts["optimizer"]) is None
            self._set(state, own)
            if able and (failure := _step_fails(self._parts["optimizer"])) is not None:
                problems.append(f"{path} must hold a state to step with, but: {failure!r}")
        except DamagedCheckpointError as error:
            problems.append(str(error))
        except ZeroProofError:
            raise
        except Exception as error:  # from reading to the last setter: a state that cannot be set
            problems.append(f"{path} must hold the state of a run, but: {error!r}")
        problems = from_all(problems, self._accelerator)
        if not problems:
            self._events.restore(callbacks)  # last: an error of theirs is not the file's
            self._put_aside(newer)
            return ""
        if before is not None:
            self._set(before, before["own"])
            self._progress.now = {}
        return problems[0]

    def _modules(self) -> dict[str, nn.Module | None]:
        loss: Any = self._forward.loss_fn
        return {"model": self._model, "loss": loss if isinstance(loss, nn.Module) else None}

    def _common(self) -> dict[str, Any]:
        """Return what is the same on every process."""
        modules, parts = self._modules().items(), self._parts.items()
        return {
            "names": self._names(),
            "options": self._options(),
            **{name: None if x is None else all_state(x) for name, x in modules},
            **{name: None if x is None else x.state_dict() for name, x in parts},
        }

    def _set(self, state: Mapping[str, Any], own: Mapping[str, Any]) -> None:
        for name, module in self._modules().items():
            if module is not None:
                set_all_state(module, state[name])
        for name, part in self._parts.items():
            if part is not None:
                part.load_state_dict(state[name])
        self._progress.restore_own(own)

    def _names(self) -> dict[str, Any]:
        """Return what has to agree before a state may be set."""
        optimizer, scheduler = self._parts["optimizer"], self._parts["scheduler"]
        loss = self._modules()["loss"]
        return {
            "processes": self._accelerator.num_processes,
            "optimizer": type(optimizer).__name__,
            "parameters per group": [len(g["params"]) for g in optimizer.param_groups],
            "scheduler": None if scheduler is None else type(scheduler).__name__,
            "loss scaler": self._parts["scaler"].is_enabled(),
            "loaders": {part: source.kind() for part, source in self._progress.sources.items()},
            "loss": None if loss is None else type(loss).__name__,
            "moving average": self._parts["average"] is not None,
            "callbacks": [type(callback).__name__ for callback in self._events.callbacks],
        }

    def _options(self) -> dict[str, str]:
        config = self._config
        options = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
        if options["target_scale"] == "auto":  # the checkpoint tells s
            del options["target_scale"]
        return {name: repr(x) for name, x in options.items() if name not in _FREE}

    def _check(self, state: Mapping[str, Any], path: Path) -> None:
        try:
            for name, module in self._modules().items():
                if module is not None and (name == "model" or state[name] is not None):
                    _check_model_state(module, state[name], path)
            for what, mine in self._names().items():
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
        now = self._options()
        changed = [name for name in now if before.get(name) != now[name]]
        if changed:
            shown = ", ".join(f"{name} {before.get(name)} -> {now[name]}" for name in changed)
            warnings.warn(f"the run goes on with other options: {shown}", stacklevel=5)

    def _newer(self, path: Path | None, *, automatic: bool) -> list[Path]:
        """Return the checkpoints that stand in the way of those to come: of later steps.

        Raises:
            CheckpointError: One was asked for by its path, and there is a later one.
        """
        if self._config.checkpoint_dir is None:
            return []
        there = [each.resolve() for each in list_checkpoints(self._folder)]
        found = None if path is None else path.resolve()
        newer = there[: there.index(found)] if found in there else there
        if newer and not automatic:
            raise CheckpointError(
                f"checkpoint_dir must hold nothing newer than {path}, and nothing of another run, "
                f"but has {newer[0]}: go on from that one, or choose another checkpoint_dir"
            )
        return newer

    def _put_aside(self, damaged: list[Path]) -> None:
        self._accelerator.wait_for_everyone()  # all have read what is there
        for old in damaged if self._accelerator.is_main_process else ():
            aside = old.with_name(f"damaged-{old.name}")
            numbered = (aside.with_name(f"{aside.name}-{i}") for i in itertools.count(2))
            old.rename(next(x for x in itertools.chain([aside], numbered) if not x.exists()))


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


def _copied(state: Any) -> Any:
    """Return a copy of a state as a checkpoint would give it back.

    Raises:
        CheckpointError: It holds something that is neither number, string nor tensor.
    """
    try:
        return unpack(*pack(state))
    except RangeError as error:
        raise CheckpointError(str(error)) from error


def _check_model_state(model: nn.Module, state: Any, path: Path) -> None:
    """Find out whether a state belongs to a model.

    Raises:
        CheckpointError: It is that of another architecture or precision, or the model has not seen
            the batch from which a lazy module takes its shape.
    """
    if any(isinstance(p, nn.UninitializedParameter) for p in model.parameters()):
        raise CheckpointError(f"{path} needs a model that has run once, got lazy parameters")
    if not isinstance(state, Mapping):
        raise CheckpointError(f"{path} must hold a model's parameters, got {type(state).__name__}")
    mine = all_state(model)
    for what, names in (("lacks", mine.keys() - state.keys()), ("has", state.keys() - mine.keys())):
        if names:
            shown = ", ".join(sorted(map(str, names))[:3]) + (", ..." if len(names) > 3 else "")
            raise CheckpointError(f"{path} must hold this model's parameters, but {what} {shown}")
    for name, value in state.items():
        wanted = mine[name]
        if not (isinstance(value, Tensor) and isinstance(wanted, Tensor)):
            continue  # extra state of a module
        if value.shape != wanted.shape:
            raise CheckpointError(
                f"{path} must hold {name} of shape {tuple(wanted.shape)}, got {tuple(value.shape)}"
            )
        if value.dtype != wanted.dtype:
            raise CheckpointError(f"{path} must hold {name} in {wanted.dtype}, got {value.dtype}")


def _age(path: Path) -> tuple[int, ...]:
    """Return the step, and the number among several of one step."""
    return tuple(int(part or 0) for part in _NAME.sub(r"\1.\2", path.name).split("."))


def _free_name(folder: Path, step: int) -> Path:
    """Return a later name than all of this step; replacing one would leave a moment with none."""
    name = f"step-{step:09d}"
    ages = (_age(path) for path in list_checkpoints(folder))
    numbers = [number for at, number in ages if at == step]
    return folder / (f"{name}.{max(numbers) + 1}" if numbers else name)


def _older(record: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return the state of versions 1 and 2 of the former format, which had two checksums."""
    version = record.get("version")
    if type(version) is int and version not in (1, 2):
        raise CheckpointError(
            f"{path / 'state.json'} must have format version 1 or 2, got {version}: "
            "use the version of zeroproof that wrote it"
        )
    sums, tree, file = record["checksums"], record["state"], path / "state.safetensors"
    text = json.dumps(tree, allow_nan=False, separators=(",", ":")).encode()
    with file.open("rb") as data:
        found = {
            "state": hashlib.sha256(text).hexdigest(),
            file.name: hashlib.file_digest(data, "sha256").hexdigest(),
        }
    if found != sums:
        raise RangeError("other contents than were written: a checksum differs")
    return {"state": unpack(tree, load_tensors(file))}


_STORED = Stored(
    "checkpoint", "state.json", "state.safetensors", DamagedCheckpointError,
    foreign=CheckpointError, older={"zeroproof-checkpoint": _older},
)  # fmt: skip


def _flush(path: Path) -> None:
    """Have the disk write it now: a rename that survives a power cut must not point to nothing."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
