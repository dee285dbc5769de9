"""Simulated chips: what lies at the far end of a simulated bus, so that the real driver code runs.

A driver names one in its class attribute `simulator`, a callable from the configuration to a chip:
`simulator = lambda config: RegisterChip({0x0F: b"\\x01\\x17", 0x00: b"\\x0c\\x80"})`. A chip has physical
quantities (what it senses, set from outside), outputs (what it makes happen) and a power-on state. It knows
no board and no wall clock: time is passed in. Chips import nothing heavy, since drivers import them.
"""

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Physical = float | bool | str
"""What one quantity of the simulated world can hold."""


class Nack(Exception):
    """The chip does not acknowledge; the driver sees NoAnswer."""


class Chip:
    """One simulated chip. The board calls every method under its lock, on whichever thread asks."""

    def __init__(self, quantities: Mapping[str, Physical] | None = None) -> None:
        """`quantities` are the physical quantities with their first values, in the driver's units."""
        self.now_s: Callable[[], float] = time.monotonic
        """CLOCK_MONOTONIC as this chip sees it; the board puts its own clock here."""
        self._quantities: dict[str, Physical] = dict(quantities or {})

    def quantities(self) -> dict[str, Physical]:
        """What can be set from outside, with the present values."""
        return dict(self._quantities)

    def set(self, quantity: str, value: Physical) -> None:
        """Change the world around the chip. Raises ValueError that names the quantities there are."""
        if quantity not in self._quantities:
            known = ", ".join(sorted(self._quantities)) or "none"
            raise ValueError(f"{type(self).__name__} has no quantity {quantity!r}; there are: {known}")
        before = self._quantities[quantity]
        self._quantities[quantity] = _like(before, value, quantity)
        try:
            self.changed(quantity)
        except (OverflowError, ValueError) as error:
            self._quantities[quantity] = before
            raise ValueError(
                f"{quantity} = {value} is beyond what {type(self).__name__} shows: {error}"
            ) from error

    def changed(self, quantity: str) -> None:
        """Called after a quantity was set: what the chip shows of it follows here."""

    def outputs(self) -> dict[str, Physical]:
        """What the chip makes happen in the world (levels, duties, text); changes go into the record."""
        return {}

    def reset(self) -> None:
        """Power-on state, as after a brown-out. The world stays: quantities keep their values."""

    def advance(self, now_s: float) -> float | None:
        """Do what is due by `now_s`; returns when to be called again, None for never."""
        return None


def _like(present: Physical, value: Physical, quantity: str) -> Physical:
    """`value`, or the text of one, in the type of the present one. Raises ValueError that says what."""
    if isinstance(present, str):
        return str(value)
    if isinstance(present, bool):
        word = str(value).lower()
        if word not in _WORDS:
            raise ValueError(f"{quantity} is true or false, not {value!r}")
        return _WORDS[word]
    try:
        if isinstance(value, bool):
            raise ValueError
        return float(value) if isinstance(value, str) else value
    except ValueError:
        raise ValueError(f"{quantity} is a number, not {value!r}") from None


_WORDS = {"true": True, "1": True, "on": True, "false": False, "0": False, "off": False}


# --- I2C -------------------------------------------------------------------------------------------------


class I2cChip(Chip):
    """A chip that answers at one address: its configuration's `address`, else this class attribute."""

    address: int | None = None

    def transfer(self, write: bytes, read_size: int) -> bytes:
        """One transaction: take `write`, answer with exactly `read_size` bytes. Raises Nack."""
        raise Nack

    def present(self) -> bool:
        """Whether the bare address is acknowledged."""
        return True


@dataclass(frozen=True, slots=True)
class Quantity:
    """A physical quantity that stands in a register: `encode` makes the register's bytes from the value."""

    register: int
    encode: Callable[[Any], bytes]
    initial: Physical


