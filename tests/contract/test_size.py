import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOTS = ("zeroproof", "examples", "benchmarks", "tests", "docs")
FILES = sorted(path for root in ROOTS for path in (ROOT / root).rglob("*.py"))


def long_functions(path):
    text = path.read_text(encoding="utf-8")
    lines = ["", *map(str.strip, text.splitlines())]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            told = node.body[0] if ast.get_docstring(node) is not None else None
            code = [
                n
                for n in range(node.lineno, node.end_lineno + 1)
                if lines[n] and not lines[n].startswith("#")
                if told is None or not told.lineno <= n <= told.end_lineno
            ]
            if len(code) > 100:
                yield f"{path.relative_to(ROOT)}: {node.name}"


def test_no_function_has_more_than_100_lines_of_code():
    assert [name for path in FILES for name in long_functions(path)] == []
