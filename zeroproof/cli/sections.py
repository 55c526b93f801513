"""`zeroproof fit` with sections: a run of the trainer, as a configuration describes it."""

import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from inspect import signature
from itertools import chain
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, NamedTuple, TypeVar, get_args, get_type_hints

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from zeroproof._checks import whole
from zeroproof._extras import require
from zeroproof._files import folder_in_place, text_in_place
from zeroproof._record import said
from zeroproof.cli.arguments import OPTIONS, SECTIONS, Reply, sentence, yaml_text
from zeroproof.cli.fit import fit_lines, told, write_fit
from zeroproof.cli.tables import (
    TableRows,
    check_answers,
    check_folder,
    column_names,
    read_rows,
)
from zeroproof.data import TableStream
from zeroproof.data.schema import Schema
from zeroproof.errors import DataError, RangeError, TrainingError, ZeroProofError
from zeroproof.estimators import TrainedFit
from zeroproof.estimators.diagnosis import diagnose, errors_of, view_rows
from zeroproof.estimators.trained import RowBatches
from zeroproof.export import save_run
from zeroproof.export.run_folder import MODULE
from zeroproof.inference.run import Run, TargetFrame
from zeroproof.layers.mlp import ProjectiveMLP
from zeroproof.training import SCMTrainer, SCMTrainingLoss, TrainingConfig

__all__ = ["DataSection", "fit_sections"]

_MODEL = {"class_path": "zeroproof.layers.ProjectiveMLP"}
_OPTIMIZER = {"class_path": "torch.optim.Adam", "init_args": {"lr": 1e-3}}
_OF_TABLES = ("target", "features", *OPTIONS["table"], *OPTIONS["cells"])
_COLUMNS = ("in_features", "out_features")  # the data say them
_CLASSES = ("model", "optimizer", "scheduler")  # sections that name a class
_CALLED = {
    "optimizer": Callable[[Iterable], Optimizer],
    "scheduler": Callable[[Optimizer], LRScheduler | ReduceLROnPlateau],
}
_HOME = ("torch", "zeroproof")  # what else is named, the current folder may hold
_REFUSALS = (TypeError, ValueError, RuntimeError)  # of code that is handed a user's options


@dataclass(frozen=True, kw_only=True)
class DataSection:
    """Which rows a run of the trainer sees.

    Args:
        train: CSV or Parquet file, or a folder of them: rows to train on.
        validation: The same: rows to validate on; none by default.
        held_out: Share of the rows of train to validate on instead, below 1; 0 for none.
        batch_size: Rows per step.
        stream: Read batches from disk as they are needed, for more rows than memory holds.
        buffer_rows: With stream: rows that are shuffled together.
        num_workers: With stream: processes that read.

    Raises:
        RangeError: One is outside what it may be, or two exclude each other.
    """

    train: str = ""
    validation: str = ""
    held_out: float = 0.0
    batch_size: int = 512
    stream: bool = False
    buffer_rows: int = 65536
    num_workers: int = 0

    def __post_init__(self) -> None:
        for name in ("batch_size", "buffer_rows"):
            _fitting(whole(getattr(self, name), f"data.{name}", low=1), f"data.{name}")
        whole(self.num_workers, "data.num_workers")
        if not 0 <= self.held_out < 1:
            raise RangeError(f"data.held_out must lie in [0, 1), got {self.held_out!r}")
        if self.held_out and self.validation:
            raise RangeError(
                "data.held_out must be 0 where data.validation names rows, "
                f"got {self.held_out!r} and {self.validation!r}"
            )
        if self.held_out and self.stream:
            raise RangeError(
                "data.held_out must be 0 with data.stream, which never sees all rows: put rows to "
                f"validate on into files of their own, data.validation; got {self.held_out!r}"
            )


@dataclass(frozen=True, kw_only=True)
class TrainerSection(TrainingConfig):
    """Options of the trainer; a file builds no object where Python takes one."""

    device: str = "auto"
    log_dir: str | None = None
    checkpoint_dir: str | None = None


_FIELDS = {"data": DataSection, "loss": SCMTrainingLoss, "trainer": TrainerSection}


