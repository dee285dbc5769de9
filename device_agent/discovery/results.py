"""What `scan` finds, as frozen records; `dataclasses.asdict` is its JSON."""

from dataclasses import dataclass, field
from typing import Literal

from device_agent.discovery.system import LineInfo

ChipState = Literal["identified", "candidate", "unknown", "kernel"]


@dataclass(frozen=True, slots=True)
class DetectedChip:
    """What answers at a place of a bus."""

    place: int | str
    """An I2C address, or a 1-Wire sensor's id."""
    state: ChipState
    driver: str = ""
    """The driver that identified it; in state "kernel" the kernel's driver that holds it."""
    what: str = ""
    """How it was identified, or why not."""
    candidates: tuple[str, ...] = ()
    """Drivers whose chips may have this address."""


@dataclass(frozen=True, slots=True)
class DetectedI2c:
    device: str
    adapter: str
    speaks: str = ""
    """"i2c" or "smbus"; "" where it could not be opened."""
    chips: tuple[DetectedChip, ...] = ()
    note: str = ""
    """Why it was not asked, or what went wrong."""


@dataclass(frozen=True, slots=True)
class DetectedGpio:
    device: str
    label: str = ""
    lines: tuple[LineInfo, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class DetectedPort:
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
class DetectedDevice:
    """A SPI chip select, a PWM chip, a camera, a broker: no more than its place and what it is."""

    device: str
    what: str = ""


@dataclass(frozen=True, slots=True)
class ScanResult:
    """Everything."""

    board: str = ""
    gpio: tuple[DetectedGpio, ...] = ()
    i2c: tuple[DetectedI2c, ...] = ()
    spi: tuple[DetectedDevice, ...] = ()
    onewire: tuple[DetectedChip, ...] = ()
    serial: tuple[DetectedPort, ...] = ()
    pwm: tuple[DetectedDevice, ...] = ()
    cameras: tuple[DetectedDevice, ...] = ()
    brokers: tuple[DetectedDevice, ...] = ()
    notes: tuple[str, ...] = field(default=())
    """What was left out, and why."""
