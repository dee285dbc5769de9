"""What Sensirion's humidity sensors share: words with checksums, and a result that can be read once."""

import time
from typing import Any, ClassVar, TypeVar

from device_agent.driver import (
    BadReading,
    DriverConfig,
    Flag,
    Flagged,
    I2cBus,
    Point,
    Sensor,
    Unit,
    Value,
    WrongChip,
)
from device_agent_drivers.checksums import crc8_nrsc_5

FULL_SCALE = 65535
COMMAND_S = 0.001  # least time between a command and the next word
# The same wrong bytes this often in a row are no noise: another chip answers.
IDENTIFY_TRIES = 3


def words_of(data: bytes) -> list[int | None]:
    """Each two bytes and their checksum (SHT3x section 4.12, SHT4x section 4.4) as a word; None where it is
    wrong."""
    return [
        int.from_bytes(data[i : i + 2], "big") if crc8_nrsc_5(data[i : i + 2]) == data[i + 2] else None
        for i in range(0, len(data), 3)
    ]


class SensirionConfig(DriverConfig):
    """Options of all of them; the address is the subclass's."""

    address: int


C = TypeVar("C", bound=SensirionConfig)


class SensirionSensor(Sensor[C, I2cBus]):
    """`trigger` starts a measurement, `read` fetches it. A second read would be a NACK, so where a checksum
    is wrong it measures once more; a word that is wrong again is null, the other goes out."""

    chip: ClassVar[str]
    points = (
        Point("temperature", Unit.CELSIUS, low=-40, high=125, description="Air temperature.", still_s=3600),
        Point("humidity", Unit.PERCENT, low=0, high=100, description="Relative humidity."),
    )

    def read(self) -> dict[str, Value | Flagged]:
        raw = self._fetch()
        if None in raw:
            self.trigger()
            self.sleep(self.settle_s)
            raw = [old if new is None else new for old, new in zip(raw, self._fetch(), strict=True)]
        if raw == [None, None]:
            raise BadReading(f"{self.chip} at {self.config.address:#04x}: both checksums are wrong, twice")
        raw_t, raw_h = raw
        return {
            "temperature": _flagged(raw_t, -45 + 175 * (raw_t or 0) / FULL_SCALE),
            "humidity": _flagged(raw_h, self.percent(raw_h or 0)),
        }

    @staticmethod
    def percent(raw: int) -> float:
        """Relative humidity of a raw word."""
        raise NotImplementedError

    def _fetch(self) -> list[int | None]:
        return words_of(self.bus.transfer(self.config.address, b"", 6))

    def _identify(self, command: bytes, size: int, wait_s: float) -> list[int]:
        """These chips have no id: an answer with correct checksums has to do. Returns its words."""
        answers: list[bytes] = []
        for _ in range(IDENTIFY_TRIES):
            data = self._ask(command, size, wait_s)
            words = [word for word in words_of(data) if word is not None]
            if len(words) * 3 == size:
                return words
            answers.append(data)
        where = f"{self.chip} at {self.config.address:#04x}"
        if len(set(answers)) == 1:
            raise WrongChip(
                f"no {where}: what answers says {answers[0].hex(' ')} with a wrong checksum; "
                "check wiring and address, or take the driver of the chip that is there"
            )
        raise BadReading(f"{where}: {IDENTIFY_TRIES} answers with wrong checksums; check wiring and pull-ups")

    def _ask(self, command: bytes, size: int, wait_s: float) -> bytes:
        """A command, the time to carry it out with the clock line free, the answer."""
        self.bus.transfer(self.config.address, command)
        self.sleep(wait_s)
        return self.bus.transfer(self.config.address, b"", size)


def answer_of(bus: I2cBus, address: int, command: bytes, size: int) -> list[int | None]:
    """The answer to a command that changes nothing, to identify the chip."""
    bus.transfer(address, command)
    time.sleep(COMMAND_S)
    return words_of(bus.transfer(address, b"", size))


def _flagged(raw: int | None, value: float) -> Any:
    if raw is None:
        return Flagged(None, Flag.CHECKSUM)
    value = round(value, 3)
    return Flagged(value, Flag.CLIPPED) if raw in (0, FULL_SCALE) else value
