"""1-Wire through the files of the kernel (such as w1_therm), one folder for each sensor."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from device_agent.bus.config import OneWireBusConfig
from device_agent.bus.core import give_way
from device_agent.bus.onewire import OneWireBus
from device_agent.bus.rebind import Rebinder
from device_agent.bus.system import denied
from device_agent.errors import BusError, BusGone, NoAnswer

DEVICE = re.compile(r"[0-9a-f]{2}-[0-9a-f]{12}")
FILE_MAX_BYTES = 4096  # a sysfs file is one page
# A folder that vanishes while it is read; EIO and the like are a sensor that did not answer.
_ABSENT = {
    errno.ENOENT,
    errno.ENODEV,
    errno.ENXIO,
    errno.ENOTDIR,
    errno.EIO,
    errno.ETIMEDOUT,
    errno.EREMOTEIO,
}


class SysfsOneWire(OneWireBus):
    """A folder of folders, opened anew at each read: sensors come and go."""

    def __init__(self, name: str, config: OneWireBusConfig) -> None:
        self.name = name
        self._rebinder = Rebinder(name)
        self.directory = Path(config.directory)
        self._open = False
        self._master = ""

    def open(self) -> None:
        if not self.directory.is_dir():
            raise BusGone(
                f"bus {self.name}: {self.directory} is not there; load the kernel's 1-Wire "
                "(dtoverlay=w1-gpio on a Raspberry Pi, module w1_therm)"
            )
        self._open = True

    def close(self) -> None:
        self._open = False

    def detach(self) -> None:
        """The first master's driver, as w1-gpio or a DS2482."""
        masters = sorted(self.directory.glob("w1_bus_master*"))
        if not masters:
            raise BusGone(f"bus {self.name}: {self.directory} has no 1-Wire master")
        self._rebinder.detach(str(masters[0]), masters[0].resolve().parent)
        self._master = str(masters[0])

    def attach(self) -> None:
        self._rebinder.attach(self._master)

    def devices(self) -> tuple[str, ...]:
        self._check_open()
        try:
            return tuple(sorted(filter(DEVICE.fullmatch, os.listdir(self.directory))))
        except OSError as error:
            raise BusGone(f"bus {self.name}: {self.directory} is gone") from error

    def read(self, device: str, file: str) -> str:
        path = self.directory / device / file
        with self._mapped(device, path), path.open("rb", buffering=0) as opened:
            return (opened.read(FILE_MAX_BYTES) or b"").decode("ascii", "replace")

    def write(self, device: str, file: str, text: str) -> None:
        path = self.directory / device / file
        with self._mapped(device, path), path.open("wb", buffering=0) as opened:
            opened.write(text.encode("ascii"))

    def _check_open(self) -> None:
        if not self._open:
            raise BusGone(f"bus {self.name} is not open")

    @contextmanager
    def _mapped(self, device: str, path: Path) -> Iterator[None]:
        give_way()
        self._check_open()
        try:
            yield
        except PermissionError as error:
            raise denied(str(path)) from error
        except OSError as error:
            if error.errno not in _ABSENT:
                raise BusError(f"bus {self.name}: {path}: {error.strerror or error}") from error
            if not self.directory.is_dir():
                raise BusGone(f"bus {self.name}: {self.directory} is gone") from error
            raise NoAnswer(
                f"bus {self.name}: sensor {device} does not answer ({path.name}: {error.strerror}); check "
                "its wiring and its id"
            ) from error
