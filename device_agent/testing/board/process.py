"""A board as a process of its own, `device-agent board run`."""

import contextlib
import os
import signal
import threading
from pathlib import Path

from device_agent import config
from device_agent.errors import AgentError
from device_agent.testing.board.core import Board
from device_agent.testing.board.server import BoardServer

# A board that is to end with its last user ends as well if that one died before it came.
FIRST_USER_LIMIT_S = 60.0
_END = (signal.SIGTERM, signal.SIGINT)


def board_of(configuration: config.Config, record: Path | None = None) -> Board:
    """The board for a loaded configuration."""
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


def _loaded(config_path: Path, record: Path | None) -> Board:
    configuration = config.load(config_path)
    try:
        return board_of(configuration, record)
    except OSError as error:
        raise AgentError(f"the record {record} cannot be written: {error.strerror or error}") from None


def _end_unused(server: BoardServer) -> None:
    server.wait_unused(FIRST_USER_LIMIT_S)
    os.kill(os.getpid(), signal.SIGTERM)
