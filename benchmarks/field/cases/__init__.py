"""The cases of every group; every third of a group is held back from tuning."""

from importlib import import_module

from benchmarks.field.case import Case

NAMES = "regular doses nothing shapes impedance resonators outliers noise_poles many laws clean "
NAMES += "labels heavy trust"
MODULES = [import_module(f"benchmarks.field.cases.{name}") for name in NAMES.split()]
CASES: dict[str, Case] = {
    case.name: case._replace(held_back=place % 3 == 2)
    for module in MODULES
    for place, case in enumerate(module.CASES)
}
