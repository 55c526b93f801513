import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOTS = ("zeroproof", "examples", "benchmarks", "tests", "docs")
FILES = sorted(path for root in ROOTS for path in (ROOT / root).rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_exceeds_400_lines_and_no_function_60(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno < 60, node.name
