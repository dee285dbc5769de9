"""The log for people: what others wrote is one line of it, and steers no terminal."""

import subprocess
import sys
from pathlib import Path

FORGED = "x\n2026-01-01T00:00:00Z [info     ] all_is_well\x1b[2J\u202e"
PROGRAM = f"""
import structlog
from device_agent.cli.run import configure_log
output = configure_log("text")
log = structlog.get_logger("a")
log.warning("refused", who={FORGED!r}, what=[{FORGED!r}])
try:
    raise ValueError({FORGED!r})
except ValueError:
    log.exception("failed")
output.close(10)
"""


def test_no_line_is_forged(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    ended = subprocess.run([sys.executable, program], check=False, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    lines = ended.stderr.splitlines()
    assert all(line.isprintable() for line in lines), lines
    assert not any(line.startswith("2026-01-01") for line in lines)
    (refused,) = (line for line in lines if "refused" in line)
    assert "all_is_well" in refused
    assert "Traceback" in ended.stderr
    # Twice in the warning, then in the line that raised and in what it raised.
    assert ended.stderr.count("all_is_well") == 4