class TrainerRun(NamedTuple):
    """A configuration with its sections, read and checked."""

    data: DataSection
    target: str
    features: str
    out: str
    seed: int
    resume: bool
    model: Any  # class_path and init_args
    optimizer: Callable[..., torch.optim.Optimizer]
    scheduler: Callable[..., Any] | None
    loss: SCMTrainingLoss
    trainer: TrainingConfig
    text: str  # the same as YAML
    table: Mapping[str, Any]  # target, features, and how tables are read


def _fitting(value: int, name: str) -> None:
    if whole(value, name) >= 2**63:
        raise RangeError(f"{name} must be below 2**63, got {value}")


def fit_sections(given: Mapping[str, Any], *, printing: bool) -> Reply:
    """Train as the sections say, write the run folder and report; or return all options.

    Args:
        given: Options of `zeroproof fit`, sections as they were written.
        printing: Print all options as YAML instead; no class from elsewhere is imported.

    Raises:
        ZeroProofError: Data, a folder or an option cannot be used, or training failed.
    """
    classes = {name: _spec(given[name]) for name in _CLASSES if name in given}
    foreign = {name: list(_foreign(spec)) for name, spec in classes.items()}
    # what only its own code can complete is printed as it was written
    aside = {name: classes.pop(name) for name, paths in foreign.items() if paths and printing}
    if not printing:
        for path in chain.from_iterable(foreign.values()):
            _import(path)
    parser = _parser(aside)
    full = _parsed(parser, {**{name: given[name] for name in _FIELDS if name in given}, **classes})
    # by position: its third argument, whether to leave out null, has had several names
    filled = json.loads(parser.dump(full, "json", False))
    values = {"seed": 0, **given, "method": "train", **filled, **aside}
    used = [name for name in _OF_TABLES[2:] if name in given]
    names = ("data", "target", "features", "out", "method", "seed", "resume", *used, *SECTIONS)
    text = yaml_text({name: values.get(name) for name in names})
    if printing:
        return Reply([text.rstrip("\n")], {name: values.get(name) for name in names})
    parts = built("a section", lambda: _instances(parser, full))
    table = {name: given[name] for name in _OF_TABLES if name in given}
    plain = {name: values.get(name, "") for name in ("target", "features", "out", "seed", "resume")}
    sections = {name: parts[name] for name in (*_FIELDS, *_CLASSES)}
    return train_run(TrainerRun(**plain, **sections, text=text, table=table))


def _spec(section: Mapping[str, Any]) -> dict[str, Any]:
    """Return class_path and init_args of a section."""
    path = {name: section[name] for name in ("class_path",) if name in section}
    return {**path, "init_args": {k: v for k, v in section.items() if k not in path}}


def _foreign(tree: Any) -> Iterator[str]:
    """Yield the class paths in options that lie neither in torch nor in this package."""
    if isinstance(tree, dict):
        for name, value in tree.items():
            path = value if str(name).split(".")[-1] == "class_path" else ""
            if isinstance(path, str) and "." in path and path.split(".")[0] not in _HOME:
                yield path
            yield from _foreign(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _foreign(value)


def _import(path: str) -> None:
    """Import a class, from the current folder if it is nowhere else; no other import looks there.

    Raises:
        RangeError: There is none, or its module cannot be run.
    """
    here = str(Path.cwd())
    sys.path.append(here)
    try:
        resolve_name(path)
    except Exception as error:  # whatever its code says
        raise RangeError(
            f"class_path must name a class to import, got {path}: {said(error)}"
        ) from error
    finally:
        sys.path.remove(here)


def _parser(aside: Collection[str]) -> Any:
    """Return a parser of all sections but those aside, with their types and defaults."""
    jsonargparse = require("jsonargparse", extra="cli")
    register = require("jsonargparse.typing", extra="cli").register_type
    register(torch.dtype, _dtype_name, _dtype, fail_already_registered=False)
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    for name, kind in _FIELDS.items():
        parser.add_class_arguments(kind, name)
    if "model" not in aside:
        parser.add_subclass_arguments(
            nn.Module, "model", skip=set(_COLUMNS), required=False, instantiate=False
        )
    for name, kind in _CALLED.items():
        if name not in aside:
            parser.add_argument(f"--{name}", type=kind)
    defaults = {"model": _MODEL, "optimizer": _OPTIMIZER}
    parser.set_defaults({name: defaults[name] for name in defaults if name not in aside})
    return parser


def _parsed(parser: Any, sections: Mapping[str, Any]) -> Any:
    """Return sections with all that was left out.

    Raises:
        RangeError: An option is unknown, is null, or has another type.
    """
    try:
        full = parser.parse_object(sections)
    except (*_REFUSALS, require("jsonargparse", extra="cli").ArgumentError) as error:
        raise RangeError(sentence(error, parser.get_defaults().keys())) from error
    for section, kind in _FIELDS.items():
        for name, hint in get_type_hints(kind).items():
            if full[section][name] is None and type(None) not in get_args(hint):
                raise RangeError(f"--{section}.{name} must have a value, got null")
    return full


def _instances(parser: Any, full: Any) -> Any:
    """Return the values with objects in place of sections, all but the model."""
    instantiate = getattr(parser, "instantiate", None)  # before 4.49 under another name
    return (instantiate or parser.instantiate_classes)(full)


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _dtype(name: Any) -> torch.dtype:
    dtype = getattr(torch, str(name).removeprefix("torch."), None)
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"no type of torch is called {name}")  # noqa: TRY004 - of its value
    return dtype


