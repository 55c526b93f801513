"""`zeroproof fit` with sections: a run of the trainer, as a configuration describes it."""

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from zeroproof._extras import require
from zeroproof._files import folder_in_place, tensors_written, text_in_place, write_json
from zeroproof.cli.building import build_model, built, is_own
from zeroproof.cli.loading import Loaded, load
from zeroproof.cli.runs import MODULE_FORMAT, check_folder
from zeroproof.cli.sections import DataSection
from zeroproof.cli.training import fit_lines, write_fit
from zeroproof.errors import RangeError, TrainingError
from zeroproof.estimators import TrainedFit
from zeroproof.estimators.diagnosis import diagnose, errors_of, view_rows
from zeroproof.export import Run, TargetFrame, save_run
from zeroproof.inference import InferenceConfig
from zeroproof.layers.mlp import ProjectiveMLP
from zeroproof.training import SCMTrainer, SCMTrainingLoss, TrainingConfig

__all__ = ["TrainerRun", "train_run"]


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


def train_run(run: TrainerRun) -> None:
    """Train, write the run folder and print a report.

    Raises:
        ZeroProofError: Data, a folder or an option cannot be used, or training failed.
    """
    own, folder = is_own(run.model), Path(run.out)
    _check(run, folder)
    require("safetensors.torch", extra="train")
    if own and not run.data.stream:
        require("matplotlib.figure", extra="plots")
    with folder_in_place(folder) as fresh:
        report = _trained(run, fresh, own=own)
        text_in_place(fresh / "config.yaml", run.text)
    print("\n".join(report))
    print(f"files: {', '.join(str(folder / path.name) for path in sorted(folder.iterdir()))}")


def _check(run: TrainerRun, folder: Path) -> None:
    processes = os.environ.get("WORLD_SIZE", "1")
    if processes != "1":
        raise RangeError(
            f"zeroproof fit must run in one process, got {processes}: SCMTrainer in Python trains "
            "in several"
        )
    if run.resume and run.trainer.checkpoint_dir is None:
        raise RangeError("--resume must come with --trainer.checkpoint_dir, got none")
    for name in ("checkpoint_dir", "log_dir"):
        place = getattr(run.trainer, name)
        if place is not None and Path(place).resolve().is_relative_to(folder.resolve()):
            raise RangeError(f"--trainer.{name} must not lie in --out {folder}, got {place}")
    check_folder(folder)


def _trained(run: TrainerRun, folder: Path, *, own: bool) -> list[str]:
    started = time.perf_counter()
    seed = run.seed if run.trainer.seed is None else run.trainer.seed
    dtype = torch.float64 if own else torch.get_default_dtype()
    loaded = load(run.data, run.target, run.features, dtype=dtype, seed=seed)
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
        return _write_own(run, model, trainer, loaded, facts, folder)
    _write_module(run, model, trainer, loaded, facts, folder)
    return _summary(facts, trainer)


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


def _thresholds(config: TrainingConfig) -> InferenceConfig:
    return InferenceConfig(
        tau_infer=config.tau_infer,
        tau_train=config.tau_train_max,
        score=config.score,
        scale=config.scale,
    )


def _write_own(
    run: TrainerRun,
    model: ProjectiveMLP,
    trainer: SCMTrainer,
    loaded: Loaded,
    facts: dict[str, Any],
    folder: Path,
) -> list[str]:
    scale = run.trainer.target_scale
    count = len(loaded.targets)
    frame = TargetFrame((0.0,) * count, (scale,) * count)
    written = Run(model, _thresholds(run.trainer), frame, loaded.features, loaded.targets, facts)
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
    with tensors_written() as safetensors:
        safetensors.save_model(model, str(folder / "model.safetensors"))
    trainer.history.save_json(folder / "history.json")
    write_json(
        folder / "run.json",
        {
            "format": MODULE_FORMAT,
            "version": 1,
            "class_path": run.model["class_path"],
            "features": loaded.features,
            "targets": loaded.targets,
            "target_scale": run.trainer.target_scale,
            "thresholds": _thresholds(run.trainer).to_dict(),
            "facts": facts,
        },
    )


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
