"""The simulated board: pins, chips and ports that outlive the daemon that uses them.

`Board` in a test's own process, or behind a socket as `device-agent board run`; `open_handle` gives the bus.
"""

from device_agent.testing.board.core import Board
from device_agent.testing.board.handles import attach_output, open_handle
from device_agent.testing.clock import SteppedClock

__all__ = ["Board", "SteppedClock", "attach_output", "ensure_board", "open_handle"]


def __getattr__(name: str) -> object:
    if name == "ensure_board":
        from device_agent.testing.board.process import ensure_board

        return ensure_board
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
