"""Lightning itself, and a gradient policy for modules of any kind."""

import sys
from collections.abc import Mapping
from contextlib import ExitStack
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from torch import Tensor

from zeroproof._extras import require
from zeroproof.autodiff import GradientPolicy, gradient_policy
from zeroproof.inference import InferenceConfig, StrictResult, strict_inference
from zeroproof.metrics import coverage_share, gap_share, rate
from zeroproof.training._calling import as_pair

if TYPE_CHECKING:
    from lightning.pytorch import Callback, LightningModule
else:
    # a Trainer refuses modules of its twin distribution: the one in use, else the one installed
    _used = "pytorch_lightning" in sys.modules and "lightning.pytorch" not in sys.modules
    _twin = _used or (find_spec("lightning") is None and find_spec("pytorch_lightning") is not None)
    _library = require("pytorch_lightning" if _twin else "lightning.pytorch", extra="lightning")
    Callback, LightningModule = _library.Callback, _library.LightningModule

__all__ = ["LightningModule", "ProjectiveCallback", "log", "log_shares", "loss_scale"]


def loss_scale(trainer: Any) -> float | None:
    """Return the factor of the loss under `precision="16-mixed"`, `None` without one."""
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    return None if scaler is None else scaler.get_scale()


def log(module: Any, values: dict[str, Tensor], count: int) -> None:
    """Log values as means over the epoch, each weighted by its count."""
    module.log_dict(values, on_step=False, on_epoch=True, sync_dist=True, batch_size=count)


def log_shares(module: Any, part: str, result: StrictResult) -> None:
    """Log coverage and gap of the epoch: shares of all its answers."""
    shares = {"coverage": coverage_share(result.bottom_mask), "gap": gap_share(result.gap_mask)}
    values = {f"{part}_{name}": rate(share) for name, share in shares.items()}
    if result.bottom_mask.numel():
        log(module, values, result.bottom_mask.numel())


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
        self._open.enter_context(gradient_policy(self.policy, loss_scale=loss_scale(trainer)))

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
            log_shares(module, part, strict_inference(N, D, self.decoding))
