"""Models that return (N, D) under Lightning's Trainer."""

import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from zeroproof._extras import require
from zeroproof.autodiff import GradientPolicy, gradient_policy
from zeroproof.autodiff.rewind import in_mode
from zeroproof.inference import InferenceConfig, StrictResult, strict_inference
from zeroproof.integrations.objective import ProjectiveObjective
from zeroproof.losses.gradients import Parts
from zeroproof.metrics import coverage_share, gap_share, rate
from zeroproof.training import SoundRows, TrainingConfig
from zeroproof.training.loaders import Batch, as_batch
from zeroproof.training.step import added, as_pair

if TYPE_CHECKING:
    from lightning.pytorch import Callback, LightningModule
else:
    # a Trainer refuses modules of its twin distribution: the one in use, else the one installed
    _used = "pytorch_lightning" in sys.modules and "lightning.pytorch" not in sys.modules
    _twin = _used or (find_spec("lightning") is None and find_spec("pytorch_lightning") is not None)
    _library = require("pytorch_lightning" if _twin else "lightning.pytorch", extra="lightning")
    Callback, LightningModule = _library.Callback, _library.LightningModule

__all__ = ["ProjectiveCallback", "ProjectiveLightning"]


def _loss_scale(trainer: Any) -> float | None:
    """Return the factor of the loss under `precision="16-mixed"`, `None` without one."""
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    return None if scaler is None else scaler.get_scale()


def _log(module: Any, values: dict[str, Tensor], count: int) -> None:
    """Log values as means over the epoch, each weighted by its count."""
    module.log_dict(values, on_step=False, on_epoch=True, sync_dist=True, batch_size=count)


def _log_shares(module: Any, part: str, result: StrictResult) -> None:
    """Log coverage and gap of the epoch: shares of all its answers."""
    shares = {"coverage": coverage_share(result.bottom_mask), "gap": gap_share(result.gap_mask)}
    values = {f"{part}_{name}": rate(share) for name, share in shares.items()}
    if result.bottom_mask.numel():
        _log(module, values, result.bottom_mask.numel())


class ProjectiveLightning(LightningModule):
    """A `LightningModule` for any model of tuples; batches have the forms of `SCMTrainer`'s.

    It logs `train_loss`, `train_coverage` and `train_gap` of every epoch, and the same with `val_`
    and `test_`, where the loss is that of all rows together, however they are batched. In a batch
    that is a dict, `"weight"` beside `"y"` weighs the labels, see `ProjectiveObjective`.
    `Trainer.predict` gives a `StrictResult` for each batch, of x alone or of x and y, in the units
    of y, as `ProjectiveObjective.strict`. CLAMP's bound follows the loss scale of
    `precision="16-mixed"`.

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
            _log(self, {"train_loss": loss}, int(sound.sound.sum()))
            _log_shares(self, "train", self.objective.decode(sound.whole()))
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
        scale, sound, given = _loss_scale(self.trainer), self._sound, [loss]

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
        _log_shares(self, part, self.objective.decode(outputs))
        return self.objective.combine(parts)

    def _log_losses(self, part: str) -> None:
        reduce = partial(self.trainer.strategy.reduce, reduce_op="sum")
        for loader, sums in self._sums.items():
            joint = {name: Parts(*map(reduce, pair)) for name, pair in sums.items()}
            # named as Lightning itself names what is logged in the steps of several loaders
            suffix = f"/dataloader_idx_{loader}" if len(self._sums) > 1 else ""
            loss = self.objective.combine(joint).float()
            self.log(f"{part}_loss{suffix}", loss, add_dataloader_idx=False)


class ProjectiveCallback(Callback):
    """Hold a gradient policy around every step of a `LightningModule` of your own.

    Where its steps return a mapping with `N` and `D` (beside `loss`), coverage and gap of the epoch
    are logged as well, under the names of `ProjectiveLightning`. CLAMP's bound follows the loss
    scale. The context is closed even if backward raises.

    Args:
        policy: In force in forward, loss, backward and validation, where no module has one
            registered; REJECT in backward alone.
        decoding: Thresholds of coverage and gap; the defaults if it is left out.

    Raises:
        RangeError: `policy` is not a `GradientPolicy`.
    """

    def __init__(
        self,
        policy: GradientPolicy = GradientPolicy.PROJECT,
        *,
        decoding: InferenceConfig | None = None,
    ) -> None:
        with gradient_policy(policy):  # refused here rather than in the first step
            self.policy, self.decoding = policy, decoding
        self._open = ExitStack()

    def on_train_batch_start(self, *_: Any, **__: Any) -> None:
        """Open the context for forward; REJECT is for backward alone."""
        self._open.close()
        if self.policy is not GradientPolicy.REJECT:
            self._open.enter_context(gradient_policy(self.policy))

    on_validation_batch_start = on_train_batch_start

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: Tensor) -> None:
        """Open the context."""
        self._open.close()  # left open by a backward whose error the user's loop caught
        self._open.enter_context(gradient_policy(self.policy, loss_scale=_loss_scale(trainer)))

    def on_after_backward(self, *_: Any, **__: Any) -> None:
        """Close the context; also when training ends or fails."""
        self._open.close()

    on_exception = teardown = on_after_backward

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log coverage and gap; the context is open yet, if there was no backward."""
        self._open.close()
        self._log(pl_module, "train", outputs)

    def on_validation_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, *_: Any, **__: Any
    ) -> None:
        """Close the context; log coverage and gap."""
        self._open.close()
        self._log(pl_module, "val", outputs)

    def _log(self, module: Any, part: str, outputs: Any) -> None:
        if isinstance(outputs, Mapping) and {"N", "D"} <= set(outputs):
            N, D = (x.detach() for x in as_pair(outputs))
            _log_shares(module, part, strict_inference(N, D, self.decoding))
