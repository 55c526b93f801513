"""The meadow: total arithmetic on numbers and one absorbing element ⊥.

The names arrive when first used: losses and decoding need the division alone.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zeroproof.scm.functions import cos, exp, log, power, sin, sqrt, tan
    from zeroproof.scm.reduce import coverage, masked_mean, masked_sum
    from zeroproof.scm.sign import weak_sign
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

_HOME = {
    **dict.fromkeys(("SCM", "from_ieee", "to_ieee"), "value"),
    **dict.fromkeys(("coverage", "masked_mean", "masked_sum"), "reduce"),
    "weak_sign": "sign",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME.get(name, 'functions')}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
