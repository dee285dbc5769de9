"""Unbinding the kernel's driver from hardware and binding it again, through its files in /sys.

This restarts a controller that hangs. Only root may do so unless a rule gives these files to others.
"""

import errno
import os
import time
from pathlib import Path

from device_agent.bus.system import holder
from device_agent.errors import BusDenied, BusError, BusGone, BusHeld

DEVICES = Path("/sys/devices")
# A driver that was bound again takes a while to make its node; USB enumerates anew.
NODE_LIMIT_S = 5.0
POLL_S = 0.05


class Rebinder:
    """For one bus. The search for a bound driver begins at `start`, a folder in /sys, and goes upwards."""

    def __init__(self, bus: str) -> None:
        self._bus = bus
        self._off: tuple[Path, str] | None = None

    def detach(self, node: str, start: Path, *, usb: bool = False) -> None:
        """`usb`: the driver of the whole USB device, which enumerates anew; other hardware is left alone.

        Raises BusGone (no such hardware), BusHeld (another program has it open, and the kernel would wait for
        it), BusDenied with the remedy.
        """
        if self._off is not None:
            return  # taken off before, and not put back since
        driver, name = self._bound(node, start, usb)
        if other := holder(node):
            raise BusHeld(f"bus {self._bus}: {node} is open{other}; the kernel would wait for it: stop it")
        self._write(driver / "unbind", name)
        self._off = driver, name

    def attach(self, node: str) -> None:
        """Put back what `detach` took off, and wait for the node. Nothing where nothing was taken off."""
        if self._off is None:
            return
        driver, name = self._off
        self._write(driver / "bind", name)
        self._off = None
        deadline_s = time.monotonic() + NODE_LIMIT_S
        while not os.path.exists(node) and time.monotonic() < deadline_s:
            time.sleep(POLL_S)

    def _bound(self, node: str, start: Path, usb: bool) -> tuple[Path, str]:
        """The nearest driver at or above, and its name for the hardware."""
        at = start.resolve()
        while DEVICES in at.parents:
            driver = at / "driver"
            if (driver / "unbind").exists() and (not usb or (at / "idVendor").exists()):
                return driver.resolve(), at.name
            at = at.parent
        what = "no USB device that could enumerate anew" if usb else "no hardware with a driver of the kernel"
        raise BusGone(f"bus {self._bus}: behind {node} is {what}")

    def _write(self, file: Path, name: str) -> None:
        try:
            file.write_text(name)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise BusDenied(
                    f"bus {self._bus}: {file} may not be written ({error.strerror}): give `bind` and "
                    "`unbind` of that folder to the daemon's group by a udev rule, and let the unit write "
                    "/sys (ProtectKernelTunables=no); or take `rebind` and `clear` out of the bus's table"
                ) from error
            if error.errno == errno.ENODEV and file.name == "unbind":
                return  # it left meanwhile
            raise BusError(f"bus {self._bus}: {file}: {error.strerror or error}") from error
