"""The meadow: total arithmetic on numbers and one absorbing element ⊥."""

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
