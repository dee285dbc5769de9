"""Comments, docstrings and pages refer to pages, headings and files that exist."""

import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CODE = ("device_agent", "drivers", "hil", "tests", "systemd", "docs")

# In pieces, so that this file does not find itself.
OUTSIDE = re.compile(
    r"\b(design|protocol)(\.md)?,? " + r"(section )?\d|\bdesign" + r" section\b|\bprotocol" + r" W\d"
)
PAGE = re.compile(r"\bdocs/([a-z-]+\.md)(?:#([a-z0-9-]+))?")
LINK = re.compile(r"\]\((?!https?://|mailto:)([^)#\s]*)(?:#([^)\s]+))?\)")
HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


@cache
def tracked() -> tuple[Path, ...]:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    paths = (ROOT / name for name in listed.stdout.split("\0") if name)
    return tuple(path for path in paths if path.suffix in (".py", ".md", ".toml", ".service", ".rules"))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = HEADING.findall(FENCED.sub("", page.read_text(encoding="utf-8")))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_pages_that_code_names_exist() -> None:
    wrong = []
    for path in tracked():
        if path.is_relative_to(ROOT / "drivers" / "docs") or not path.is_file():
            continue
        for page, anchor in PAGE.findall(path.read_text(encoding="utf-8")):
            # `drivers/docs/NAME.md` has a page for each driver.
            places = [folder / page for folder in (ROOT / "docs", ROOT / "drivers" / "docs")]
            named = [place for place in places if place.is_file()]
            if not named or (anchor and anchor not in anchors(named[0])):
                wrong.append(f"{path.relative_to(ROOT)}: docs/{page}{'#' + anchor if anchor else ''}")
    assert wrong == []


@pytest.mark.parametrize(
    "page",
    [path for path in tracked() if path.suffix == ".md"],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_links_of_pages_lead_somewhere(page: Path) -> None:
    wrong = []
    for target, anchor in LINK.findall(FENCED.sub("", page.read_text(encoding="utf-8"))):
        place = (page.parent / target).resolve() if target else page
        if not place.exists() or (anchor and place.suffix == ".md" and anchor not in anchors(place)):
            wrong.append(f"{target}{'#' + anchor if anchor else ''}")
    assert wrong == []


def test_no_reference_to_documents_that_are_not_here() -> None:
    found = []
    for path in tracked():
        if path.relative_to(ROOT).parts[0] in CODE and path.is_file():
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                if OUTSIDE.search(line):
                    found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}")
    assert found == [], "\n".join(found)


def test_test_files_have_names_of_their_own() -> None:
    """Pytest imports them by their base name, and pages name tests by it."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted({name for name in names if names.count(name) > 1}) == []
