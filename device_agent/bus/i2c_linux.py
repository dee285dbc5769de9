"""I2C through the kernel's character device, on smbus2.

An adapter for plain I2C makes each transfer with a repeated start. One for SMBus alone (PC chipsets, the
kernel's i2c-stub) can only do what SMBus has: a register and up to 32 bytes for each call. Errors of the
kernel become exceptions of `device_agent.errors` here and nowhere else.
"""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from device_agent.bus.config import I2cBusConfig
from device_agent.bus.core import give_way
from device_agent.bus.i2c import I2cBus
from device_agent.bus.rebind import Rebinder
from device_agent.bus.recipe import Recipe, Steps
from device_agent.bus.system import denied, listed
from device_agent.errors import BusError, BusGone, BusHeld, BusTimeout, NoAnswer, PlaceRefused

# linux/i2c-dev.h and linux/i2c.h
I2C_RETRIES = 0x0701
I2C_TIMEOUT = 0x0702  # in units of 10 ms
I2C_SLAVE = 0x0703
FUNC_I2C = 0x0000_0001
FUNC_SMBUS_QUICK = 0x0001_0000
FUNC_SMBUS_READ_BYTE = 0x0002_0000
FUNC_SMBUS_READ_I2C_BLOCK = 0x0400_0000
FUNC_SMBUS_WRITE_I2C_BLOCK = 0x0800_0000

SMBUS_BLOCK_MAX = 32

# A NACK has a name of its own on each controller; EREMOTEIO is that of the Raspberry Pi's bcm2835.
_NO_ANSWER = {errno.EREMOTEIO, errno.ENXIO, errno.EIO}
_GONE = {errno.ENODEV, errno.ENOENT, errno.ESHUTDOWN}

SYSFS = Path("/sys/bus/i2c/devices")


