"""docs/reference/defaults.md is made from `zeroproof.defaults`.

To write it anew: python tests/contract/test_defaults_page.py
"""

import math
from pathlib import Path

from zeroproof.defaults import PARAMETERS, Parameter

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "defaults.md"
HEAD = """# Defaults

Every threshold and weight that a user may set. A number outside its legal range is a `RangeError`.
This page is generated from `zeroproof.defaults.PARAMETERS`.

| parameter | meaning | default | usual range | legal range |
|---|---|---|---|---|
"""


def legal(parameter: Parameter) -> str:
    left = "(" if parameter.open_low else "["
    right = "∞)" if math.isinf(parameter.high) else f"{parameter.high:g}]"
    return f"{left}{parameter.low:g}, {right}"


def row(p: Parameter) -> tuple[str, ...]:
    usual = "[{:g}, {:g}]".format(*p.usual)
    return f"`{p.name}`", p.meaning, f"{p.value:g}", usual, legal(p)


def page() -> str:
    return HEAD + "".join(f"| {' | '.join(row(p))} |\n" for p in PARAMETERS)


def test_the_page_is_up_to_date():
    assert PAGE.read_text(encoding="utf-8") == page()


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
