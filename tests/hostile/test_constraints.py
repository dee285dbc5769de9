"""`constraints.txt`, which a release was tested with, has each package that is needed, within its bound."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def test_each_dependency_is_constrained_within_its_bound() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pinned = dict(line.split("==") for line in lines)
    for extra in ((), *(project["optional-dependencies"][name] for name in ("caller", "plot"))):
        for needed in [*project["dependencies"], *extra]:
            name, _, least = needed.partition(">=")
            assert number(pinned[name]) >= number(least), needed
