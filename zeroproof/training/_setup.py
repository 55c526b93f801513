"""What a trainer sets up once: its engine, and model and optimizer on their device."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from zeroproof._extras import require
from zeroproof._processes import started, world_sizes
from zeroproof.autodiff.rewind import Buffers
from zeroproof.errors import RangeError, TrainingError
from zeroproof.training._source import Source
from zeroproof.training.config import TrainingConfig

__all__ = [
    "check_parameters",
    "check_schedule",
    "engine",
    "learning_rates",
    "placed",
    "same_buffers",
    "seed_run",
]


def engine(given: Any) -> Any:
    """Return the accelerator to use, a new one if none was given.

    Raises:
        TrainingError: It is set up with mixed precision or accumulation, which are the trainer's
            own, or for another number of processes than were started.
        MissingExtraError: Accelerate is not installed.
    """
    accelerator = given
    if given is None:
        # where there is no GPU Accelerate joins processes only if told that CPUs are meant
        on_cpus = started()[1] > 1 and not torch.accelerator.is_available()
        try:
            accelerate = require("accelerate", extra="train")
            # its state is one per process and refuses a second precision, so autocast is our own
            accelerator = accelerate.Accelerator(mixed_precision="no", cpu=on_cpus)
        except ValueError as error:
            if "already been initialized" not in str(error):
                raise TrainingError(
                    f"Accelerate must be able to join the processes: {error}"
                ) from error
            raise TrainingError(
                "Accelerate must be set up with mixed_precision='no' in this process "
                "(use_amp=True is the trainer's own), but was set up otherwise before"
            ) from error
    if accelerator.mixed_precision != "no":
        raise TrainingError(
            "accelerator must have mixed_precision='no' (use_amp=True is the trainer's own), "
            f"got {accelerator.mixed_precision!r}"
        )
    if accelerator.gradient_accumulation_steps != 1:
        raise TrainingError(
            "accelerator must have gradient_accumulation_steps=1 (grad_accumulation_steps of "
            f"TrainingConfig is the trainer's own), got {accelerator.gradient_accumulation_steps}"
        )
    # did all that were started join, or would each train alone? on TPUs Accelerate alone knows
    sizes = world_sizes() | {"Accelerate": accelerator.num_processes}
    if len(set(sizes.values())) > 1 and str(accelerator.distributed_type) != "DistributedType.XLA":
        said = ", ".join(f"{size} by {name}" for name, size in sizes.items())
        cpu = "" if torch.accelerator.is_available() else "cpu=True"
        raise TrainingError(
            f"all must tell one number of processes, got {said}; start the program with torchrun, "
            f"and write Accelerator({cpu}) where it makes its first accelerator, or make none"
        )
    return accelerator


def check_schedule(scheduler: Any, config: TrainingConfig) -> None:
    """Find out whether a scheduler can step when it will be asked to.

    Raises:
        RangeError: It needs the loss of an epoch after every step.
    """
    needs_loss = isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)
    if needs_loss and config.scheduler_cadence == "step":
        raise RangeError(
            "scheduler_cadence must be 'epoch' for a ReduceLROnPlateau, which needs the loss of an "
            "epoch, got 'step'"
        )


def check_parameters(
    model: nn.Module, optimizer: torch.optim.Optimizer, loss_fn: Any, accelerator: Any
) -> None:
    """Find out whether the optimizer moves the model.

    Raises:
        TrainingError: It holds none of its parameters, or some that no checkpoint would hold and
            no other process would know, or it runs the model itself.
    """
    if isinstance(optimizer, torch.optim.LBFGS):
        raise TrainingError(
            "optimizer must step on gradients that are there, got LBFGS, which wants to run the "
            "model again: fit_trunk(method='varpro') or head_readout go beyond first order"
        )
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    of_model = {id(p) for p in model.parameters()}
    if not held & of_model:
        raise TrainingError("optimizer must hold parameters of the model, got none of them")
    of_loss = {id(p) for p in loss_fn.parameters()} if isinstance(loss_fn, nn.Module) else set()
    if accelerator.num_processes > 1 and held - of_model:
        raise TrainingError(
            "optimizer must hold parameters of the model alone on several processes, "
            f"got {len(held - of_model)} others: make a loss's own weights part of the model"
        )
    if held - of_model - of_loss:
        raise TrainingError(
            "optimizer must hold parameters of the model and of a loss that is a module, "
            f"got {len(held - of_model - of_loss)} others"
        )


def placed(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    accelerator: Any,
    device: torch.device,
    config: TrainingConfig,
) -> tuple[nn.Module, nn.Module, torch.optim.Optimizer]:
    """Bring model and optimizer to the device or devices.

    Returns:
        The model, the module to call in training (around it on several processes), the optimizer.

    Raises:
        TrainingError: Checkpoints or an average were asked for of a model whose weights are spread
            over processes.
    """
    sharded = any(hasattr(p, "full_tensor") for p in model.parameters())
    if sharded or str(getattr(accelerator, "distributed_type", "NO")).endswith("FSDP"):
        for name in ("checkpoint_dir", "ema_decay"):
            if getattr(config, name) is not None:
                raise TrainingError(
                    f"{name} must be None for weights that are spread over processes (FSDP); "
                    "save them with accelerator.save_state in a callback"
                )
        if not sharded:  # weights and the optimizer's references to them change together
            model, optimizer = accelerator.prepare(model, optimizer)
        return model, model, optimizer
    if accelerator.num_processes > 1:
        return model, accelerator.prepare_model(model), optimizer
    model.to(device)
    if optimizer.state:  # loading moves each state to the device of its parameter
        optimizer.load_state_dict(optimizer.state_dict())
    return model, model, optimizer


def seed_run(
    config: TrainingConfig, accelerator: Any, sources: Iterable[Source]
) -> torch.Generator | None:
    """Seed everything, and return where thresholds are drawn from: alike on all processes.

    That is a stream of its own, so that drawing does not move the model's; `None`, torch's global
    one, without a seed on a single process.
    """
    utils, seed = require("accelerate.utils", extra="train"), config.seed
    together = accelerator.num_processes > 1
    if seed is not None:
        utils.set_seed(seed, device_specific=together)
    for source in sources:
        source.seed(seed)
    if together and seed is None:
        (seed,) = utils.broadcast_object_list([int(torch.randint(2**31, ()))])
    return None if seed is None else torch.Generator().manual_seed(seed)


def same_buffers(model: nn.Module, accelerator: Any) -> None:
    """Give all processes the running statistics of the first: what is validated is one model."""
    if accelerator.num_processes > 1:
        buffers = Buffers(model)
        broadcast = require("accelerate.utils", extra="train").broadcast
        buffers.set([broadcast(buffer.clone()) for buffer in buffers.now()])


def learning_rates(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """Return `lr`, that of the first group of parameters; of others `lr_1`, ... where they differ.

    Empty if the first has none.
    """
    rates = [float(g["lr"]) for g in optimizer.param_groups if g.get("lr") is not None]
    shown = rates if len(set(rates)) > 1 else rates[:1]
    return {f"lr_{i}" if i else "lr": rate for i, rate in enumerate(shown)}