class RegisterChip(I2cChip):
    """A register map: write a register's address and then data, or read from the address last written.

    Subclasses shape single registers with `on_write` and `on_read`. Registers that are not named hold zero.
    """

    def __init__(
        self,
        registers: Mapping[int, bytes],
        quantities: Mapping[str, Quantity | Physical] | None = None,
        *,
        address_bytes: int = 1,
        register_bytes: int | None = None,
        auto_increment: bool | None = None,
        read_only: Collection[int] = (),
    ) -> None:
        """`registers` is the power-on state; a value longer than a register goes on in the next ones.

        `register_bytes`: size of one register, big-endian; None means 1, unless the values would then
        overlap: each register is as long as its value (16-bit registers, TMP117).
        `auto_increment`: whether a longer access goes on to the next register (None: only where registers
        are bytes) or stays at the same one. Writes to `read_only` registers are acknowledged and ignored.
        """
        given = quantities or {}
        super().__init__({name: q.initial if isinstance(q, Quantity) else q for name, q in given.items()})
        self._encoders = {name: q for name, q in given.items() if isinstance(q, Quantity)}
        self._address_bytes = address_bytes
        self._sizes = _own_sizes(registers) if register_bytes is None else {}
        self._size = register_bytes or max(self._sizes.values(), default=1)
        self._auto_increment = self._size == 1 if auto_increment is None else auto_increment
        self._read_only = frozenset(read_only)
        self._power_on = {register: bytes(data) for register, data in registers.items()}
        self._held: dict[int, int] = {}
        self.pointer = 0
        """The register that the next plain read starts at."""
        self.written: set[int] = set()
        """Every register that the host has ever written."""
        RegisterChip.reset(self)

    # -- for subclasses, tests and quantities ----------------------------------------

    def on_write(self, register: int, value: int) -> int:
        """The host writes one register: returns what it then holds. Self-clearing bits are cleared here."""
        return value

    def on_read(self, register: int, value: int) -> int:
        """The host reads one register: returns what goes on the wire. Clear-on-read happens here."""
        return value

    def __getitem__(self, register: int) -> int:
        return self._held.get(register, 0)

    def __setitem__(self, register: int, value: int) -> None:
        """Change a register from inside the chip: no hook, no write protection."""
        self._held[register] = value & ((1 << 8 * self._width(register)) - 1)

    def put(self, register: int, data: bytes) -> None:
        """Change registers from inside the chip, beginning at `register`."""
        while data:
            width = self._width(register)
            self._held[register] = int.from_bytes(data[:width].ljust(width, b"\0"), "big")
            data = data[width:]
            register += 1

    def get(self, register: int, size: int) -> bytes:
        """`size` bytes beginning at `register`, as they stand, without a hook."""
        data = b""
        while len(data) < size:
            data += self[register].to_bytes(self._width(register), "big")
            register += 1
        return data[:size]

    def dump(self) -> dict[int, bytes]:
        """Every register that was ever named or written, as bytes."""
        return {register: self.get(register, self._width(register)) for register in sorted(self._held)}

    # -- the chip itself ----------------------------------------

    def changed(self, quantity: str) -> None:
        encoder = self._encoders.get(quantity)
        if encoder is not None:
            self.put(encoder.register, encoder.encode(self._quantities[quantity]))

    def reset(self) -> None:
        self._held = {}
        self.pointer = 0
        for register, data in self._power_on.items():
            self.put(register, data)
        for quantity in self._encoders:
            RegisterChip.changed(self, quantity)

    def transfer(self, write: bytes, read_size: int) -> bytes:
        if write:
            self.pointer = int.from_bytes(write[: self._address_bytes], "big")
            self._take(write[self._address_bytes :])
        return self._give(read_size)

    def _take(self, data: bytes) -> None:
        while data:
            register, width = self.pointer, self._width(self.pointer)
            # A word cut short by the host never reaches the register.
            if len(data) >= width and register not in self._read_only:
                self.written.add(register)
                self[register] = self.on_write(register, int.from_bytes(data[:width], "big"))
            data = data[width:]
            self._step()

    def _give(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            register = self.pointer
            value = self.on_read(register, self[register])
            data += value.to_bytes(self._width(register), "big")
            self._step()
        return bytes(data[:size])

    def _step(self) -> None:
        if self._auto_increment:
            self.pointer = (self.pointer + 1) % (1 << 8 * self._address_bytes)

    def _width(self, register: int) -> int:
        return self._sizes.get(register, self._size)


def _own_sizes(registers: Mapping[int, bytes]) -> dict[int, int]:
    """Each register's own size where the map makes sense only so; empty where registers are plain bytes."""
    overlap = any(
        register + offset in registers
        for register, data in registers.items()
        for offset in range(1, len(data))
    )
    return {register: len(data) for register, data in registers.items()} if overlap else {}


# --- the other media -------------------------------------------------------------------------------------


class SerialChip(Chip):
    """The far end of a serial line. `every_s`: it sends what `report` returns that often, unasked."""

    every_s: float | None = None

    def __init__(
        self, quantities: Mapping[str, Physical] | None = None, *, every_s: float | None = None
    ) -> None:
        super().__init__(quantities)
        if every_s is not None:
            self.every_s = every_s
        self._due_s: float | None = None
        self._out = bytearray()

    def greeting(self) -> bytes:
        """What it says when it was reset, as some are by opening the port."""
        return b""

    def receive(self, data: bytes) -> None:
        """Bytes from the host, in pieces of any length."""

    def say(self, data: bytes) -> None:
        """Put bytes on the way to the host."""
        self._out += data

    def outgoing(self) -> bytes:
        """The bytes on their way to the host; returned once."""
        data = bytes(self._out)
        self._out.clear()
        return data

    def report(self) -> bytes:
        """What the chip sends every `every_s`."""
        return b""

    def reset(self) -> None:
        self._out.clear()
        self._due_s = None

    def advance(self, now_s: float) -> float | None:
        if self.every_s is None:
            return None
        if self._due_s is None:
            self._due_s = now_s + self.every_s
        while self._due_s <= now_s:
            self.say(self.report())
            self._due_s += self.every_s
        return self._due_s


@dataclass(frozen=True, slots=True)
class Drive:
    """A chip drives a GPIO line to a physical `level`, `after_s` from now; None lets go of the line."""

    line: int
    level: bool | None
    after_s: float = 0.0


class GpioChip(Chip):
    """Something wired to GPIO lines, such as an echo sounder: it sees levels and answers with levels."""

    def saw(self, line: int, level: bool) -> Iterable[Drive]:
        """A line of this device was driven by the host; returns what the chip drives in answer."""
        return ()

    def drives(self) -> Iterable[Drive]:
        """What the chip drives now: asked at the start, after `set` and after `reset`."""
        return ()


class SpiChip(Chip):
    """A chip behind one chip select."""

    def transfer(self, data: bytes, speed_hz: int) -> bytes:
        """One selection: as many bytes out as come in, at this clock."""
        return b"\xff" * len(data)


class OneWireChip(Chip):
    """A sensor as the kernel shows it: a folder `device` of small text files."""

    device = "28-000000000001"

    def read(self, file: str) -> tuple[str, float]:
        """The text of one file, and how long the kernel takes for it. Raises FileNotFoundError."""
        raise FileNotFoundError(file)

    def write(self, file: str, text: str) -> None:
        """The host writes one file. Raises FileNotFoundError."""
        raise FileNotFoundError(file)


@dataclass(frozen=True, slots=True)
class Publication:
    """One MQTT message of a simulated device."""

    topic: str
    payload: bytes
    retain: bool = False


class MqttChip(Chip):
    """A device on the broker: sees every message of the host, says its own."""

    def saw(self, topic: str, payload: bytes) -> Iterable[Publication]:
        """The host published; returns the answers."""
        return ()

    def publishes(self) -> Iterable[Publication]:
        """What the device says now: asked at the start, after `set` and after `reset`."""
        return ()
