"""How a guard acts on a board: over a connection of its own, made when the actuator was opened.

The guard gets the connection's descriptor and the frames to write to it, and need not know what a board is.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from device_agent.bus.recipe import Recipe
from device_agent.errors import BusError
from device_agent.testing.board.core import Board
from device_agent.testing.board.link import SocketLink
from device_agent.testing.board.wire import framed

GUARD = "guard"
"""How a guard is named in the record."""


def guard_recipe(
    board: Board | Path | str,
    calls: Sequence[Any],
    answer: Any = None,
    *,
    attach: tuple[str, str] | None = None,
) -> Recipe:
    """Calls of the board (a float is a pause), each answered by `answer`.

    `attach`: bus and claim of an output that the guard holds on to. Raises BusError for a board that no other
    process can reach.
    """
    if isinstance(board, Board):
        raise BusError("the guard cannot reach a simulated board in the daemon's own process")
    link = SocketLink(Path(board), GUARD)
    try:
        if attach is not None:
            link.call("gpio.attach", *attach)
    except BaseException:
        link.close()
        raise
    members = {
        "steps": [call if isinstance(call, float) else framed(call) for call in calls],
        "answer": framed((True, answer)),
        "farewell": True,
    }
    return Recipe("bytes", members, link.detach(), hold=attach is not None)