class LinuxI2c(I2cBus):
    """One adapter, found by its node ("/dev/i2c-1") or by its name in sysfs."""

    def __init__(self, name: str, config: I2cBusConfig) -> None:
        self.name = name
        self._rebinder = Rebinder(name)
        self.config = config
        self.path = config.device
        self._smbus: Any = None

    # -- life ----------------------------------------

    def open(self) -> None:
        from smbus2 import SMBus

        self.close()
        self.path = self._find()
        smbus: Any = SMBus()
        try:
            smbus.open(self.path)
            # A wedged bus must free its thread well before the job's own limit; the kernel repeats one
            # transfer whose arbitration was lost.
            limit_s = min(max(self.config.timeout_s / 4, 0.05), 0.5)
            fcntl.ioctl(smbus.fd, I2C_TIMEOUT, round(limit_s * 100))
            fcntl.ioctl(smbus.fd, I2C_RETRIES, 1)
        except OSError as error:
            # smbus2 has no finalizer: without this the descriptor leaks and keeps the adapter from leaving
            smbus.close()
            if error.errno in (errno.EACCES, errno.EPERM):
                raise denied(self.path) from error
            if error.errno in _GONE | {errno.ENXIO}:
                raise BusGone(
                    f"bus {self.name}: {self.path} is not there; is the adapter enabled?"
                ) from error
            raise BusError(f"bus {self.name}: {self.path} cannot be opened: {error.strerror}") from error
        self._smbus = smbus
        self.plain = bool(smbus.funcs & FUNC_I2C)

    def close(self) -> None:
        smbus, self._smbus = self._smbus, None
        if smbus is not None:
            smbus.close()

    def detach(self) -> None:
        self._rebinder.detach(self.path, SYSFS / os.path.basename(os.path.realpath(self.path)))

    def attach(self) -> None:
        self._rebinder.attach(self.path)

    def _find(self) -> str:
        wanted = self.config.device
        if wanted.startswith("/"):
            return wanted
        names = {path.name: _text(path / "name") for path in sorted(SYSFS.glob("i2c-*"))}
        found = [node for node, name in names.items() if name == wanted]
        if len(found) > 1:
            raise BusError(
                f"bus {self.name}: {len(found)} adapters are named {wanted!r} ({', '.join(found)}); "
                "name one by its path"
            )
        if not found:
            there = listed([f"{name!r} ({node})" for node, name in names.items()], "there is no I2C adapter")
            raise BusGone(f"bus {self.name}: no I2C adapter is named {wanted!r}; {there}")
        return f"/dev/{found[0]}"

    # -- transfers ----------------------------------------

    def transfer(self, address: int, write: bytes, read_size: int = 0) -> bytes:
        give_way()
        with self._mapped(address):
            smbus = self._open_smbus()
            # Plain transfers skip the kernel's check, so request it: EBUSY if a driver owns the address.
            fcntl.ioctl(smbus.fd, I2C_SLAVE, address)
            if smbus.funcs & FUNC_I2C:
                return self._plain(smbus, address, write, read_size)
            return self._smbus_only(smbus, address, write, read_size)

    def present(self, address: int) -> bool:
        """Probes as `i2cdetect` does: chips that a quick write could change (EEPROMs) are read instead."""
        try:
            with self._mapped(address):
                smbus = self._open_smbus()
                fcntl.ioctl(smbus.fd, I2C_SLAVE, address)
                reads = 0x30 <= address <= 0x37 or 0x50 <= address <= 0x5F
                if (reads or not smbus.funcs & FUNC_SMBUS_QUICK) and smbus.funcs & FUNC_SMBUS_READ_BYTE:
                    smbus.read_byte(address)
                else:
                    smbus.write_quick(address)
        except NoAnswer:
            return False
        except BusHeld:
            if not self._owner(address):
                raise
        return True  # also where a kernel driver has found a chip

    def recipe(self, steps: Steps) -> Recipe:
        """Steps are (address, bytes)."""
        plain = self._open_smbus().funcs & FUNC_I2C
        return Recipe("i2c" if plain else "smbus", {"path": self.path, "steps": list(steps)})

    def _open_smbus(self) -> Any:
        if self._smbus is None:
            raise BusGone(f"bus {self.name}: {self.path} is not open")
        return self._smbus

    def _plain(self, smbus: Any, address: int, write: bytes, read_size: int) -> bytes:
        from smbus2 import i2c_msg

        messages = []
        if write or not read_size:
            messages.append(i2c_msg.write(address, write))
        if read_size:
            messages.append(i2c_msg.read(address, read_size))
        smbus.i2c_rdwr(*messages)
        return bytes(messages[-1]) if read_size else b""

    def _smbus_only(self, smbus: Any, address: int, write: bytes, read_size: int) -> bytes:
        if not write and not read_size:
            smbus.write_quick(address)
        elif not read_size:
            self._smbus_write(smbus, address, write)
        elif not write and read_size == 1:
            return bytes((smbus.read_byte(address),))
        elif len(write) == 1:
            return self._smbus_read(smbus, address, write[0], read_size)
        else:
            raise BusError(
                f"bus {self.name}: this adapter speaks SMBus only and cannot write {len(write)} bytes and "
                f"read {read_size} in one transfer at {address:#04x}; connect the chip to a plain I2C adapter"
            )
        return b""

    def _smbus_write(self, smbus: Any, address: int, write: bytes) -> None:
        register, data = write[0], write[1:]
        if not data:
            smbus.write_byte(address, register)
        elif len(data) == 1:
            smbus.write_byte_data(address, register, data[0])
        elif smbus.funcs & FUNC_SMBUS_WRITE_I2C_BLOCK:
            for start in range(0, len(data), SMBUS_BLOCK_MAX):
                part = data[start : start + SMBUS_BLOCK_MAX]
                smbus.write_i2c_block_data(address, self._advance(address, register, start), list(part))
        elif len(data) == 2:
            smbus.write_word_data(address, register, int.from_bytes(data, "little"))
        else:
            for index, value in enumerate(data):
                smbus.write_byte_data(address, self._advance(address, register, index), value)

    def _smbus_read(self, smbus: Any, address: int, register: int, size: int) -> bytes:
        blocks = smbus.funcs & FUNC_SMBUS_READ_I2C_BLOCK
        if size == 1:
            return bytes((smbus.read_byte_data(address, register),))
        if size == 2 and not blocks:
            return int(smbus.read_word_data(address, register)).to_bytes(2, "little")
        read = bytearray()
        while len(read) < size:
            at = self._advance(address, register, len(read))
            if blocks:
                part = min(size - len(read), SMBUS_BLOCK_MAX)
                read += bytes(smbus.read_i2c_block_data(address, at, part))
            else:
                read.append(smbus.read_byte_data(address, at))
        return bytes(read)

    def _advance(self, address: int, register: int, by: int) -> int:
        if register + by > 0xFF:
            raise PlaceRefused(
                f"bus {self.name}: this adapter speaks SMBus only, and a transfer at {address:#04x} from "
                f"register {register:#04x} would run past 0xff; connect the chip to a plain I2C adapter"
            )
        return register + by

    # -- errors ----------------------------------------

    @contextmanager
    def _mapped(self, address: int) -> Iterator[None]:
        try:
            yield
        except BusError:
            raise
        except TypeError as error:  # smbus2's descriptor is None: it was closed meanwhile
            raise BusGone(f"bus {self.name}: {self.path} was closed during a transfer") from error
        except ValueError as error:
            raise PlaceRefused(f"bus {self.name}, address {address:#04x}: {error}") from error
        except OSError as error:
            raise self._translated(error, address) from error

    def _translated(self, error: OSError, address: int) -> BusError:
        where = f"bus {self.name} ({self.path}), address {address:#04x}"
        if error.errno in _NO_ANSWER:
            return NoAnswer(f"{where}: no answer; check wiring, power and the configured address")
        if error.errno == errno.ETIMEDOUT:
            return BusTimeout(f"{where}: the bus timed out; SDA or SCL may be held low")
        if error.errno == errno.EBUSY:
            if driver := self._owner(address):
                return BusHeld(f"{where}: the kernel driver {driver!r} owns this address; remove its overlay")
            return BusHeld(
                f"{where}: the bus is busy; another master, or a kernel driver behind a multiplexer"
            )
        if error.errno in _GONE:
            # i2c-stub answers ENODEV for an address without a chip; a removed adapter has left /sys too.
            if self._adapter_exists():
                return NoAnswer(f"{where}: no answer; check wiring, power and the configured address")
            return BusGone(f"{where}: the adapter is gone")
        if error.errno in (errno.EACCES, errno.EPERM):
            return denied(self.path)
        if error.errno == errno.EAGAIN:
            return BusError(f"{where}: arbitration lost twice; another master drives this bus")
        return BusError(f"{where}: transfer failed: {error.strerror or error}")

    def _adapter_exists(self) -> bool:
        node = os.path.basename(os.path.realpath(self.path))
        return (SYSFS / node).exists() and os.path.exists(self.path)

    def _owner(self, address: int) -> str:
        """The kernel driver bound to this address, "" for none."""
        number = os.path.basename(os.path.realpath(self.path)).removeprefix("i2c-")
        try:
            return os.path.basename(os.readlink(SYSFS / f"{number}-{address:04x}" / "driver"))
        except OSError:
            return ""


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