_CHUNK = 65536  # rows read at a time
_SAMPLE = 4


class Spread(NamedTuple):
    """Where the rows of the training data lie, column by column of the features; float64."""

    rows: int
    mean: Tensor
    std: Tensor
    low: Tensor
    high: Tensor


class Loaded(NamedTuple):
    """Batches and what is known about them."""

    train: Iterable[tuple[Tensor, ...]]
    check: Iterable[tuple[Tensor, ...]] | None
    features: tuple[str, ...]
    targets: tuple[str, ...]
    sample: Tensor  # the inputs of a few rows
    spread: Spread
    rows: TableRows | None  # those of `data.train`, unless they are streamed
    held_out: Tensor | None  # which of them


def load(data: DataSection, table: Mapping[str, Any], *, dtype: torch.dtype, seed: int) -> Loaded:
    """Read or open the rows to train on and to validate on.

    Args:
        data: Which.
        table: Names of targets and features, and how tables are read.
        dtype: Of the inputs.
        seed: Of held-out rows, and of the order.

    Raises:
        DataError: They cannot be used, or all features are constant.
    """
    read = _streamed if data.stream else _in_memory
    loaded = read(data, table, dtype, seed)
    flat = (loaded.spread.low == loaded.spread.high).tolist()
    constant = [name for name, same in zip(loaded.features, flat, strict=True) if same]
    if len(constant) == len(flat):
        raise DataError(f"some feature must vary, got constant columns {', '.join(constant)}")
    if constant:
        warnings.warn(f"constant columns tell nothing: {', '.join(constant)}", stacklevel=2)
    return loaded


def _in_memory(
    data: DataSection, table: Mapping[str, Any], dtype: torch.dtype, seed: int
) -> Loaded:
    rows = _rows(data.train, table)
    held_out = torch.zeros(len(rows.X), dtype=torch.bool)
    order = torch.randperm(len(rows.X), generator=torch.Generator().manual_seed(seed))
    held_out[order[: min(round(data.held_out * len(order)), len(order) - 1)]] = True
    check = None
    if data.validation:
        others = _rows(data.validation, table, rows.schema)
        check = _batches(others.X, others.y, dtype, data.batch_size, None)
    elif held_out.any():
        check = _batches(rows.X[held_out], rows.y[held_out], dtype, data.batch_size, None)
    X, y = rows.X[~held_out], rows.y[~held_out]
    return Loaded(
        _batches(X, y, dtype, data.batch_size, seed),
        check,
        rows.features,
        rows.targets,
        X[:_SAMPLE].to(dtype),
        _spread([X]),
        rows,
        held_out,
    )


def _rows(source: str, table: Mapping[str, Any], schema: Schema | None = None) -> TableRows:
    """Read all rows of a file or folder."""
    if not Path(source).is_dir():
        rows = read_rows(source, table, schema)
    else:
        names, targets = _names(source, table)
        parts = list(_stream(source, names, targets, torch.float64))
        X, y = (torch.cat(part) for part in zip(*parts, strict=True))
        rows = TableRows(X, y, names, targets)
    for name, column in zip(rows.targets, rows.y.T, strict=True):
        largest = column[column.isfinite()].abs().amax()
        if largest > torch.finfo(torch.float32).max:  # it would become infinite
            raise DataError(
                f"target {name!r} must not exceed 3.4e38 in size, got {float(largest):g}: "
                "change its unit"
            )
    return rows


