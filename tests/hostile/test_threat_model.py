"""Each claim of docs/threat-model.md names a test that is there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
CLAIM = re.compile(r"`(tests/[a-z_0-9/]+\.py)(?:::(test_[a-z_0-9]+))?`")


def test_each_claim_has_its_test() -> None:
    rows = [
        line for line in (ROOT / "docs" / "threat-model.md").read_text().splitlines() if "| `tests/" in line
    ]
    assert len(rows) > 30
    for row in rows:
        match = CLAIM.search(row)
        assert match is not None, row
        file, name = match.groups()
        assert (ROOT / file).exists(), file
        if name:
            assert re.search(rf"def {name}\(", (ROOT / file).read_text()), f"{file} has no {name}"
