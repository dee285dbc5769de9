"""Maxim DS18B20 thermometer on 1-Wire, converted and read by the kernel's w1_therm (data sheet 19-7487).

The kernel's file holds the nine bytes of the sensor's scratchpad; they are checked here, because the file
also says plausible things about sensors that are absent, shorted or without a new conversion.
"""

import re
from typing import Any, Literal

from device_agent.driver import (
    BadReading,
    DriverConfig,
    DriverError,
    Flag,
    Flagged,
    NoAnswer,
    OneWireBus,
    Point,
    Sensor,
    Unit,
    Value,
    WrongChip,
)
from device_agent.schema import Field
from device_agent_drivers.checksums import crc8_maxim_dow

FILE = "w1_slave"
# Families whose scratchpad is the same.
FAMILIES = {"28": "DS18B20", "22": "DS1822", "42": "DS28EA00"}
POWER_ON_C = 85.0
# Byte 6 before the first conversion; after one it is 0x10 less the temperature's low four bits.
POWER_ON_BYTE_6 = 0x0C
# In the file `features` (Linux 5.8 and later): the kernel refuses power-on values, with an empty file.
CHECKED_BY_KERNEL = 1
STEPS_PER_DEGREE = 16
SCRATCHPAD = re.compile(r"\s*((?:[0-9a-f]{2} ){9}): crc=[0-9a-f]{2} (YES|NO)")


class Ds18b20Config(DriverConfig):
    driver: Literal["ds18b20"] = "ds18b20"
    id: str | None = Field(
        None,
        pattern="^(28|22|42)-[0-9a-f]{12}$",
        description='The sensor\'s folder, family code included: "28-0316a2794caf". '
        "May be left out where there is one sensor.",
    )
    resolution: Literal[9, 10, 11, 12] | None = Field(
        None, description="Bits; 12 takes 0.75 s, 9 takes 0.1 s. Left as it is by default."
    )


class Ds18b20(Sensor[Ds18b20Config, OneWireBus]):
    """A reading is a conversion; the kernel waits for it on the bus's thread."""

    points = (Point("temperature", Unit.CELSIUS, low=-55, high=125, description="Of the sensor."),)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._id = self.config.id or ""
        self._same_byte_6 = False

    @classmethod
    def identify(cls, bus: OneWireBus, place: str) -> str:
        family = place.partition("-")[0]
        if family not in FAMILIES:
            raise WrongChip(f"{place} is of family {family}: no thermometer like the DS18B20")
        return f"{FAMILIES[family]}, family {family}"

    @classmethod
    def claims(cls, config: Ds18b20Config) -> tuple[str, ...]:
        return (f"sensor {config.id}",) if config.id else ("the only sensor",)

    @classmethod
    def reading_s(cls, config: Ds18b20Config, bus: Any) -> float:
        return 0.75 / (1 << 12 - (config.resolution or 12))

    @staticmethod
    def simulator(config: Ds18b20Config) -> Any:
        from device_agent_drivers.simulated.ds18b20 import SimulatedDs18b20

        return SimulatedDs18b20(config.id)

    def open(self) -> None:
        self._id = self.config.id or self._only_one()
        if self._id not in self.bus.devices():
            raise NoAnswer(f"there is no sensor {self._id}; there are: {self._listed()}")
        if self.config.resolution is not None:
            self.bus.write(self._id, "resolution", str(self.config.resolution))

    def _only_one(self) -> str:
        found = [name for name in self.bus.devices() if name.partition("-")[0] in FAMILIES]
        if not found:
            raise NoAnswer(f"there is no DS18B20; there are: {self._listed()}")
        if len(found) > 1:
            raise DriverError(f"there are {len(found)} sensors: name one as `id`: {', '.join(found)}")
        return found[0]

    def _listed(self) -> str:
        return ", ".join(self.bus.devices()) or "none"

    def read(self) -> dict[str, Value | Flagged]:
        data = self._converted()
        if _is_power_on(data):
            # Without power in between the next conversion decides.
            try:
                data = self._converted()
            except (BadReading, NoAnswer):
                return {"temperature": Flagged(None, Flag.POWER_ON_VALUE)}
        value = temperature(data)
        if _is_power_on(data):
            # Some copies of the chip have the same byte 6 after every conversion: theirs may be true.
            return {"temperature": Flagged(value if self._same_byte_6 else None, Flag.POWER_ON_VALUE)}
        self._same_byte_6 |= data[6] == POWER_ON_BYTE_6 != 0x10 - (data[0] & 0x0F)
        return {"temperature": value}

    def _converted(self) -> bytes:
        text = self.bus.read(self._id, FILE)
        if not text.strip() and self._checked_by_kernel():
            raise NoAnswer(
                f"sensor {self._id}: the kernel gives no value. The sensor did not answer, or it showed 85 "
                f"degrees without a conversion (bit {CHECKED_BY_KERNEL} of its file features has that "
                "checked); check its supply and wiring"
            )
        return scratchpad(text, self._id)

    def _checked_by_kernel(self) -> bool:
        try:
            return bool(int(self.bus.read(self._id, "features")) & CHECKED_BY_KERNEL)
        except (NoAnswer, ValueError):  # an older kernel has no such file
            return False


def _is_power_on(data: bytes) -> bool:
    return temperature(data) == POWER_ON_C and data[6] == POWER_ON_BYTE_6


def scratchpad(text: str, sensor: str) -> bytes:
    """The nine bytes of the kernel's text. Raises NoAnswer (no sensor behind it), BadReading (checksum)."""
    if not text.strip():
        raise NoAnswer(f"sensor {sensor} did not answer, or only noise; check its wiring and pull-up")
    found = SCRATCHPAD.match(text)
    if found is None:
        raise BadReading(f"sensor {sensor}: the kernel's {FILE} reads {text[:60]!r}")
    data = bytes.fromhex(found[1])
    if data in (b"\0" * 9, b"\xff" * 9):
        # Nine zeros have a correct checksum.
        raise NoAnswer(f"sensor {sensor}: the line reads nothing but {data[0]:#04x}; it is shorted or open")
    if found[2] != "YES" or crc8_maxim_dow(data[:8]) != data[8]:
        raise BadReading(f"sensor {sensor}: wrong checksum over {data.hex(' ')}; check cable and pull-up")
    return data


def temperature(data: bytes) -> float:
    """Degrees Celsius from a scratchpad; the bits below the resolution are undefined (figure 4)."""
    resolution = 9 + (data[4] >> 5 & 0b11)
    raw = int.from_bytes(data[:2], "little", signed=True)
    return (raw >> 12 - resolution << 12 - resolution) / STEPS_PER_DEGREE