def _names(source: str, table: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    targets, features = column_names(table["target"], "--target"), table.get("features", "")
    check_answers(targets)
    if not features:
        raise DataError(f"--features must name the columns to predict from, for {source}, got none")
    names = column_names(features, "--features")
    if set(names) & set(targets):
        raise DataError(f"--features must not name a target, got {features!r}")
    return names, targets


def _batches(
    X: Tensor, y: Tensor, dtype: torch.dtype, batch_size: int, seed: int | None
) -> RowBatches:
    return RowBatches(X.to(dtype), y.float(), batch_size=batch_size, seed=seed)


def _stream(
    source: str, features: tuple[str, ...], targets: tuple[str, ...], dtype: torch.dtype
) -> TableStream:
    return TableStream(
        source, features=features, targets=targets, batch_size=_CHUNK, shuffle=False, dtype=dtype
    )


def _streamed(data: DataSection, table: Mapping[str, Any], dtype: torch.dtype, seed: int) -> Loaded:
    source = data.train
    names, targets = _names(source, table)
    columns = {"features": names, "targets": targets, "dtype": dtype}
    train = TableStream(
        source,
        **columns,
        batch_size=data.batch_size,
        seed=seed,
        buffer_rows=data.buffer_rows,
        num_workers=data.num_workers,
    )
    check = None
    if data.validation:
        check = TableStream(data.validation, **columns, batch_size=data.batch_size, shuffle=False)
    first, _ = next(iter(_stream(source, names, targets, dtype)))
    spread = _spread(X for X, _ in _stream(source, names, targets, torch.float64))
    return Loaded(train, check, names, targets, first[:_SAMPLE], spread, None, None)


def _spread(parts: Iterable[Tensor]) -> Spread:
    """Add up the moments of parts (T. F. Chan, G. H. Golub, R. J. LeVeque, 1979)."""
    total, mean, squares, low, high = 0, *(torch.zeros(()) for _ in range(4))
    for X in parts:
        rows, own = len(X), X.mean(0)
        apart = own - mean
        mean = mean + apart * (rows / (total + rows))
        squares = squares + (X - own).square().sum(0) + apart**2 * (total * rows / (total + rows))
        low = torch.minimum(low, X.amin(0)) if total else X.amin(0)
        high = torch.maximum(high, X.amax(0)) if total else X.amax(0)
        total += rows
    std = (squares / total).sqrt()
    return Spread(total, mean, torch.where(std > 0, std, 1), low, high)


Built = TypeVar("Built")


def is_own(spec: Any) -> bool:
    """Tell whether a model is the package's own network, which a run folder can hold."""
    return _class_of(spec) is ProjectiveMLP


def build_model(spec: Any, loaded: Loaded) -> nn.Module:
    """Build the model for these rows; inputs of the package's own network are standardised.

    Args:
        spec: `class_path` and `init_args`, checked; `in_features` and `out_features` are added
            where the class has them.
        loaded: The rows.

    Raises:
        RangeError: It cannot be built, or does not make (N, D) of the rows.
    """
    jsonargparse = require("jsonargparse", extra="cli")
    counts = {"in_features": len(loaded.features), "out_features": len(loaded.targets)}
    taken = signature(_class_of(spec)).parameters
    arguments = spec.get("init_args", {})
    arguments = dict(arguments.items() if isinstance(arguments, dict) else vars(arguments))
    arguments |= {name: count for name, count in counts.items() if name in taken}
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(nn.Module, "model")
    full = parser.parse_object(
        {"model": {"class_path": spec["class_path"], "init_args": arguments}}
    )
    instantiate = getattr(parser, "instantiate", None) or parser.instantiate_classes
    model = built("model", lambda: instantiate(full).model)
    if is_own(spec):
        _standardise(model, arguments, loaded)
    else:
        _probe(model, spec["class_path"], loaded)
    return model


def built(what: str, build: Callable[[], Built]) -> Built:
    """Build something from what a user wrote.

    Raises:
        RangeError: It is refused.
    """
    try:
        return build()
    except ZeroProofError:
        raise
    except _REFUSALS as error:
        raise RangeError(
            f"{what} must be fit to be built, but says: {_line(_root(error))}"
        ) from error


def _root(error: BaseException) -> BaseException:
    """Return what an error was before a parser reported it."""
    while cause := error.__cause__ or error.__context__:
        error = cause
    return error


def _class_of(spec: Any) -> Any:
    return resolve_name(spec["class_path"])


def _standardise(model: ProjectiveMLP, arguments: dict[str, Any], loaded: Loaded) -> None:
    # in float64: the digits of a time stamp must survive until its mean is taken off
    for name, numbers in (("x_mean", loaded.spread.mean), ("x_std", loaded.spread.std)):
        if arguments.get(name) is None:
            setattr(model, name, numbers.double())


@torch.no_grad()
def _probe(model: nn.Module, name: str, loaded: Loaded) -> None:
    """Ask a model for a few rows, which also shapes lazy layers."""
    x, wanted = loaded.sample, (len(loaded.sample), len(loaded.targets))
    model.eval()
    try:
        answer = model(x)
    except _REFUSALS as error:
        raise RangeError(
            f"{name} must take rows of the shape {tuple(x.shape)}, but says: {_line(error)}"
        ) from error
    model.train()
    pair = isinstance(answer, tuple | list) and len(answer) == 2
    if not pair or not all(isinstance(part, torch.Tensor) for part in answer):
        raise RangeError(f"{name} must return a pair (N, D), got {_kind(answer)}")
    if answer[0].shape != wanted:
        raise RangeError(
            f"{name} must return N of the shape of the targets, {wanted}, "
            f"got {tuple(answer[0].shape)}"
        )


def _kind(answer: Any) -> str:
    shape = f" of shape {tuple(answer.shape)}" if isinstance(answer, torch.Tensor) else ""
    return f"a {type(answer).__name__}{shape}"


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())


