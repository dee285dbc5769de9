"""`doctor` on a terminal: it asks what software cannot see, and remembers the answer."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from support.terminal import open_terminal

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
    main_end, their_end = open_terminal()
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


def test_fix_mends_what_needs_no_judgement(tmp_path: Path) -> None:
    state, key, tools = tmp_path / "state", tmp_path / "api_key", tmp_path / "tools"
    (tmp_path / "agent.toml").write_text(CONFIG)
    state.mkdir()
    state.chmod(0o777)
    key.write_text("bk_device")
    key.chmod(0o644)
    # Of all commands this one alone is found: the test changes nothing on the machine that runs it.
    tools.mkdir()
    (tools / "chmod").symlink_to(shutil.which("chmod") or "/bin/chmod")
    words = ("--config", "agent.toml", "doctor", "--offline", "--fix", "--json")
    done = subprocess.run(
        [sys.executable, "-m", "device_agent", *words], cwd=tmp_path, env={**os.environ, "PATH": str(tools)},
        capture_output=True, text=True, timeout=LIMIT_S, check=False,
    )  # fmt: skip
    assert f"mended: others may read the API key: chmod 600 {key}\n" in done.stderr
    assert (key.stat().st_mode & 0o777, state.stat().st_mode & 0o777) == (0o600, 0o700)
    left = [finding["what"] for finding in json.loads(done.stdout) if finding["level"] == "problem"]
    assert not [what for what in left if what.startswith("others may")]
    assert [what for what in left if "no such chip" in what], "that is for a person"
