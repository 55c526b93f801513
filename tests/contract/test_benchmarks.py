"""Benchmarks and examples are commands that documentation names: what they import is there."""

import ast
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted(f for part in ("benchmarks", "examples") for f in (ROOT / part).rglob("*.py"))


def own(tree):
    """Yield what is imported from this repository: module and name."""
    for node in ast.walk(tree):
        module = getattr(node, "module", None) or ""
        if module.split(".")[0] in {"zeroproof", "benchmarks", "examples"}:
            yield from ((module, alias.name) for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_what_it_imports_is_there(path):
    for module, name in own(ast.parse(path.read_text(encoding="utf-8"))):
        if module.startswith("zeroproof"):
            found = import_module(module)
            assert hasattr(found, name) or import_module(f"{module}.{name}"), (module, name)
        else:
            file = ROOT / module.replace(".", "/")
            assert (
                file.with_suffix(".py").is_file()
                or (file / f"{name}.py").is_file()
                or (name in (file / "__init__.py").read_text())
            ), (module, name)
