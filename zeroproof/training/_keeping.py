"""The weights to end with: of the best epoch or their moving average; and when a run is over."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from zeroproof._extras import require
from zeroproof.autodiff.compiled import copy_all
from zeroproof.autodiff.rewind import Buffers
from zeroproof.training._progress import Progress
from zeroproof.training.config import TrainingConfig
from zeroproof.training.stopping import coverage_stalled

__all__ = ["Average", "Best", "Judge", "all_state", "plain", "set_all_state"]

# reasons that follow from options, which may be others by now
_LIMITS = {None, "max_epochs", "max_steps", "coverage", "loss"}


def plain(model: nn.Module) -> nn.Module:
    """Return the module inside a compiled one, whose names differ."""
    return getattr(model, "_orig_mod", model)


def all_state(model: nn.Module) -> dict[str, Any]:
    """Return parameters and all buffers, those too that a `state_dict` leaves out."""
    model = plain(model)
    return {**model.state_dict(), **dict(model.named_buffers())}


def set_all_state(model: nn.Module, state: Mapping[str, Any]) -> None:
    """Set what `all_state` returned."""
    model = plain(model)
    known = model.state_dict().keys()
    model.load_state_dict({name: value for name, value in state.items() if name in known})
    for name, buffer in model.named_buffers():
        buffer.data.copy_(state[name])


class Best:
    """The weights of the best epoch: enough coverage first, then the lowest loss."""

    def __init__(self) -> None:
        self.epoch: int | None = None
        self._rank: tuple[bool, float] | None = None
        self._weights: dict[str, Any] = {}

    def offer(self, model: nn.Module | None, loss: float, epoch: int, *, covered: bool) -> bool:
        """Tell whether an epoch is the best so far; copy its weights if there is a model."""
        rank = (not covered, loss)
        if self._rank is not None and rank >= self._rank:
            return False
        self._rank, self.epoch = rank, epoch
        if model is not None:
            self._copy(model.state_dict())
        return True

    def load_into(self, model: nn.Module) -> bool:
        """Load the weights kept, if there are some."""
        if self._weights:
            model.load_state_dict(self._weights)
        return bool(self._weights)

    def _copy(self, state: dict[str, Any]) -> None:
        """Copy into tensors that are kept, so that no epoch allocates anew."""
        for name, value in state.items():
            old = self._weights.get(name)
            if not isinstance(value, Tensor):
                self._weights[name] = deepcopy(value)  # extra state of a module
            elif isinstance(old, Tensor) and (old.shape, old.dtype) == (value.shape, value.dtype):
                old.copy_(value)
            else:
                self._weights[name] = value.detach().clone()

    def state(self) -> dict[str, Any]:
        """Return epoch, rank and weights."""
        rank = None if self._rank is None else list(self._rank)
        return {"epoch": self.epoch, "rank": rank, "weights": self._weights}

    def restore(self, state: dict[str, Any]) -> None:
        """Set what `state` returned."""
        self.epoch, self._weights = state["epoch"], dict(state["weights"])
        self._rank = None if state["rank"] is None else tuple(state["rank"])


class Average:
    """An exponential moving average of the weights; running statistics are copied.

    Formula: after the first step θ̄ = θ, then θ̄ ← decay·θ̄ + (1 - decay)·θ.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        # its counter stays on the CPU, where it is read in every step; torch's own update would
        # send it to the device each time
        self._averaged, self._mix = AveragedModel(model), get_ema_multi_avg_fn(decay)
        self._weights: tuple[list[Tensor], list[Tensor]] = (
            list(self.model.parameters()),
            list(model.parameters()),
        )
        self._buffers = Buffers(self.model), Buffers(model)

    @property
    def model(self) -> nn.Module:
        """The module with the averaged weights."""
        return self._averaged.module

    def load_into(self, model: nn.Module) -> None:
        """Put the averaged weights, and the running statistics, into a model."""
        model.load_state_dict(self.model.state_dict())

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after a step."""
        count = self._averaged.n_averaged
        if count == 0:
            copy_all(*self._weights)
        else:
            self._mix(*self._weights, count)
        own, others = self._buffers
        own.set(others.now())
        count += 1

    def state(self) -> dict[str, Any]:
        """Return the averaged weights, all buffers, and their count."""
        return {"count": int(self._averaged.n_averaged), "model": all_state(self.model)}

    def restore(self, state: dict[str, Any]) -> None:
        """Set what `state` returned."""
        self._averaged.n_averaged.fill_(state["count"])
        set_all_state(self.model, state["model"])


class Judge:
    """Watches the validation values, or those of training where there are no others.

    Args:
        config: Limits and patience.
        progress: How far the run has come.
        best: Where the best epoch is kept.
        part: `"val"` or `"train"`.
    """

    def __init__(self, config: TrainingConfig, progress: Progress, best: Best, part: str) -> None:
        self._config, self._progress, self._best, self._part = config, progress, best, part

    @property
    def loss(self) -> float | None:
        """The loss of the latest epoch, if one is known."""
        return self._progress.row.get(f"{self._part}_loss")

    def offer(self, model: nn.Module) -> None:
        """Keep the weights of the latest epoch if it is the best so far."""
        config = self._config
        if self.loss is None or not (config.keep_best or config.loss_patience):
            return
        coverage = self._progress.row.get(f"{self._part}_coverage", 0.0)
        self._best.offer(
            model if config.keep_best else None,
            self.loss,
            self._progress.epoch,
            covered=coverage >= config.coverage_threshold,
        )

    def steps_are_over(self) -> bool:
        """Tell whether `max_steps` is reached."""
        limit = self._config.max_steps
        return limit is not None and self._progress.step >= limit

    def verdict(self, accelerator: Any) -> str | None:
        """Return why the run is over after an epoch: what a callback of any process wished, first.

        All processes have to call.
        """
        wishes = [self._progress.wish]
        if accelerator.num_processes > 1:
            wishes = require("accelerate.utils", extra="train").gather_object(wishes)
        return next(filter(None, wishes), None) or self.reason()

    def reason(self) -> str | None:
        """Return why the run is over after an epoch, `None` if it is not."""
        config, history = self._config, self._progress.history
        if self.steps_are_over():
            return "max_steps"
        patience = config.coverage_patience
        coverages = [x for row in history if (x := row.get(f"{self._part}_coverage")) is not None]
        # a coverage that is where a schedule wants it does not stagnate
        enough = min(config.coverage_threshold, self._progress.row.get("target_coverage", 1.0))
        if coverages and coverage_stalled(coverages, enough, patience):
            return "coverage"
        since = len(history) - 1 - (self._best.epoch or 0)
        if config.loss_patience is not None and since >= config.loss_patience:
            return "loss"
        return "max_epochs" if len(history) >= config.max_epochs else None

    def reason_before(self) -> str | None:
        """Return why a run that is resumed was over already."""
        if self._progress.running or not self._progress.history:
            return None
        before = self._progress.reason
        return self.reason() if before in _LIMITS else before
