"""The weights to end with: those of the best epoch, or their moving average."""

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from zeroproof.autodiff.rewind import Buffers
from zeroproof.autodiff.torch_internals import copy_all
from zeroproof.training._states import all_state, set_all_state

__all__ = ["Average", "Best"]


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
