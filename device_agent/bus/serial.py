"""Serial ports: bytes in, bytes out, one exclusive owner."""

from abc import abstractmethod
from typing import ClassVar

from device_agent.bus.core import Handle, Source


class SerialBus(Handle):
    """What a driver sees of a serial port. Every call raises BusGone (unplugged), BusTimeout or BusError."""

    kind: ClassVar[str] = "serial"
    baud: int = 9600
    """Of the line; what a far end on a USB or network port makes of it is its own affair."""
    frame: str = "8N1"
    """Data bits, parity (N, E, O, M, S), stop bits."""

    @abstractmethod
    def write(self, data: bytes) -> None:
        """Send all of it. Raises BusTimeout when the far end does not take it within the port's limit."""

    @abstractmethod
    def read(self, size: int, timeout_s: float) -> bytes:
        """Up to `size` bytes; fewer when `timeout_s` ran out. For drivers that poll."""

    @abstractmethod
    def discard_input(self) -> None:
        """Drop what has arrived: a late answer looks exactly like the next one."""

    @abstractmethod
    def set_baud(self, baud: int) -> None:
        """Another speed, once all that was written has left; opening brings back the configured one."""

    @abstractmethod
    def listen(self) -> Source:
        """Everything that arrives, as chunks of bytes."""
