"""The list of known weaknesses in `tests/journeys/README.md`: complete, and every test in it exists."""

import ast
import re
from pathlib import Path

JOURNEYS = Path(__file__).parent / "journeys"
ROWS = [
    line.split("|")[1:-1]
    for line in (JOURNEYS / "README.md").read_text(encoding="utf-8").splitlines()
    if re.match(r"\| W\d+ \|", line)
]


def test_every_weakness_has_a_row():
    assert [row[0].strip() for row in ROWS] == [f"W{n}" for n in range(1, 29)]
    assert all(len(row) == 4 and all(cell.strip() for cell in row) for row in ROWS)


def test_every_named_test_exists():
    missing = []
    for number, _, _, shown in ROWS:
        named = re.findall(r"`([\w./]+\.py)::(\w+)`", shown)
        assert named, f"{number} names no test"
        for file, name in named:
            tree = ast.parse((JOURNEYS / file).read_text(encoding="utf-8"))
            if name not in {
                node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            }:
                missing.append(f"{number}: {file}::{name}")
    assert not missing, "\n".join(missing)
