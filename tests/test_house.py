"""Rules of the house: a name stands for one thing, and a private module is used in its room."""

import ast
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "zeroproof"
SMALL = 120  # lines; a private module below it belongs into its only importer


def name_of(path):
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def imported(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.fixture(scope="module")
def modules():
    return {name_of(path): path.read_text(encoding="utf-8") for path in ROOT.rglob("*.py")}


@pytest.fixture(scope="module")
def importers(modules):
    found = defaultdict(set)
    for name, text in modules.items():
        for other in set(imported(ast.parse(text))) & modules.keys() - {name}:
            found[other].add(name)
    return found


def private(modules):
    """Return private modules within rooms; those at the top serve all rooms."""
    return [name for name in modules if name.count(".") > 1 and name.split(".")[-1][0] == "_"]


def test_no_class_name_stands_for_two_things(modules):
    places = defaultdict(list)
    for name, text in modules.items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(name)
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def test_a_private_module_is_used_in_its_room_alone(modules, importers):
    foreign = {
        name: sorted(u for u in importers[name] if u.split(".")[1] != name.split(".")[1])
        for name in private(modules)
    }
    assert {name: users for name, users in foreign.items() if users} == {}


def test_no_small_private_module_has_one_importer(modules, importers):
    small = {name for name in private(modules) if modules[name].count("\n") < SMALL}
    assert {name for name in small if len(importers[name]) < 2} == set()
