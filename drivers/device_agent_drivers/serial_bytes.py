"""A serial port as it is: a console, a logger, a modem. Bytes out, bytes in, no points."""

from typing import Literal

from device_agent.driver import DriverConfig, Listener, SerialBus, Values
from device_agent_drivers.far_end import OwnsPort


class SerialBytesConfig(DriverConfig):
    driver: Literal["serial-bytes"] = "serial-bytes"


class SerialBytes(OwnsPort, Listener[SerialBytesConfig, SerialBus]):
    """For streams of `format = "bytes"`: whoever owns the stream takes the chunks as they come."""

    bytes_side = True

    def feed(self, chunk: bytes) -> tuple[Values, ...]:
        """No readings: the bytes themselves are the message."""
        return ()

    def write_bytes(self, data: bytes) -> None:
        self.bus.write(data)
