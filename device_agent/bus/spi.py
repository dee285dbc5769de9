"""SPI: one chip select of one controller, used by drivers on the bus's thread."""

from abc import abstractmethod
from typing import ClassVar

from device_agent.bus.core import Handle


class SpiBus(Handle):
    """What a driver sees of a chip select.

    Every call raises BusGone (controller removed), BusDenied or BusError. SPI has no acknowledgement: an
    absent chip reads as all ones or all zeros, which only the driver can recognise.
    """

    kind: ClassVar[str] = "spi"

    @abstractmethod
    def transfer(self, data: bytes, *, max_speed_hz: int | None = None) -> bytes:
        """Send `data` and return as many bytes as came in meanwhile, in one selection of the chip.

        `max_speed_hz` is the chip's limit; the bus's own `max_speed_hz` holds too.
        """
