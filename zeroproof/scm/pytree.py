"""Registration of our types with torch's pytrees, so that export, compile and vmap carry them."""

from collections.abc import Callable
from typing import Any

from torch.utils import _pytree as pytree

__all__ = ["register_class", "register_namedtuple"]


def register_namedtuple(kind: type) -> None:
    """Register a NamedTuple type; without it `torch.export.save` refuses programs that return one."""
    pytree._register_namedtuple(kind, serialized_type_name=f"{kind.__module__}.{kind.__name__}")  # pyright: ignore[reportPrivateUsage]


def register_class(kind: type, fields: tuple[str, ...], make: Callable[..., Any]) -> None:
    """Register a class by the names of its fields; `make(*values)` builds it back unchecked."""
    pytree.register_pytree_node(
        kind,
        lambda x: ([getattr(x, name) for name in fields], None),
        lambda values, _: make(*values),
        serialized_type_name=f"{kind.__module__}.{kind.__name__}",
        flatten_with_keys_fn=lambda x: (
            [(pytree.GetAttrKey(name), getattr(x, name)) for name in fields],
            None,
        ),
        to_dumpable_context=lambda _: None,
        from_dumpable_context=lambda _: None,
    )
