"""What the metadata promise: each extra brings what the code asks for, and nothing else."""

import re
import tomllib
from pathlib import Path

from zeroproof import __version__

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
# what is installed under another name than it is imported
IMPORTED = {"sklearn": "scikit-learn", "yaml": "pyyaml"}
COMES_WITH = {
    "numpy": {"accelerate", "matplotlib", "pandas", "scikit-learn", "numba"},
    "contourpy": {"matplotlib"},
    "scipy": {"scikit-learn"},
}


def names(extra):
    """Return the distributions of an extra, those of extras inside it included."""
    found = set()
    for requirement in EXTRAS[extra]:
        name, _, inner = re.match(r"([\w-]+)(\[([\w,]+)\])?", requirement).groups()
        found |= set.union(*map(names, inner.split(","))) if name == PROJECT["name"] else {name}
    return found


CODE = "\n".join(p.read_text(encoding="utf-8") for p in (ROOT / "zeroproof").rglob("*.py"))


def test_what_the_code_asks_for_is_in_its_extra():
    for module, extra in re.findall(r'require\(\s*"([\w.]+)",\s*extra="(\w+)"', CODE):
        name = module.partition(".")[0]
        wanted = COMES_WITH.get(name, {IMPORTED.get(name, name).replace("_", "-")})
        assert wanted & names(extra), (module, extra)


def test_every_extra_has_code_behind_it():
    asked = set(re.findall(r'extra="(\w+)"', CODE)) | {"native"}  # numba, where it is installed
    assert set(EXTRAS) - asked == {"all"}


def test_the_version_stands_once():
    assert PROJECT["version"] == __version__