def train_run(run: TrainerRun) -> Reply:
    """Train, write the run folder and report.

    Raises:
        ZeroProofError: Data, a folder or an option cannot be used, or training failed.
    """
    own, folder = is_own(run.model), Path(run.out)
    _check(run, folder)
    require("safetensors.torch", extra="train")
    if own and not run.data.stream:
        require("matplotlib.figure", extra="plots")
    with folder_in_place(folder) as fresh:
        report, facts = _trained(run, fresh, own=own)
        text_in_place(fresh / "config.yaml", run.text)
    return told(report, facts, folder)


def _check(run: TrainerRun, folder: Path) -> None:
    processes = os.environ.get("WORLD_SIZE", "1")
    if processes != "1":
        raise RangeError(
            f"zeroproof fit must run in one process, got {processes}: SCMTrainer in Python trains "
            "in several"
        )
    _fitting(run.seed, "seed")
    if run.resume and run.trainer.checkpoint_dir is None:
        raise RangeError("--resume must come with --trainer.checkpoint_dir, got none")
    for name in ("checkpoint_dir", "log_dir"):
        place = getattr(run.trainer, name)
        if place is not None and Path(place).resolve().is_relative_to(folder.resolve()):
            raise RangeError(f"--trainer.{name} must not lie in --out {folder}, got {place}")
    check_folder(folder)


def _trained(run: TrainerRun, folder: Path, *, own: bool) -> tuple[list[str], dict[str, Any]]:
    started = time.perf_counter()
    seed = run.seed if run.trainer.seed is None else run.trainer.seed
    dtype = torch.float64 if own else torch.get_default_dtype()
    loaded = load(run.data, run.table, dtype=dtype, seed=seed)
    torch.manual_seed(seed)
    model = build_model(run.model, loaded)
    trainer = _trainer(run, model, loaded, replace(run.trainer, seed=seed))
    trainer.fit(resume_from="auto" if run.resume else None)
    model.to("cpu").eval()
    facts = {
        "rows": loaded.spread.rows if loaded.rows is None else len(loaded.rows.X),
        "held_out_rows": 0 if loaded.held_out is None else int(loaded.held_out.sum()),
        "seconds": round(time.perf_counter() - started, 3),
        "domain": [loaded.spread.low.tolist(), loaded.spread.high.tolist()],
        "epochs": len(trainer.history),
        "steps": trainer.step,
        "stop_reason": trainer.stop_reason,
        "topology": "projective",
    }
    if isinstance(model, ProjectiveMLP) and own:
        with trainer.in_training_units():  # those of the frame
            return _write_own(run, model, trainer, loaded, facts, folder), facts
    _write_module(run, model, trainer, loaded, facts, folder)
    return _summary(facts, trainer), facts


