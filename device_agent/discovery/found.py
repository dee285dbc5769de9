"""What `scan` finds, as frozen records; `dataclasses.asdict` is its JSON."""

from dataclasses import dataclass, field
from typing import Literal

from device_agent.discovery.system import LineInfo

State = Literal["identified", "candidate", "unknown", "kernel"]


@dataclass(frozen=True, slots=True)
class FoundChip:
    """What answers at a place of a bus."""

    place: int | str
    """An I2C address, or a 1-Wire sensor's id."""
    state: State
    driver: str = ""
    """The driver that identified it; in state "kernel" the kernel's driver that holds it."""
    what: str = ""
    """How one knows, or why not."""
    candidates: tuple[str, ...] = ()
    """Drivers whose chips may have this address."""


@dataclass(frozen=True, slots=True)
class FoundI2c:
    device: str
    adapter: str
    speaks: str = ""
    """"i2c" or "smbus"; "" where it could not be opened."""
    chips: tuple[FoundChip, ...] = ()
    note: str = ""
    """Why it was not asked, or what went wrong."""


@dataclass(frozen=True, slots=True)
class FoundGpio:
    device: str
    label: str = ""
    lines: tuple[LineInfo, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class FoundPort:
    """A serial port."""

    device: str
    stable: str = ""
    """Its name below /dev/serial/by-id, else that by topology, else an alias of the board."""
    vid: int | None = None
    pid: int | None = None
    serial: str = ""
    location: str = ""
    """USB topology, such as "1-1.3"."""
    product: str = ""
    driver: str = ""
    holder: str = ""


@dataclass(frozen=True, slots=True)
class FoundThing:
    """A SPI chip select, a PWM chip, a camera, a broker: no more than its place and what it is."""

    device: str
    what: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """Everything."""

    board: str = ""
    gpio: tuple[FoundGpio, ...] = ()
    i2c: tuple[FoundI2c, ...] = ()
    spi: tuple[FoundThing, ...] = ()
    onewire: tuple[FoundChip, ...] = ()
    serial: tuple[FoundPort, ...] = ()
    pwm: tuple[FoundThing, ...] = ()
    cameras: tuple[FoundThing, ...] = ()
    brokers: tuple[FoundThing, ...] = ()
    notes: tuple[str, ...] = field(default=())
    """What was left out, and why."""
