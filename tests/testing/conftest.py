"""A simulated board, and the two ways to it: in one process and through its socket."""

from collections.abc import Iterator

import pytest

from device_agent.testing import Board
from device_agent.testing.board.server import BoardServer
from support.board_devices import BUSES, DEVICES


@pytest.fixture
def board() -> Iterator[Board]:
    with Board(BUSES, DEVICES) as board:
        yield board


@pytest.fixture(params=["direct", "socket"])
def place(request: pytest.FixtureRequest, board: Board, tmp_path) -> Iterator:
    if request.param == "direct":
        yield board
        return
    with BoardServer(board, tmp_path / "board.sock") as server:
        yield server.path
