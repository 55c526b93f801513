"""StrictModule as `torch.jit.script` takes it: one input, eval mode, no gates."""

import inspect

import torch
from torch import Tensor, nn

from zeroproof.errors import RangeError
from zeroproof.inference.config import InferenceConfig
from zeroproof.inference.strict import StrictResult
from zeroproof.projective._scripted import scripted_decode, scripted_score, scripted_widen

__all__ = ["ScriptedStrict", "check_one_input"]


class ScriptedStrict(nn.Module):
    """Answer as a `StrictModule` of a model with one input does in eval mode."""

    def __init__(self, model: nn.Module, config: InferenceConfig) -> None:
        super().__init__()
        self.model = model
        self.tau_infer, self.tau_train = config.tau_infer, config.tau_train
        self.angle, self.scale = config.score == "angle", config.scale
        self.training = False  # and the model is in eval mode, or it would not be scripted

    def forward(self, x: Tensor) -> StrictResult:
        """Decode what the model returns for the rows of x."""
        if self.training:
            raise RuntimeError("a scripted StrictModule only answers in eval mode")
        if x.is_floating_point() or x.is_complex():
            finite = torch.isfinite(x)
            x = torch.where(finite, x, 0)
        else:
            finite = torch.ones_like(x, dtype=torch.bool)
        output = self.model(x)
        N, D = scripted_widen(output[0]), scripted_widen(output[1])
        if not _belong(N, D):
            raise ValueError("N and D must have equal shapes, or D one column for all outputs")
        broken = _broken_rows(finite, N)
        score = scripted_score(N, D, self.angle, self.scale)
        score = torch.where(broken, 0, score)
        decoded, bottom = scripted_decode(N, D, score, self.tau_infer)
        return StrictResult(decoded, bottom, (score < self.tau_train) & ~bottom)


def _belong(N: Tensor, D: Tensor) -> bool:
    if N.size() == D.size():
        return True
    if N.dim() != D.dim() or N.dim() == 0 or D.size(-1) != 1:
        return False
    return N.size()[:-1] == D.size()[:-1]


def _broken_rows(finite: Tensor, N: Tensor) -> Tensor:
    if finite.dim() == 0:
        return ~finite
    rows = ~finite if finite.dim() == 1 else ~finite.flatten(1).all(1)
    if N.dim() == 0 or (rows.size(0) != 1 and rows.size(0) != N.size(0)):
        raise ValueError("N must keep the rows of the inputs in dimension 0")
    while rows.dim() < N.dim():
        rows = rows.unsqueeze(-1)
    return rows


def check_one_input(model: nn.Module) -> None:
    """Check that a model can be called with one input.

    Raises:
        RangeError: It needs more, or none.
    """
    parameters = inspect.signature(model.forward).parameters.values()
    needed = [x.name for x in parameters if x.default is x.empty and x.kind != x.VAR_KEYWORD]
    if len(needed) != 1:
        raise RangeError(
            "torch.jit.script needs a model with one input, one that takes several is exported with"
            f" torch.export; got {type(model).__name__}({', '.join(needed)})"
        )
