"""README and the pages for users name what there is; `test_pages` runs them."""

import re
from pathlib import Path

import pytest

from device_agent import registry

ROOT = Path(__file__).parents[2]
TEXT = "\n".join(path.read_text() for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))))


@pytest.mark.parametrize("target", sorted(set(re.findall(r"`make ([a-z-]+)\b", TEXT))))
def test_make_knows_its_targets(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), target


def test_the_table_of_drivers_names_installed_ones() -> None:
    table = (ROOT / "docs" / "drivers.md").read_text().partition("`device-agent drivers` lists")[0]
    assert sorted(re.findall(r"`([a-z0-9-]+)`", table)) == sorted(registry.names())


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 200
