"""Standard streams as they come: closed, or a terminal that is not UTF-8."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.waiting import LIMIT_S


def run(redirections: str, *words: str, encoding: str = "utf-8") -> subprocess.CompletedProcess[bytes]:
    command = f'exec "$@" {redirections}'
    return subprocess.run(
        ["sh", "-c", command, "sh", sys.executable, "-m", "device_agent", *words],
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
        timeout=LIMIT_S,
        check=False,
    )


@pytest.mark.parametrize("redirections", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_change_no_exit_code(redirections: str) -> None:
    assert run(redirections, "version").returncode == 0
    assert run(redirections, "check", "--config", "/nowhere").returncode == 78


@pytest.mark.parametrize("words", [(), ("--log", "json")])
def test_why_a_service_does_not_start_is_an_error_to_journald(tmp_path: Path, words: tuple[str, ...]) -> None:
    """`journalctl -p err` finds what the process said before it had a log."""
    with (tmp_path / "said").open("wb") as said:
        status = os.fstat(said.fileno())
        done = subprocess.run(
            [sys.executable, "-m", "device_agent", "run", "--config", "/nowhere", *words],
            env={**os.environ, "JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"},
            stderr=said, timeout=LIMIT_S, check=False,
        )  # fmt: skip
    assert done.returncode == 78
    lines = (tmp_path / "said").read_text().splitlines()
    assert lines
    assert all(line.startswith("<3>") for line in lines)


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_a_terminal_that_is_not_utf8_gets_what_it_can_show(encoding: str) -> None:
    done = run("", "drivers", "describe", "gpio-output", encoding=encoding)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"max_on_s" in done.stdout
    told = json.loads(run("", "drivers", "describe", "gpio-output", "--json", encoding=encoding).stdout)
    assert any("≤" in option["type"] for option in told["options"])
