"""`run --simulate`: attach to the board that is there, else start one that ends with its last user."""

import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from device_agent.errors import BusGone
from device_agent.testing.board.link import SocketLink
from device_agent.testing.board.server import answers

BOARD_VARIABLE = "DEVICE_AGENT_BOARD"
# A board and its daemon are often started at the same instant.
ANSWER_LIMIT_S = 5.0
# Interpreter, configuration and drivers, on a Pi Zero with a cold card.
START_LIMIT_S = 60.0

# This process's use of the boards it started. It lasts as long as the process, so that a board does not end
# in the moment when all its buses are being reopened.
_uses: dict[Path, tuple[SocketLink, "subprocess.Popen[bytes]"]] = {}


def ensure_board(config_path: Path, environ: Mapping[str, str] = os.environ) -> Path:
    """The socket of the board at $DEVICE_AGENT_BOARD, else of a new one with a private socket.

    A board that was started here ends when this process, and whoever else uses it, has gone. Raises BusGone
    when none answers there or the new one did not start (it has said why on standard error).
    """
    named = environ.get(BOARD_VARIABLE)
    if named:
        path = Path(named)
        if not answers(path, ANSWER_LIMIT_S):
            raise BusGone(
                f"no simulated board answers at ${BOARD_VARIABLE} = {path}: start it with "
                f"`device-agent board run --socket {path}`, or unset the variable to get one by itself"
            )
        return path
    path = Path(tempfile.mkdtemp(prefix="device-agent-board-")) / "board.sock"
    process = _started(path, config_path, environ)
    _uses[path] = SocketLink(path, "daemon"), process
    return path


def _started(path: Path, config_path: Path, environ: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    words = ["board", "run", "--socket", str(path), "--until-last-user", "--private"]
    process = subprocess.Popen(
        [sys.executable, "-m", "device_agent", "--config", str(config_path), *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env=dict(environ),
        start_new_session=True,  # Ctrl-C is for the daemon, which still needs the board to go safe
    )
    assert process.stdout is not None
    with process.stdout as output:
        if select.select([output], [], [], START_LIMIT_S)[0] and output.readline():
            return process
    process.kill()
    process.wait()
    path.unlink(missing_ok=True)
    path.parent.rmdir()
    raise BusGone(f"a simulated board for {config_path} did not start within {START_LIMIT_S:g} s")
