"""The matrix of transforms is complete, and its reasons are sentences."""

import importlib

import pytest

from tests.contract.test_docs import MODULES
from tests.transforms.functions import CELLS
from tests.transforms.placed import PLACED
from tests.transforms.table import FUNCTIONS

TRIED = {id(name) for function in FUNCTIONS for name in function.covers}


def public():
    """Yield (dotted name of its definition, object) of everything public that can be called."""
    for module in map(importlib.import_module, MODULES):
        for name in module.__all__:
            thing = getattr(module, name)
            home = getattr(thing, "__module__", None) or ""
            if callable(thing) and home.startswith("zeroproof"):
                yield f"{home}.{thing.__qualname__}", thing


PUBLIC = dict(public())


def place(name):
    """Return the entry of `PLACED` that a name falls under, itself or what it is part of."""
    parts = name.split(".")
    prefixes = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
    return next((prefix for prefix in prefixes if prefix in PLACED), None)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_tried_or_placed(name):
    assert id(PUBLIC[name]) in TRIED or place(name), (
        f"{name} is public: put it into the matrix of transforms, or into "
        "tests/transforms/placed.py with the reason why nothing differentiates it"
    )


def test_nothing_is_placed_that_is_not_there_or_that_is_tried():
    used = {place(name) for name, thing in PUBLIC.items() if id(thing) not in TRIED}
    assert set(PLACED) == used - {None}


def test_names_are_unique():
    names = [function.name for function in FUNCTIONS]
    assert sorted(set(names)) == sorted(names)


def test_reasons_belong_to_cells_and_are_sentences():
    reasons = [*PLACED.values()]
    for function in FUNCTIONS:
        assert set(function.reasons) <= set(CELLS)
        reasons += function.reasons.values()
    for reason in reasons:
        assert reason[0].isupper()
        assert reason.endswith(".")
        assert len(reason.split()) > 2
