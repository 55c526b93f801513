"""What torch offers only under private names, in one place."""

# pyright: reportPrivateUsage=false, reportPrivateImportUsage=false

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

__all__ = [
    "MODULE_CALL",
    "copy_all",
    "flag_nonfinite",
    "function_modes",
    "has_values",
    "is_autocast",
    "is_forward_mode",
    "is_recording",
    "is_scripting",
    "is_tracing",
    "is_transforming",
    "learns_alone",
    "number_of",
    "set_function_modes",
    "stash",
    "stashed",
]

MODULE_CALL = torch.nn.Module._call_impl.__code__  # its frame has the module that is called


is_scripting = torch.jit.is_scripting  # documented, but not re-exported for type checkers


def stash(key: str, entry: Any) -> None:
    """Put an entry into torch's thread-local store, which autograd's worker threads inherit."""
    torch._C._stash_obj_in_tls(key, entry)


def stashed(key: str) -> Any:
    """Return what is stored under `key` in this thread, or `None`."""
    return torch._C._get_obj_in_tls(key) if torch._C._is_key_in_tls(key) else None


def has_values(x: Tensor) -> bool:
    """Tell whether numbers stand behind a tensor: not on the meta device, not behind a fake one."""
    return not (x.is_meta or hasattr(x, "fake_mode"))


def is_autocast(device: str) -> bool:
    """Tell whether autocast is on for a kind of device; some, as "meta", have none."""
    return torch._C._is_autocast_available(device) and torch.is_autocast_enabled(device)


def is_tracing() -> bool:
    """Tell whether `torch.jit.trace` is recording."""
    return torch._C._get_tracing_state() is not None


def is_transforming() -> bool:
    """Tell whether a transform of `torch.func` is at work."""
    return torch._C._are_functorch_transforms_active()


def learns_alone(parameter: Tensor) -> bool:
    """Tell whether no derivative is taken here but, at most, one gradient by this parameter.

    In `grad(loss)(parameters)` so; not where a transform takes derivatives by inputs, or of
    derivatives.
    """
    if torch.compiler.is_compiling() or not is_transforming():
        return True
    functorch: Any = torch._C._functorch  # pyright: ignore[reportAttributeAccessIssue]
    kinds = [layer.key() for layer in functorch.get_interpreter_stack() or ()]
    gradients = kinds.count(functorch.TransformType.Grad)
    if functorch.TransformType.Jvp in kinds or gradients > 1:
        return False
    while gradients and functorch.is_batchedtensor(parameter):
        parameter = functorch.get_unwrapped(parameter)
    return not gradients or functorch.is_gradtrackingtensor(parameter)


def is_forward_mode() -> bool:
    """Tell whether derivatives may travel forward: by dual tensors or `torch.func.jvp`.

    Not while compiling: torch's compiler refuses autograd functions with a `jvp`.
    """
    return not torch.compiler.is_compiling() and forward_ad._current_level >= 0


def is_recording() -> bool:
    """Tell whether `make_fx` records operations, for which tensors have no values."""
    return torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.PROXY) is not None


def function_modes() -> list[Any]:
    """Return the modes that see the calls of torch's functions, the outermost first."""
    return list(torch.overrides._get_current_function_mode_stack())


def number_of(node: Any) -> int:
    """Return the number that autograd gave a node of its graph, in the order of their making."""
    return node._sequence_nr()


def set_function_modes(modes: Sequence[Any]) -> None:
    """Put these modes in the place of those there are."""
    for _ in function_modes():
        torch.overrides._pop_mode()
    for mode in modes:
        torch.overrides._push_mode(mode)


def copy_all(targets: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    """Copy tensors in place, in one call."""
    if targets:
        torch._foreach_copy_(list(targets), list(sources))


def flag_nonfinite(tensors: list[Tensor], flag: Tensor, one: Tensor) -> None:
    """Set `flag`, a scalar, to 1 if a number is not finite; in one pass, where a norm takes three.

    The tensors have one floating-point type and one device; `one` is the scalar 1 on it.
    """
    torch._amp_foreach_non_finite_check_and_unscale_(tensors, flag, one)
