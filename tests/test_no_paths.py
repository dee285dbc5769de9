"""The project names no machine it was made on: no foreign folder, no package registry's host."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]

# Written in pieces, so that this file does not find itself.
WORDS = [
    "/" + "work/",
    "/" + "farm/",
    "/" + "root/",
    "." + "library",
    "/tmp/" + "venv",
    ".." + "/shared",
    "py" + "pi.org",
    "python" + "hosted",
    "npm" + "js.",
    "deb." + "debian.org",
    "proxy." + "golang",
]
FOREIGN = re.compile("|".join(map(re.escape, WORDS)))


def tracked() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    return [ROOT / name for name in listed.stdout.split("\0") if name]


def test_no_file_names_a_machine_or_a_registry():
    found = []
    for path in tracked():
        if not path.is_file():
            continue
        text = path.read_bytes().decode("utf-8", "replace")
        for number, line in enumerate(text.splitlines(), 1):
            if match := FOREIGN.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number} names {match[0]}")
    assert not found, "\n".join(found)
