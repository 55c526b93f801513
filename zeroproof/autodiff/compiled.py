"""Compiled graphs, and what torch offers only under private names.

A vectorised loop stores and loads bools many times more slowly than floats. So a mask that leaves a
graph is written as bytes and turned into bools outside of the kernel (`masks`); and a mask that
backward needs is computed anew, for which it may consist only of operations that the partitioner
repeats: neither `|`, nor a comparison that reads more than four times what it writes, as that
within `isfinite` does.
"""

# pyright: reportPrivateUsage=false, reportPrivateImportUsage=false

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from zeroproof.native import is_transforming

__all__ = [
    "LANES",
    "MODULE_CALL",
    "compiling",
    "copy_all",
    "either",
    "finite",
    "flag_nonfinite",
    "function_modes",
    "has_values",
    "is_autocast",
    "is_scripting",
    "learns_alone",
    "number_of",
    "register_class",
    "register_namedtuple",
    "row_length",
    "set_function_modes",
    "stored",
]

LANES = 16  # floats in the widest vector
_LONGEST = 4096  # terms that float32 may sum one after the other
_SHORTEST = 256  # a row worth a loop


def compiling() -> bool:
    """Tell whether kernels are being generated; an exported graph shall stay plain."""
    return torch.compiler.is_compiling() and not torch.compiler.is_exporting()


def either(*masks: Tensor) -> Tensor:
    """Return where one of the masks is true; they broadcast."""
    joined, *others = masks
    for mask in others:
        joined = torch.where(joined, True, mask) if compiling() else joined | mask
    return joined


def finite(x: Tensor) -> Tensor:
    """Return where numbers are finite."""
    # of a complex number the modulus may overflow where both parts are finite
    return x.abs() < math.inf if compiling() and not x.is_complex() else torch.isfinite(x)


def stored(mask: Tensor) -> Tensor:
    """Return a mask as bytes, which a loop writes quickly; `as_mask` makes bools of them."""
    return torch.where(mask, 1.0, 0.0).to(torch.uint8)


def row_length(n: int) -> int | None:
    """Return the length of rows into which a long sum of n terms is cut, a multiple of `LANES`.

    Row by row it stays in the cache and needs no compensation. `None` where it is short, has no
    such rows, or where n is left open by a graph for any number of rows.
    """
    from torch.fx.experimental.symbolic_shapes import has_static_value  # imports half of a compiler

    if not has_static_value(n) or n <= _LONGEST:
        return None
    return next((k for k in range(_LONGEST, _SHORTEST - 1, -LANES) if n % k == 0), None)


# --- private names of torch -----------------------------------------------------------------------

MODULE_CALL = torch.nn.Module._call_impl.__code__  # its frame has the module that is called
is_scripting = torch.jit.is_scripting  # documented, but not re-exported for type checkers


def has_values(x: Tensor) -> bool:
    """Tell whether numbers stand behind a tensor: not on the meta device, not behind a fake one."""
    return not (x.is_meta or hasattr(x, "fake_mode"))


def is_autocast(device: str) -> bool:
    """Tell whether autocast is on for a kind of device; some, as "meta", have none."""
    return torch._C._is_autocast_available(device) and torch.is_autocast_enabled(device)


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


def register_namedtuple(kind: type) -> None:
    """Register a NamedTuple type: `torch.export.save` refuses to return any other."""
    torch.serialization.add_safe_globals([kind])
    pytree._register_namedtuple(kind, serialized_type_name=f"{kind.__module__}.{kind.__name__}")


def register_class(kind: type, fields: tuple[str, ...], make: Callable[..., Any]) -> None:
    """Register a class by the names of its fields; `make(*values)` builds it back unchecked."""

    def with_keys(x: Any) -> tuple[list[tuple[pytree.KeyEntry, Any]], Any]:
        return [(pytree.GetAttrKey(name), getattr(x, name)) for name in fields], None  # pyright: ignore[reportReturnType]

    torch.serialization.add_safe_globals([kind])
    pytree.register_pytree_node(
        kind,
        lambda x: ([getattr(x, name) for name in fields], None),
        lambda values, _: make(*values),
        serialized_type_name=f"{kind.__module__}.{kind.__name__}",
        flatten_with_keys_fn=with_keys,
        to_dumpable_context=lambda _: None,
        from_dumpable_context=lambda _: None,
    )
