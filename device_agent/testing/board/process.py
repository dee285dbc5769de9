"""A board in its own process: `device-agent board run`, and `run --simulate`, which starts or joins one."""

import contextlib
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from device_agent.errors import AgentError, BusGone
from device_agent.testing.board.link import SocketLink, answers

if TYPE_CHECKING:
    from device_agent.config import Config
    from device_agent.testing.board.core import Board
    from device_agent.testing.board.server import BoardServer

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

    A board that was started here ends with this process and its other users. Raises BusGone
    when none answers there or the new one did not start (the reason is on standard error).
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


# A board that is to end with its last user ends as well if that one died before it came.
FIRST_USER_LIMIT_S = 60.0
_END = (signal.SIGTERM, signal.SIGINT)


def board_of(configuration: "Config", record: Path | None = None) -> "Board":
    """The board for a loaded configuration."""
    from device_agent.testing.board.core import Board

    devices = {name: (configuration.drivers[name], model) for name, model in configuration.devices.items()}
    return Board(configuration.buses, devices, record=record)


def run_board(
    socket_path: Path,
    config_path: Path,
    *,
    record: Path | None = None,
    until_last_user: bool = False,
    private: bool = False,
) -> None:
    """Serve until SIGTERM, or until the last user has gone; says one line when ready.

    `private`: the socket's directory was made for this board and goes with it. Raises ConfigError, BusHeld
    (another board is there), BusGone (no socket can be made there).
    """
    from device_agent.testing.board.server import BoardServer

    # Blocked before any thread begins, so that only `sigwait` below gets them.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _END)
    try:
        board = _loaded(config_path, record)
        with board, BoardServer(board, socket_path) as server:
            if until_last_user:
                threading.Thread(target=_end_unused, args=(server,), daemon=True).start()
            print(f"board ready at {socket_path}", flush=True)
            signal.sigwait(_END)
    finally:
        if private:
            with contextlib.suppress(OSError):
                socket_path.parent.rmdir()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _loaded(config_path: Path, record: Path | None) -> "Board":
    from device_agent.config import load  # what only joins a board checks no configuration

    configuration = load(config_path)
    try:
        return board_of(configuration, record)
    except OSError as error:
        raise AgentError(f"the record {record} cannot be written: {error.strerror or error}") from None


def _end_unused(server: "BoardServer") -> None:
    server.wait_unused(FIRST_USER_LIMIT_S)
    os.kill(os.getpid(), signal.SIGTERM)
