"""Short functions: a reader holds one in mind at a time. `make lint` notes long modules, for people."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
FUNCTION_MAX_LINES = 50

EXEMPT: dict[str, str] = {}
"""Functions that may be longer, "module:name" to the reason. Empty is right."""


def sources(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def test_functions_are_short():
    long = []
    for path in sources("device_agent", "drivers"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                name = f"{path.relative_to(ROOT)}:{node.name}"
                if lines > FUNCTION_MAX_LINES and name not in EXEMPT:
                    long.append(f"{name} has {lines} lines")
    assert not long, f"at most {FUNCTION_MAX_LINES}:\n" + "\n".join(long)
