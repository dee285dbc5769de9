"""SPI through the kernel's character device (/dev/spidev0.0), with its two ioctls and no library.

The structures are those of linux/spi/spidev.h, which are the same for 32 and 64 bits.
"""

import array
import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from device_agent.bus.config import SpiBusConfig
from device_agent.bus.core import give_way
from device_agent.bus.rebind import Rebinder
from device_agent.bus.spi import SpiBus
from device_agent.bus.system import denied
from device_agent.errors import BusError, BusGone, PlaceRefused

SYSFS = Path("/sys/bus/spi/devices")
SPI_IOC_WR_MODE = 0x4001_6B01
SPI_IOC_WR_BITS_PER_WORD = 0x4001_6B03
SPI_IOC_WR_MAX_SPEED_HZ = 0x4004_6B04
SPI_IOC_MESSAGE_1 = 0x4020_6B00

# tx_buf, rx_buf, len, speed_hz, delay_usecs, bits_per_word, cs_change, tx_nbits, rx_nbits, word_delay, pad
_TRANSFER = struct.Struct("=QQIIHBBBBBB")
_GONE = {errno.ENODEV, errno.ENOENT, errno.ENXIO, errno.ESHUTDOWN}


class LinuxSpi(SpiBus):
    """One node, mode and greatest speed."""

    def __init__(self, name: str, config: SpiBusConfig) -> None:
        self.name = name
        self._rebinder = Rebinder(name)
        self.config = config
        self._fd = -1

    def open(self) -> None:
        self.close()
        path = self.config.device
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            fcntl.ioctl(self._fd, SPI_IOC_WR_MODE, struct.pack("B", self.config.mode))
            fcntl.ioctl(self._fd, SPI_IOC_WR_BITS_PER_WORD, struct.pack("B", 8))
            # Without this it is the controller's own, such as 125 MHz.
            fcntl.ioctl(self._fd, SPI_IOC_WR_MAX_SPEED_HZ, struct.pack("=I", self.config.max_speed_hz))
        except OSError as error:
            self.close()
            if error.errno in (errno.EACCES, errno.EPERM):
                raise denied(path) from error
            if error.errno in _GONE:
                raise BusGone(f"bus {self.name}: {path} is not there; is SPI enabled?") from error
            if error.errno == errno.ENOTTY:
                raise BusError(f"bus {self.name}: {path} is no SPI device; name a /dev/spidevX.Y") from error
            raise BusError(
                f"bus {self.name}: {path} takes no mode {self.config.mode} at {self.config.max_speed_hz} Hz: "
                f"{error.strerror}"
            ) from error

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def detach(self) -> None:
        """The controller with all its chip selects."""
        name = os.path.basename(self.config.device).replace("spidev", "spi")
        self._rebinder.detach(self.config.device, (SYSFS / name).resolve().parent)

    def attach(self) -> None:
        self._rebinder.attach(self.config.device)

    def transfer(self, data: bytes, *, max_speed_hz: int | None = None) -> bytes:
        give_way()
        speed_hz = min(self.config.max_speed_hz, max_speed_hz or self.config.max_speed_hz)
        out, into = array.array("B", data), array.array("B", bytes(len(data)))
        message = _TRANSFER.pack(
            out.buffer_info()[0], into.buffer_info()[0], len(data), speed_hz, 0, 8, 0, 0, 0, 0, 0
        )
        with self._mapped():
            fcntl.ioctl(self._fd, SPI_IOC_MESSAGE_1, message)
        return into.tobytes()

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        where = f"bus {self.name} ({self.config.device})"
        if self._fd < 0:
            raise BusGone(f"{where} is not open")
        try:
            yield
        except OSError as error:
            if error.errno in _GONE:
                raise BusGone(f"{where}: the controller is gone") from error
            if error.errno == errno.EMSGSIZE:
                raise PlaceRefused(
                    f"{where}: a transfer is longer than the kernel's buffer; raise spidev's `bufsiz`"
                ) from error
            if error.errno == errno.EINVAL:
                raise PlaceRefused(f"{where}: the controller cannot do this device's transfer") from error
            raise BusError(f"{where}: transfer failed: {error.strerror or error}") from error
