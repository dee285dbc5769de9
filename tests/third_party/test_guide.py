"""The guide `drivers/README.md`, as a stranger follows it: each block is a file or typed into a shell.

Only what needs a package index is done otherwise: the packages come from where these tests run.
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

GUIDE = Path(__file__).parents[2] / "drivers" / "README.md"
LIMIT_S = 120
NO_INDEX = "--quiet --no-index --no-deps --no-build-isolation --disable-pip-version-check"


class Block(NamedTuple):
    language: str
    file: str
    """The name that the sentence before begins with; "" for none."""
    text: str


def blocks() -> list[Block]:
    found = re.finditer(
        r"(?:^`([\w.]+)`[^\n]*\n\n)?^```(\w+)\n(.*?)^```$", GUIDE.read_text(), re.MULTILINE | re.DOTALL
    )
    return [Block(match[2], match[1] or "", match[3]) for match in found]


class Stranger:
    """A shell in a folder, with what it exported and began."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith("BLOCKS_")}
        self.environment["PYTHONDONTWRITEBYTECODE"] = "1"
        self.begun: list[subprocess.Popen[bytes]] = []
        self.said = ""

    def type(self, line: str) -> None:
        if line.startswith("mkdir "):
            self.folder = self.folder / line.split()[1]
            self.folder.mkdir()
        elif line.startswith("python3 -m venv "):
            self.run(f"{sys.executable} -m venv .venv")
        elif line.startswith(". .venv"):
            self.activate()
        elif line.startswith("pip install ~/src/device-agent"):
            self.bring_packages()
        elif line.startswith("export "):
            self.environment |= dict(word.split("=", 1) for word in line.split()[1:])
        elif line.endswith(" &"):
            self.begin(line.removesuffix(" &"))
        else:
            self.run(line.replace("pip install ", f"pip install {NO_INDEX} "))

    def activate(self) -> None:
        self.environment["PATH"] = f"{self.folder}/.venv/bin:{self.environment['PATH']}"
        self.environment["VIRTUAL_ENV"] = f"{self.folder}/.venv"

    def bring_packages(self) -> None:
        (site,) = self.folder.glob(".venv/lib/python*/site-packages")
        places = [path for path in sys.path if path.endswith("site-packages")]
        lines = [f"import site; site.addsitedir({path!r})" for path in places]
        (site / "packages.pth").write_text("\n".join(lines))
        script = self.folder / ".venv/bin/device-agent"
        script.write_text(f'#!/bin/sh\nexec "{self.folder}/.venv/bin/python" -m device_agent "$@"\n')
        script.chmod(0o755)

    def run(self, line: str) -> None:
        done = subprocess.run(
            ["bash", "-c", line], cwd=self.folder, env=self.environment, capture_output=True, text=True,
            timeout=LIMIT_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"$ {line}\n{done.stdout}{done.stderr}"
        self.said += f"$ {line}\n{done.stdout}"

    def begin(self, line: str) -> None:
        """In the background, as `&` does; a person types the next line when it is there."""
        process = subprocess.Popen(
            ["bash", "-c", f"exec {line}"], cwd=self.folder, env=self.environment,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self.begun.append(process)
        place = self.folder / ("board.sock" if " board " in line else "state/run/control.sock")
        deadline_s = time.monotonic() + LIMIT_S
        while not place.exists():
            assert process.poll() is None, f"{line} ended with {process.returncode}"
            assert time.monotonic() < deadline_s, f"{line}: no {place.name}"
            time.sleep(0.02)

    def leave(self) -> None:
        for process in reversed(self.begun):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(LIMIT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture
def stranger() -> Iterator[Stranger]:
    with tempfile.TemporaryDirectory(prefix="da-", dir="/tmp") as folder:  # a socket's path is short
        one = Stranger(Path(folder))
        yield one
        one.leave()


def test_a_stranger_follows_the_guide(stranger: Stranger) -> None:
    for block in blocks():
        if block.file:
            (stranger.folder / block.file).write_text(block.text)
        elif block.language == "sh":
            for line in block.text.splitlines():
                stranger.type(line)
    assert "2 passed" in stranger.said
    assert "acme-lm75 (acme-lm75 1.0.0)" in stranger.said
    assert "agent.toml is right" in stranger.said
    first, second = re.findall(r"^temperature +([-\d.]+) +°C", stranger.said, re.MULTILINE)
    assert (float(first), float(second)) == (25.0, 31.5)
    assert "thermometer" in stranger.said.rpartition("device-agent status")[2]


def test_every_block_of_the_guide_is_used() -> None:
    assert [block.file or block.language for block in blocks()] == [
        "sh", "pyproject.toml", "acme_lm75.py", "test_lm75.py", "sh", "agent.toml", "sh", "sh"
    ]  # fmt: skip
