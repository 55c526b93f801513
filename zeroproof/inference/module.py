"""StrictModule: any model that returns (N, D), ready to deploy."""

import inspect
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from zeroproof._checks import pair_shapes
from zeroproof.autodiff.policies import PolicyModule, scope_of
from zeroproof.autodiff.sound import SoundRows
from zeroproof.errors import RangeError, ShapeError
from zeroproof.inference.strict import InferenceConfig, StrictResult, checked_config, decided
from zeroproof.native import is_recording, is_tracing, is_transforming
from zeroproof.projective.decoding import scripted_decode, scripted_score, scripted_widen
from zeroproof.projective.tuples import Pair, gated

__all__ = ["StrictModule"]


class StrictModule(PolicyModule):
    """Wrap a model that returns (N, D): tuples while it trains, answers with masks in eval mode.

    In eval mode a row (dimension 0) with any input that is not finite is ⊥ in all its outputs,
    whatever the model makes of it. The model sees 0 in place of such entries, so that they cannot
    spread to other rows. All floating-point tensors among the arguments are inputs in this sense;
    attention masks should be boolean.

    In training mode it returns (N, D) as a `Pair`, nan in the rows whose inputs or outputs are not
    finite; the model ran without them, as in `training.SoundRows`, so that no gradient of a loss
    that leaves them out is spoilt. On an accelerator, and while a compiler or a transform records,
    rows with a bad input stay as zeros and others are not looked for.

    A policy registered with `register_policy` acts on dL/dN and dL/dD in both modes.

    `torch.jit.script` takes it in eval mode, over a model that is scriptable and has one input; the
    scripted module answers with a `StrictResult` too, and follows no policy.

    Args:
        model: Returns (N, D), a tuple, list or `Pair` of tensors, and keeps rows in dimension 0.
        config: Thresholds and score; the defaults if it is left out.

    Raises:
        RangeError: `model` is no module, `config` no config, or the model does not return (N, D).
        ShapeError: N and D, or the rows of inputs and outputs, do not belong together.

    Examples:
        >>> from zeroproof.layers import ProjectiveMLP
        >>> module = StrictModule(ProjectiveMLP(2, 1)).eval()
        >>> decoded, bottom_mask, gap_mask = module(torch.tensor([[0.0, 1.0], [float("nan"), 1.0]]))
        >>> bottom_mask
        tensor([[False],
                [ True]])
    """

    answers_in_eval = True  # training loops that validate want its tuples there too

    def __init__(self, model: nn.Module, config: InferenceConfig | None = None) -> None:
        super().__init__()
        if not isinstance(model, nn.Module):
            raise RangeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
        self.model = model
        self.config = checked_config(config)
        self._sound = SoundRows(model, None)

    def forward(self, x: Any, *others: Any, **options: Any) -> StrictResult | Pair:
        """Return the model's `Pair` in training mode, a `StrictResult` in eval mode."""
        leaves, structure = pytree.tree_flatten(((x, *others), options))
        if self.training and (rows := next(filter(_readable, leaves), None)) is not None:
            if self._sound.model is not self.model:
                self._sound = SoundRows(self.model, None)
            with self._scope():
                outputs = self._sound.among_all(((x, *others), options), rows)
            return gated(*_pair(outputs), self.policy_code)
        finite = [torch.isfinite(leaf) if _gateable(leaf) else None for leaf in leaves]
        safe = [
            leaf if mask is None else torch.where(mask, leaf, 0)
            for leaf, mask in zip(leaves, finite, strict=True)
        ]
        inputs, options = pytree.tree_unflatten(safe, structure)
        with self._scope():
            N, D = _pair(self.model(*inputs, **options))
        bottom = _broken_rows([mask for mask in finite if mask is not None], N)
        if self.training:
            N = N if bottom is None else torch.where(bottom, torch.nan, N)
            return gated(N, D, self.policy_code)
        return decided(N, D, self.config, bottom=bottom, fixed=self.policy_code, of_model=True)

    def _scope(self) -> AbstractContextManager[None]:
        # what the model does itself, beside its layers, follows a registered policy too
        return scope_of(self.policy_code) if self.policy_code >= 0 else nullcontext()

    def __prepare_scriptable__(self) -> nn.Module:
        """Return what `torch.jit.script` compiles in place of this module, over the same model."""
        if self.training:
            raise RangeError("a StrictModule must be in eval mode to be scripted; call eval()")
        _check_one_input(self.model)
        return _ScriptedStrict(self.model, self.config)

    def extra_repr(self) -> str:
        """Show the thresholds."""
        return f"config={self.config}"


def _gateable(x: object) -> bool:
    return isinstance(x, Tensor) and (x.is_floating_point() or x.is_complex())


def _readable(x: object) -> bool:
    """Tell whether it is an input with rows whose numbers the host may read."""
    if torch.compiler.is_compiling() or is_tracing() or is_recording() or is_transforming():
        return False
    return type(x) is Tensor and _gateable(x) and x.ndim > 0 and x.device.type == "cpu"


def _pair(output: Any) -> Pair:
    if isinstance(output, tuple | list) and len(output) == 2:
        N, D = output
        if isinstance(N, Tensor) and isinstance(D, Tensor):
            pair_shapes(N, D)
            return Pair(N, D)
    raise RangeError(f"the model must return (N, D), two tensors, got {_described(output)}")


def _described(output: object) -> str:
    if isinstance(output, Tensor):
        return f"one tensor of shape {tuple(output.shape)}"
    if isinstance(output, tuple | list):
        return f"{type(output).__name__} of ({', '.join(type(x).__name__ for x in output)})"
    return type(output).__name__


def _broken_rows(finite: list[Tensor], N: Tensor) -> Tensor | None:
    """Return where a row of any input was not finite, in a shape that broadcasts to N."""
    broken = None
    for mask in finite:
        rows = ~(mask.flatten(1).all(1) if mask.ndim > 1 else mask)
        if broken is not None:
            _same_rows(rows, broken)
        broken = rows if broken is None else broken | rows
    if broken is None or broken.ndim == 0:
        return broken
    if N.ndim == 0 or broken.shape[0] not in (1, N.shape[0]):
        raise ShapeError(
            f"N must keep the {broken.shape[0]} rows of the inputs in dimension 0, "
            f"got {tuple(N.shape)}"
        )
    return broken.reshape(-1, *[1] * (N.ndim - 1))


def _same_rows(x: Tensor, like: Tensor) -> None:
    """Check dimension 0 of two inputs; scalars and single rows serve all rows."""
    if 0 in (x.ndim, like.ndim) or 1 in (x.shape[0], like.shape[0]):
        return
    if x.shape[0] != like.shape[0]:
        raise ShapeError(
            "every input must have the same number of rows, in dimension 0, "
            f"got {like.shape[0]} and {x.shape[0]}"
        )


class _ScriptedStrict(nn.Module):  # and all below it, for a compiler that takes little of Python
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
        broken = _broken_rows_of_one(finite, N)
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


def _broken_rows_of_one(finite: Tensor, N: Tensor) -> Tensor:
    if finite.dim() == 0:
        return ~finite
    rows = ~finite if finite.dim() == 1 else ~finite.flatten(1).all(1)
    if N.dim() == 0 or (rows.size(0) != 1 and rows.size(0) != N.size(0)):
        raise ValueError("N must keep the rows of the inputs in dimension 0")
    while rows.dim() < N.dim():
        rows = rows.unsqueeze(-1)
    return rows


def _check_one_input(model: nn.Module) -> None:
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
