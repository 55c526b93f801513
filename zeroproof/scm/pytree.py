"""Registration of our types with torch, for export, compile, vmap and `torch.load`."""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils import _pytree as pytree
from torch.utils._pytree import _register_namedtuple  # pyright: ignore[reportPrivateUsage]

__all__ = ["register_class", "register_namedtuple"]


def register_namedtuple(kind: type) -> None:
    """Register a NamedTuple type: `torch.export.save` refuses to return any other."""
    torch.serialization.add_safe_globals([kind])
    _register_namedtuple(kind, serialized_type_name=f"{kind.__module__}.{kind.__name__}")


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
