"""The simulated board: pins, chips and ports that outlive the daemon that uses them.

`Board` in a test's own process, or behind a socket as `device-agent board run`; `open_handle` gives the bus.
Loaded when first used: a daemon on a board in another process needs the handles alone.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from device_agent.testing.board.core import Board
    from device_agent.testing.board.handles import attach_output, open_handle
    from device_agent.testing.board.process import ensure_board
    from device_agent.testing.clock import SteppedClock

_MODULES = {
    "Board": "board.core",
    "SteppedClock": "clock",
    "attach_output": "board.handles",
    "ensure_board": "board.process",
    "open_handle": "board.handles",
}

__all__ = ["Board", "SteppedClock", "attach_output", "ensure_board", "open_handle"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"device_agent.testing.{_MODULES[name]}"), name)
