"""The cases of every group; every third of a group is held back from tuning."""

from collections import Counter

from benchmarks.field.case import Case
from benchmarks.field.cases import curves, few, labels, outliers, signals, tables, time

CASES: dict[str, Case] = {}
_places: Counter[str] = Counter()
for _module in (tables, few, curves, signals, outliers, labels, time):
    for _case in _module.CASES:
        CASES[_case.name] = _case._replace(held_back=_places[_case.group] % 3 == 2)
        _places[_case.group] += 1