def _trainer(
    run: TrainerRun, model: nn.Module, loaded: Loaded, config: TrainingConfig
) -> SCMTrainer:
    learned = [p for p in model.parameters() if p.requires_grad]
    optimizer = built("optimizer", lambda: run.optimizer(learned))
    make = run.scheduler
    scheduler = None if make is None else built("scheduler", lambda: make(optimizer))
    return SCMTrainer(
        model=model,
        optimizer=optimizer,
        loss_fn=run.loss,
        train_loader=loaded.train,
        val_loader=loaded.check,
        config=config,
        scheduler=scheduler,
    )


def _write_own(
    run: TrainerRun,
    model: ProjectiveMLP,
    trainer: SCMTrainer,
    loaded: Loaded,
    facts: dict[str, Any],
    folder: Path,
) -> list[str]:
    config, scale = trainer.inference_config, trainer.target_scale
    config = replace(config, scale=config.scale / scale)
    count = len(loaded.targets)
    frame = TargetFrame((0.0,) * count, (scale,) * count)
    written = Run(model, config, frame, loaded.features, loaded.targets, facts)
    if loaded.rows is None or loaded.held_out is None:
        save_run(written, folder)
        trainer.history.save_json(folder / "history.json")
        return _summary(facts, trainer)
    X, y = loaded.rows.X, loaded.rows.y
    facts["errors"] = _errors(model, X, y, loaded.held_out, scale)
    view = view_rows(model, X)
    facts["diagnosis"] = diagnose(view, int((~y.isfinite()).any(1).sum()))._asdict()
    fitted = TrainedFit(written, trainer.history, view, loaded.held_out, facts["seconds"])
    write_fit(folder, fitted, loaded.rows)
    return [*_summary(facts, trainer), *fit_lines(fitted)]


@torch.no_grad()
def _errors(
    model: ProjectiveMLP, X: Tensor, y: Tensor, held_out: Tensor, scale: float
) -> dict[str, float]:
    N, D = (part.double() for part in model(X))
    if not (N.isfinite() & D.isfinite()).all():
        raise TrainingError(
            "training must end with finite tuples, but diverged: lower --optimizer.lr"
        )
    found: dict[str, float] = {}
    for name, rows in (("all", torch.ones_like(held_out)), ("held_out", held_out)):
        sizes = errors_of(scale * N[rows] / D[rows], y[rows], y.new_tensor(1e-12 * scale))
        if sizes:
            found[f"{name}_rms"], found[f"{name}_median_relative"] = sizes
    return found


def _write_module(
    run: TrainerRun,
    model: nn.Module,
    trainer: SCMTrainer,
    loaded: Loaded,
    facts: dict[str, Any],
    folder: Path,
) -> None:
    entries = {
        "class_path": run.model["class_path"],
        "features": list(loaded.features),
        "targets": list(loaded.targets),
        "target_scale": trainer.unit,
        "thresholds": trainer.inference_config.to_dict(),
        "facts": facts,
        "weights": model.state_dict(),
    }
    MODULE.write(folder, entries)
    trainer.history.save_json(folder / "history.json")


def _summary(facts: dict[str, Any], trainer: SCMTrainer) -> list[str]:
    last = trainer.history[-1]
    losses = ", ".join(
        f"{name.replace('_', ' ')} {last[name]:.4g}"
        for name in ("train_loss", "val_loss", "train_coverage", "val_coverage")
        if name in last
    )
    return [
        f"trained on {facts['rows'] - facts['held_out_rows']} rows in {facts['seconds']:.1f} s: "
        f"{facts['epochs']} epochs, {facts['steps']} steps, ended by {facts['stop_reason']}",
        f"  {losses}",
    ]
