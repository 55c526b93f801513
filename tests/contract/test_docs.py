"""The documentation is executed, its links are followed, and it leaves no public name out."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINKING = [*PAGES, *(ROOT / name for name in ("CONTRIBUTING.md", "CHANGELOG.md"))]
PACKAGE = ROOT / "zeroproof"

FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```\s*$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
DIRECTIVE = re.compile(r"^::: (zeroproof[\w.]*)", re.MULTILINE)


def named(path):
    return str(path.relative_to(ROOT))


def python_blocks(text):
    """Return (line of the file, source) of every python block."""
    return [
        (text.count("\n", 0, block.start(2)), block[2])
        for block in FENCE.finditer(text)
        if block[1] == "python"
    ]


EXECUTED = [path for path in PAGES if python_blocks(path.read_text(encoding="utf-8"))]
DIRECTIVES = {x for path in PAGES for x in DIRECTIVE.findall(path.read_text(encoding="utf-8"))}


def public_modules():
    """Return {dotted name: file} of the modules with `__all__` and no underscore in their path."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        if not any(part.startswith("_") for part in parts) and exported(path):
            found[".".join(parts)] = path
    return found


def exported(path):
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return ast.literal_eval(node.value)
    return []


def homes(path):
    """Return {name: defining module} for what an `__init__` re-exports."""
    imports = [
        node
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))  # types alone included
        if isinstance(node, ast.ImportFrom) and node.module.startswith("zeroproof")
    ]
    return {alias.name: node.module for node in imports for alias in node.names}


MODULES = public_modules()
ROOMS = {
    name: path
    for name, path in MODULES.items()
    if path.name == "__init__.py" and name != "zeroproof"  # whose names are those of the rooms
}
NAMES = [(home, name) for path in ROOMS.values() for name, home in homes(path).items()]


@pytest.mark.parametrize("page", EXECUTED, ids=named)
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "page"}
    for line, source in python_blocks(page.read_text(encoding="utf-8")):
        code = compile("\n" * line + source, str(page), "exec")  # so that errors name the line
        exec(code, namespace)


@pytest.mark.parametrize("page", LINKING, ids=named)
def test_relative_links_point_to_something(page):
    prose = FENCE.sub("", page.read_text(encoding="utf-8"))
    targets = [target.partition("#")[0] for target in LINK.findall(prose) if ":" not in target]
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("module", sorted(set(MODULES) - {"zeroproof", "zeroproof.defaults"}))
def test_every_public_module_has_a_place_in_the_reference(module):
    # zeroproof.defaults has a page of its own, generated and checked in test_defaults_page.py
    room = ".".join(module.split(".")[:2])
    described = any(x in {room, module} or x.startswith(f"{module}.") for x in DIRECTIVES)
    assert described, f"a page in docs/reference must hold '::: {module}' or a name of it"


@pytest.mark.parametrize(("home", "name"), NAMES, ids=[f"{home}.{name}" for home, name in NAMES])
def test_every_name_that_a_room_offers_is_described(home, name):
    room = ".".join(home.split(".")[:2])
    assert DIRECTIVES & {f"{home}.{name}", f"{room}.{name}", home}
