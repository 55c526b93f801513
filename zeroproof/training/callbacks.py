"""Callbacks: what a trainer calls at nine moments of a run."""

from collections.abc import Callable, Iterable
from typing import Any

__all__ = ["EVENTS", "Callback", "Events"]


class Callback:
    """Base of callbacks: every event does nothing. Any object with some of the methods will do.

    Each is called as `event(trainer)`. What there is to see: `trainer.model`, `.optimizer`,
    `.loss_fn` (may be set), `.history`, `.epoch` and `.step` (counted from 0), `.row` (the values
    of the running epoch), `.checkpoint` (the latest one's folder). `trainer.stop(reason)` ends the
    run. With `state_dict()` and `load_state_dict(state)` a callback is part of every checkpoint.

    Examples:
        >>> class Rates(Callback):
        ...     def on_epoch_end(self, trainer):
        ...         print(trainer.epoch, trainer.row["lr"])
    """

    def on_fit_begin(self, trainer: Any) -> None:
        """Before the first step, also of a run that goes on; states are restored by then."""

    def on_epoch_begin(self, trainer: Any) -> None:
        """Before an epoch's first batch; not again in an epoch that goes on."""

    def on_batch_begin(self, trainer: Any) -> None:
        """Before the batches of an optimizer step."""

    def on_backward_end(self, trainer: Any) -> None:
        """With the gradients of a step, unscaled, and not clipped yet."""

    def on_batch_end(self, trainer: Any) -> None:
        """After an optimizer step, made or skipped."""

    def on_validate_end(self, trainer: Any) -> None:
        """When `trainer.row` has the validation values."""

    def on_epoch_end(self, trainer: Any) -> None:
        """When `trainer.history[-1]` is complete; numbers may be added to it."""

    def on_checkpoint_end(self, trainer: Any) -> None:
        """When a checkpoint is on disk, at `trainer.checkpoint`."""

    def on_fit_end(self, trainer: Any) -> None:
        """When training has ended and the weights to keep are in the model."""


EVENTS = tuple(name for name in vars(Callback) if name.startswith("on_"))


class Events:
    """Calls callbacks, in their order; what has nothing to say to an event costs nothing."""

    def __init__(self, callbacks: Iterable[Any]) -> None:
        self.callbacks = tuple(callbacks)
        self._calls: dict[str, list[Callable[[Any], None]]] = {
            event: [getattr(c, event) for c in self.callbacks if _listens(c, event)]
            for event in EVENTS
        }

    def __call__(self, event: str, trainer: Any) -> bool:
        """Call all that listen to an event; tell whether there are any."""
        for call in self._calls[event]:
            call(trainer)
        return bool(self._calls[event])

    def state(self) -> list[Any]:
        """Return the states of the callbacks, `None` for one without."""
        return [c.state_dict() if _keeps_state(c) else None for c in self.callbacks]

    def restore(self, states: list[Any]) -> None:
        """Set what `state` returned."""
        for callback, state in zip(self.callbacks, states, strict=True):
            if state is not None:
                callback.load_state_dict(state)


def _keeps_state(callback: Any) -> bool:
    return hasattr(callback, "state_dict") and hasattr(callback, "load_state_dict")


def _listens(callback: Any, event: str) -> bool:
    own = getattr(type(callback), event, None)
    return hasattr(callback, event) and own is not getattr(Callback, event)
