"""Serial ports: pyserial opens and sets them, the descriptor is read and written directly.

Direct, because pyserial hides the errno of a running port and sets the whole port anew at each change of its
time-out. Everything that an unplugged adapter can raise becomes BusGone in one place.
"""

import errno
import os
import select
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from device_agent.bus.config import Rs485Config, SerialBusConfig, UsbIdentity
from device_agent.bus.core import Source
from device_agent.bus.rebind import Rebinder
from device_agent.bus.recipe import Recipe, Steps
from device_agent.bus.serial import SerialBus
from device_agent.bus.system import denied, holder, listed
from device_agent.errors import BusError, BusGone, BusHeld, BusTimeout

# The kernel's own buffer of a tty; more never waits.
CHUNK_BYTES = 4096
# What one `drain` takes at most: at 4 Mbaud 160 ms worth, so that one port cannot block the event loop.
DRAIN_BYTES = 65_536

TTYS = Path("/sys/class/tty")
TIOCSRS485 = 0x542F
# asm-generic/ioctls.h: how the port is set, a struct termios2.
TCGETS2, TERMIOS2_BYTES = 0x802C542A, 44
_PARITY = {"none": "N", "even": "E", "odd": "O", "mark": "M", "space": "S"}


class SerialPort(SerialBus):
    """One port, found by its node or by its USB identity, taken exclusively."""

    def __init__(self, name: str, config: SerialBusConfig) -> None:
        self.name = name
        self._rebinder = Rebinder(name)
        self.config = config
        self.baud = config.baud
        self.frame = f"{config.data_bits}{_PARITY[config.parity]}{config.stop_bits:g}"
        self._direction: Rs485Config | None = None
        self.path = config.port if isinstance(config.port, str) else ""
        self._port: Any = None

    # -- life ----------------------------------------

    def open(self) -> None:
        import termios

        import serial

        self.close()
        config = self.config
        self.path = config.port if isinstance(config.port, str) else find_usb(self.name, config.port)
        try:
            port = serial.Serial(
                baudrate=config.baud,
                bytesize=config.data_bits,
                parity=_PARITY[config.parity],
                stopbits=config.stop_bits,
                rtscts=config.flow_control == "rts-cts",
                xonxoff=config.flow_control == "xon-xoff",
                dsrdtr=config.flow_control == "dsr-dtr",
                timeout=0,
                write_timeout=self._limit_s,
                exclusive=True,
            )
            # Levels that are set before it is opened are the first ones it has.
            rs485 = Rs485Config() if config.rs485 is True else config.rs485 or None
            port.dtr, port.rts = config.dtr, config.rts if rs485 is None else not rs485.rts_on_send
            port.port = self.path
            port.open()
            self._port = port
            _tell_silence_from_hangup(self._fd())
            self.baud = config.baud
            self._direction = None if rs485 is None or _kernel_switches(self._fd(), rs485) else rs485
            if self._direction is not None:
                self._check_rts()
        except (OSError, termios.error) as error:  # SerialException is an OSError
            raise self._refused(error) from error
        except ValueError as error:
            raise BusError(f"bus {self.name}: {self.path} cannot be set as configured: {error}") from error

    def _check_rts(self) -> None:
        direction = self._direction
        try:
            self._port.rts = direction is not None and not direction.rts_on_send
        except OSError as error:
            raise BusError(
                f"bus {self.name}: {self.path} has no RTS, so `rs485` cannot switch the direction: {error}"
            ) from error

    def close(self) -> None:
        port, self._port = self._port, None
        if port is not None:
            with self._mapped():
                port.close()

    def detach(self) -> None:
        """The whole USB adapter: it comes back as if plugged in anew. A UART on the board is left alone."""
        node = os.path.realpath(self.path)
        self._rebinder.detach(node, TTYS / os.path.basename(node) / "device", usb=True)

    def attach(self) -> None:
        self._rebinder.attach(self.path)

    @property
    def _limit_s(self) -> float:
        """A call ends before its job's limit, so that a far end that is blocked does not fault the bus."""
        return self.config.timeout_s * 0.8

    def _refused(self, error: Exception) -> BusError:
        number = getattr(error, "errno", None)
        if number in (errno.EACCES, errno.EPERM):
            return denied(self.path)
        if number in (errno.EAGAIN, errno.EBUSY):
            return BusHeld(f"bus {self.name}: {self.path} is in use{holder(self.path)}; stop that program")
        if number in (errno.ENOENT, errno.ENXIO, errno.ENODEV, errno.EIO) or not os.path.exists(self.path):
            return BusGone(f"bus {self.name}: {self.path} is not there; is the adapter plugged in?")
        # A UART without its hardware keeps its node and refuses to be set (EIO inside a SerialException)
        return BusGone(f"bus {self.name}: {self.path} cannot be opened: {error}")

    # -- bytes ----------------------------------------

    def write(self, data: bytes) -> None:
        with self._mapped():
            fd = self._fd()
            with self._sending():
                self._write_all(fd, data)

    def _write_all(self, fd: int, data: bytes) -> None:
        rest = memoryview(data)
        deadline_s = time.monotonic() + self._limit_s
        while rest:
            if not _ready(fd, select.POLLOUT, deadline_s):
                raise BusTimeout(
                    f"bus {self.name}: {self.path} took {len(data) - len(rest)} of {len(data)} bytes in "
                    f"{self._limit_s:g} s; check flow control and the far end"
                )
            try:
                rest = rest[os.write(fd, rest) :]
            except BlockingIOError:
                continue

    def read(self, size: int, timeout_s: float) -> bytes:
        with self._mapped():
            fd = self._fd()
            got = bytearray()
            deadline_s = time.monotonic() + timeout_s
            while len(got) < size and _ready(fd, select.POLLIN, deadline_s):
                try:
                    part = os.read(fd, size - len(got))
                except BlockingIOError:
                    continue
                if not part:
                    raise self._unplugged()
                got += part
            return bytes(got)

    def discard_input(self) -> None:
        with self._mapped():
            self._fd()
            self._port.reset_input_buffer()

    def set_baud(self, baud: int) -> None:
        with self._mapped():
            self._drain_output()
            try:
                self._port.baudrate = self.baud = baud
            except ValueError as error:
                raise BusError(f"bus {self.name}: {self.path} has no {baud} baud: {error}") from error
            _tell_silence_from_hangup(self._port.fd)

    @contextmanager
    def _sending(self) -> Iterator[None]:
        """RTS switches the adapter to sending, where the kernel does not do that."""
        direction = self._direction
        if direction is None:
            yield
            return
        self._port.rts = direction.rts_on_send
        try:
            time.sleep(direction.delay_before_s)
            yield
            self._drain_output()
            time.sleep(direction.delay_after_s)
        finally:
            self._port.rts = not direction.rts_on_send

    def _drain_output(self) -> None:
        """Wait until the last bit has left. Raises BusTimeout."""
        import termios

        deadline_s = time.monotonic() + self._limit_s
        while self._port.out_waiting:
            if time.monotonic() > deadline_s:
                raise BusTimeout(f"bus {self.name}: {self.path} still has bytes to send; check flow control")
            time.sleep(0.001)
        termios.tcdrain(self._fd())  # the rest is in the hardware, and the kernel knows how long that takes

    def listen(self) -> Source:
        return _PortSource(self)

    def drain(self) -> list[bytes]:
        """All bytes that wait, up to 64 KiB, without blocking. Raises BusGone."""
        with self._mapped():
            fd = self._fd()
            chunks: list[bytes] = []
            for _ in range(DRAIN_BYTES // CHUNK_BYTES):
                try:
                    chunk = os.read(fd, CHUNK_BYTES)
                except BlockingIOError:
                    break
                if not chunk:
                    raise self._unplugged()
                chunks.append(chunk)
                if len(chunk) < CHUNK_BYTES:
                    break
            return chunks

    def fileno(self) -> int:
        return self._fd()

    def recipe(self, steps: Steps) -> Recipe:
        """A duplicate of the descriptor, since a port that is closed and opened again resets many far ends;
        and how the port is set, for when that has gone."""
        import fcntl

        members = {"steps": list(self._in_direction(steps)), "answer": b"", "path": self.path}
        with self._mapped():
            members["termios"] = fcntl.ioctl(self._fd(), TCGETS2, bytes(TERMIOS2_BYTES))
        return Recipe("bytes", members, os.dup(self._fd()), exclusive=True)

    def _in_direction(self, steps: Steps) -> Iterator[Any]:
        """The steps, with the level of RTS (a bool) around each that writes."""
        direction = self._direction
        for step in steps:
            if direction is None or isinstance(step, float):
                yield step
                continue
            on = direction.rts_on_send
            yield from (on, direction.delay_before_s, step, direction.delay_after_s, not on)

    def _fd(self) -> int:
        if self._port is None or self._port.fd is None:
            raise BusGone(f"bus {self.name}: {self.path or 'the port'} is not open")
        return int(self._port.fd)

    # -- errors ----------------------------------------

    def _unplugged(self) -> BusGone:
        return BusGone(f"bus {self.name}: {self.path} was unplugged")

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        import termios

        try:
            yield
        except BusError:
            raise
        # termios.error is no OSError; TypeError is pyserial's answer when another thread closed the port
        except (OSError, termios.error, TypeError) as error:
            raise self._unplugged() from error


class _PortSource:
    """The port's own descriptor; closing it stops the listening, not the port."""

    def __init__(self, port: SerialPort) -> None:
        self._port: SerialPort | None = port
        self._fd = port.fileno()

    def fileno(self) -> int:
        return self._fd

    def drain(self) -> Sequence[bytes]:
        return self._port.drain() if self._port is not None else ()

    def close(self) -> None:
        self._port = None


def find_usb(bus: str, identity: UsbIdentity) -> str:
    """The node of the adapter that matches. Raises BusGone (none), BusError (several, with their names)."""
    from serial.tools.list_ports import comports

    ports = [port for port in comports() if port.vid is not None]
    found = [port for port in ports if _fits(port, identity)]
    wanted = f"{identity.vid:04x}:{identity.pid:04x}"
    wanted += f" serial {identity.serial!r}" if identity.serial else ""
    wanted += f" at {identity.location}" if identity.location else ""
    if not found:
        there = listed([_describe(port) for port in ports], "there is no USB serial port")
        raise BusGone(f"bus {bus}: no USB serial port {wanted}; {there}")
    if len(found) > 1:
        raise BusError(
            f"bus {bus}: {len(found)} USB serial ports fit {wanted}: "
            f"{', '.join(_describe(port) for port in found)}; add `serial` or `location` to the bus's port"
        )
    return str(found[0].device)


def _fits(port: Any, identity: UsbIdentity) -> bool:
    # A location may name the interface too ("1-1.3:1.0"), for adapters with several ports.
    places = (port.location, (port.location or "").split(":")[0])
    return (
        (port.vid, port.pid) == (identity.vid, identity.pid)
        and identity.serial in (None, port.serial_number)
        and (identity.location is None or identity.location in places)
    )


def _describe(port: Any) -> str:
    serial = f" serial {port.serial_number!r}" if port.serial_number else ""
    return f"{port.device} ({port.vid:04x}:{port.pid:04x}{serial} at {port.location or 'unknown place'})"


def _tell_silence_from_hangup(fd: int) -> None:
    """Make an empty read mean an unplugged port, and nothing else.

    pyserial sets VMIN to 0, with which a read of a silent port is empty too, instead of EAGAIN.
    """
    import termios

    attributes = termios.tcgetattr(fd)
    attributes[6][termios.VMIN] = 1
    termios.tcsetattr(fd, termios.TCSANOW, attributes)


def _kernel_switches(fd: int, rs485: Rs485Config) -> bool:
    """Whether the kernel's driver takes over the direction (TIOCSRS485, Documentation/driver-api/serial)."""
    import fcntl

    on_send, after_send = 0b010, 0b100
    flags = 1 | (on_send if rs485.rts_on_send else after_send)
    delays_ms = [round(delay_s * 1000) for delay_s in (rs485.delay_before_s, rs485.delay_after_s)]
    try:
        fcntl.ioctl(fd, TIOCSRS485, struct.pack("=8I", flags, *delays_ms, *[0] * 5))
    except OSError:
        return False
    return True


def _ready(fd: int, event: int, deadline_s: float) -> bool:
    """Whether the descriptor becomes ready (or dead, which the next call tells) before the deadline."""
    poll = select.poll()
    poll.register(fd, event)
    left_ms = max(0.0, deadline_s - time.monotonic()) * 1000
    return bool(poll.poll(left_ms))
