"""The guard's unit against the program: its words work, and nothing ends it with the daemon."""

import re
import subprocess
import sys
from pathlib import Path

from support.waiting import LIMIT_S, until

UNIT = Path(__file__).parents[2] / "systemd" / "device-agent-guard.service"


def settings(name: str) -> list[str]:
    return re.findall(rf"^{name}=(.*)$", UNIT.read_text(), re.MULTILINE)


def test_nothing_ends_it_with_the_daemon() -> None:
    for name in ("BindsTo", "PartOf", "Requires", "StopPropagatedFrom"):
        assert settings(name) == []


def test_its_words_are_those_of_the_program(tmp_path: Path) -> None:
    words = settings("ExecStart")[0].split()[1:]
    words = [word.replace("%t/device-agent-guard", str(tmp_path)) for word in words]
    process = subprocess.Popen([sys.executable, *words], stderr=subprocess.PIPE)
    assert process.stderr is not None
    with process.stderr:
        until((tmp_path / "guard.sock").exists, "its socket")
        process.terminate()
        assert process.wait(LIMIT_S) == 0
        assert b'"event": "guard_ended"' in process.stderr.read()
