"""The meadow: total arithmetic on numbers and one absorbing element ⊥.

The names arrive when first used: losses and decoding need the division alone.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zeroproof.scm.functions import (
        cos,
        coverage,
        exp,
        log,
        masked_mean,
        masked_sum,
        power,
        sin,
        sqrt,
        tan,
        weak_sign,
    )
    from zeroproof.scm.value import SCM, from_ieee, to_ieee

__all__ = [
    "SCM",
    "cos",
    "coverage",
    "exp",
    "from_ieee",
    "log",
    "masked_mean",
    "masked_sum",
    "power",
    "sin",
    "sqrt",
    "tan",
    "to_ieee",
    "weak_sign",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = "value" if name in {"SCM", "from_ieee", "to_ieee"} else "functions"
    return getattr(import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
