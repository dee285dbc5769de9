"""1-Wire: sensors that the kernel finds and reads, as files."""

from abc import abstractmethod
from typing import ClassVar

from device_agent.bus.core import Handle


class OneWireBus(Handle):
    """What a driver sees of the kernel's 1-Wire devices. A sensor is named by family code and number.

    Every call raises NoAnswer (no such sensor, or it left), BusGone (no 1-Wire at all), BusDenied or
    BusError.
    """

    kind: ClassVar[str] = "w1"

    @abstractmethod
    def devices(self) -> tuple[str, ...]:
        """The sensors that the kernel knows, such as "28-0316a2794caf"; one that left may still be listed."""

    @abstractmethod
    def read(self, device: str, file: str) -> str:
        """The text of one of its files, "" where the kernel got no answer from the sensor.

        May take as long as a conversion (0.75 s): the kernel does the waiting.
        """

    @abstractmethod
    def write(self, device: str, file: str, text: str) -> None:
        """Write one of its files."""
