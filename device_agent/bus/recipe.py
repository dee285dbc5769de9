"""What the guard needs to make an actuator safe without the daemon: steps, and a descriptor."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["level", "line", "claim", "bytes", "i2c", "smbus", "mqtt"]

Steps = Sequence[Any]
"""What was written, in its order, in the form of its bus; a float among it is a pause in seconds."""


@dataclass(slots=True, eq=False)
class Recipe:
    """One action of the guard (`device_agent.guard.actions` carries it out). Owns `fd` until `close`.

    With a `path` among its members the guard can do it without that descriptor, once nobody has the place.

    `members` holds nothing but None, bool, int, float, str, bytes, lists, tuples and dicts of these.
    """

    kind: Kind
    members: Mapping[str, Any] = field(default_factory=dict)
    fd: int = -1
    """A descriptor that the recipe owns and the guard gets a duplicate of; -1 for none."""
    hold: bool = False
    """The descriptor keeps a line driven: once safe, it stays open until a daemon asks for the line."""
    exclusive: bool = False
    """Nobody else can open the place while the descriptor is open: it is closed with the device."""

    def close(self) -> None:
        fd = self.detach()
        if fd >= 0:
            os.close(fd)

    def detach(self) -> int:
        """Give the descriptor away."""
        fd, self.fd = self.fd, -1
        return fd

    def __del__(self) -> None:
        # A job whose caller has left drops its result, and a forgotten duplicate claims a line for good.
        self.close()
