"""Models that return (N, D) under Lightning's Trainer."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from zeroproof.autodiff.rewind import in_mode
from zeroproof.inference import StrictResult
from zeroproof.integrations import _lightning
from zeroproof.integrations._lightning import LightningModule, ProjectiveCallback
from zeroproof.integrations.objective import ProjectiveObjective
from zeroproof.losses.counting import Parts
from zeroproof.training import SoundRows, TrainingConfig
from zeroproof.training._joint import added
from zeroproof.training._loaders import Batch, as_batch

__all__ = ["ProjectiveCallback", "ProjectiveLightning"]


class ProjectiveLightning(LightningModule):
    """A `LightningModule` for any model of tuples; batches have the forms of `SCMTrainer`'s.

    It logs `train_loss`, `train_coverage` and `train_gap` of every epoch, and the same with `val_`
    and `test_`, where the loss is that of all rows together, however they are batched. In a batch
    that is a dict, `"weight"` beside `"y"` weighs the labels, see `ProjectiveObjective`.
    `Trainer.predict` gives a `StrictResult` for each batch, of x alone or of x and y, in the units
    of y. CLAMP's bound follows the loss scale of `precision="16-mixed"`.

    Args:
        model: Returns (N, D), or a mapping that holds N and D.
        loss_fn: As in `ProjectiveObjective`; if it is a module, its parameters train too.
        optimizer: Called with all parameters; returns what `configure_optimizers` may return.
        config: As in `ProjectiveObjective`; epochs, precision and accumulation are the Trainer's.

    Raises:
        RangeError: As `ProjectiveObjective`.
        DataError: A batch has none of the forms.

    Examples:
        >>> from zeroproof.layers import ProjectiveMLP
        >>> from zeroproof.training import SCMTrainingLoss
        >>> module = ProjectiveLightning(ProjectiveMLP(1, 1), SCMTrainingLoss())
        >>> module.predict_step(torch.zeros(4, 1)).decoded.shape
        torch.Size([4, 1])
    """

    def __init__(
        self,
        model: nn.Module,
        loss_fn: Callable[..., Tensor],
        *,
        optimizer: Callable[[Iterable[nn.Parameter]], Any] = torch.optim.Adam,
        config: TrainingConfig | None = None,
    ) -> None:
        super().__init__()
        self.objective = ProjectiveObjective(loss_fn, config)
        self.model, self.loss_fn, self._optimizer = model, loss_fn, optimizer
        self._sums: dict[int, dict[str, Parts]] = {}
        self._sound = SoundRows(model, self.objective.over)

    def forward(self, *args: Any, **named: Any) -> Any:
        """Return what the model returns."""
        return self.model(*args, **named)

    def configure_optimizers(self) -> Any:
        """Return the optimizer of all parameters."""
        return self._optimizer(self.parameters())

    def training_step(self, batch: Any, batch_idx: int = 0) -> Tensor:
        """Return the loss of the sound rows, at a τ_train that is drawn anew."""
        batch, sound = as_batch(batch), self._sound
        sound.distributed = self._trainer is not None and self._trainer.world_size > 1
        sound.begin((batch.args, batch.named), (batch.y, batch.weight))
        with self.objective.values():
            loss = sound.attempt(sound.forward, backward=False)
        if loss is not None:
            _lightning.log(self, {"train_loss": loss}, int(sound.sound.sum()))
            _lightning.log_shares(self, "train", self.objective.decode(sound.whole()))
        return sound.nothing() if loss is None else loss

    def validation_step(self, batch: Any, batch_idx: int = 0, dataloader_idx: int = 0) -> Tensor:
        """Return the loss, at the largest τ_train, and add it up for the epoch."""
        return self._judge(as_batch(batch), "val", dataloader_idx)

    def test_step(self, batch: Any, batch_idx: int = 0, dataloader_idx: int = 0) -> Tensor:
        """Do the same for `Trainer.test`."""
        return self._judge(as_batch(batch), "test", dataloader_idx)

    def on_validation_epoch_start(self) -> None:
        """Begin the sums of the loss."""
        self._sums = {}

    def on_validation_epoch_end(self) -> None:
        """Log the loss of all rows of the epoch together."""
        self._log_losses("val")

    on_test_epoch_start = on_validation_epoch_start

    def on_test_epoch_end(self) -> None:
        """Log the loss of all rows of the epoch together."""
        self._log_losses("test")

    @torch.no_grad()
    def predict_step(self, batch: Any, batch_idx: int = 0, dataloader_idx: int = 0) -> StrictResult:
        """Decode strictly, in eval mode; a row with an input that is not finite is ⊥."""
        with in_mode(self.model, training=False):
            strict = self.objective.strict(self.model)
            if isinstance(batch, Tensor):
                return strict(batch)
            alone = isinstance(batch, tuple | list) and len(batch) == 1
            return strict(*batch) if alone else as_batch(batch).through(strict)

    def backward(self, loss: Tensor, *args: Any, **named: Any) -> None:
        """Run backward under the policy of the config; again without rows that spoil it."""
        scale, sound, given = _lightning.loss_scale(self.trainer), self._sound, [loss]

        def run() -> Tensor:
            parts = self.trainer.accumulate_grad_batches
            with self.objective.values():
                loss = given.pop() if given else sound.forward() / parts
            super(ProjectiveLightning, self).backward(loss, *args, **named)
            return loss

        with self.objective.policy(scale):
            if scale is not None or sound.taken is None:
                run()
            elif sound.sound.any() or sound.distributed:
                # gradients are averaged by the first backward after a forward of all processes
                sound.attempt(run, again=not sound.distributed)
        sound.taken = sound.outputs = None

    def _judge(self, batch: Batch, part: str, loader: int) -> Tensor:
        with in_mode(self.model, training=False), self.objective.values():
            outputs = batch.through(self.model)
            parts = self.objective.parts(outputs, batch.y, batch.weight)
        added(self._sums.setdefault(loader, {}), parts)
        _lightning.log_shares(self, part, self.objective.decode(outputs))
        return self.objective.combine(parts)

    def _log_losses(self, part: str) -> None:
        reduce = partial(self.trainer.strategy.reduce, reduce_op="sum")
        for loader, sums in self._sums.items():
            joint = {name: Parts(*map(reduce, pair)) for name, pair in sums.items()}
            # named as Lightning itself names what is logged in the steps of several loaders
            suffix = f"/dataloader_idx_{loader}" if len(self._sums) > 1 else ""
            loss = self.objective.combine(joint).float()
            self.log(f"{part}_loss{suffix}", loss, add_dataloader_idx=False)
