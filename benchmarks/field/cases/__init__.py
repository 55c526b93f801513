"""The cases of every group; every third of a group is held back from tuning."""

from benchmarks.field.case import Case
from benchmarks.field.cases import (
    clean,
    doses,
    heavy,
    impedance,
    labels,
    laws,
    many,
    noise_poles,
    nothing,
    outliers,
    regular,
    resonators,
    shapes,
)

MODULES = (
    regular,
    doses,
    nothing,
    shapes,
    impedance,
    resonators,
    outliers,
    noise_poles,
    many,
    laws,
    clean,
    labels,
    heavy,
)
CASES: dict[str, Case] = {
    case.name: case._replace(held_back=place % 3 == 2)
    for module in MODULES
    for place, case in enumerate(module.CASES)
}
