"""`doctor` on a terminal: it asks what software cannot see, and remembers the answer."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

LIMIT_S = 60
CONFIG = """
[agent]
name = "x"
[state]
directory = "state"
[buses.pins]
kind = "gpio"
chip = "no such chip"
[devices.valve]
driver = "gpio-output"
bus = "pins"
line = 27
safe = false
[access]
drive = ["user:me"]
"""


def doctor(folder: Path, typed: bytes) -> str:
    """What a terminal shows of it; nothing can be missed, since all of it is read until it has ended."""
    main_end, their_end = pty.openpty()
    command = [sys.executable, "-m", "device_agent", "--config", "agent.toml", "doctor", "--offline"]
    with subprocess.Popen(
        command, cwd=folder, stdin=their_end, stdout=their_end, stderr=their_end,
        env={**os.environ, "NO_COLOR": "1"},
    ) as process:  # fmt: skip
        os.close(their_end)
        os.write(main_end, typed)
        seen = b""
        try:
            while data := os.read(main_end, 4096):
                seen += data
        except OSError:  # a terminal whose last user has left
            pass
        os.close(main_end)
        process.wait(LIMIT_S)
    return seen.decode()


def test_an_answer_is_remembered(tmp_path: Path) -> None:
    (tmp_path / "agent.toml").write_text(CONFIG)
    asked = "devices.valve: Does a resistor hold line 27 at its low level while nobody drives the pin?"
    first = doctor(tmp_path, b"\n")  # later
    assert asked in first
    assert "1 open questions" in first
    assert asked in doctor(tmp_path, b"y\n")
    kept = json.loads((tmp_path / "state" / "doctor.json").read_text())
    assert list(kept["answers"].values()) == [True]
    again = doctor(tmp_path, b"")
    assert asked not in again
    assert "0 open questions" in again
