"""Plantower PMS5003 particle sensor and its family on a serial line of 9600 baud (data manual of each model).

It speaks by itself, every 0.2 to 2.3 s. In the first 30 s its fan is not yet steady.

Dialects are the models of the family (`model`): PMS3003, PMS5003, 5003S, 5003ST, 5003T, 7003 and A003.
"""

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any, Literal

from device_agent.driver import DriverConfig, Listener, Point, SerialBus, Unit, Values, WrongChip
from device_agent.schema import Field
from device_agent_drivers.binary_frames import FrameFormat, FrameReader
from device_agent_drivers.checksums import sum16
from device_agent_drivers.far_end import OwnsPort

LAYOUT = FrameFormat(start="42 4D", length_at=2, length_size=2, length_add=4, longest=40, checksum="sum16")
REPLY_BYTES = 4  # to a command: its code, its argument, the checksum
# Appendix II: it may be asleep, or in passive mode.
WAKE_UP, SPEAK_BY_ITSELF = b"\x42\x4d\xe4\x00\x01", b"\x42\x4d\xe1\x00\x01"

# Appendix I, in the order of the frame
MASSES = ("pm1_cf1", "pm2_5_cf1", "pm10_cf1", "pm1", "pm2_5", "pm10")
COUNTS = ("count_0_3", "count_0_5", "count_1", "count_2_5", "count_5", "count_10")
Model = Literal["pms3003", "pms5003", "pms5003s", "pms5003st", "pms5003t", "pms7003", "pmsa003"]
NAMES: dict[str, tuple[str, ...]] = {
    "pms3003": MASSES,
    "pms5003": MASSES + COUNTS,
    "pms5003s": (*MASSES, *COUNTS, "formaldehyde"),
    "pms5003st": (*MASSES, *COUNTS, "formaldehyde", "temperature", "humidity"),
    "pms5003t": (*MASSES, *COUNTS[:4], "temperature", "humidity"),
    "pms7003": MASSES + COUNTS,
    "pmsa003": MASSES + COUNTS,
}
DATA_BYTES = {"pms3003": 20, "pms5003st": 36}
"""Words and checksum of a frame; 28 of the other models."""
# A sum of two bytes lets a damaged frame in 65 536 pass; so many in a row are another model's.
IMPOSSIBLE_FRAMES = 3


class Pms5003Config(DriverConfig):
    driver: Literal["pms5003"] = "pms5003"
    model: Model = Field(
        "pms5003", description="Which sensor of the family it is; a PMS1003 is as a PMS5003."
    )


def _point(name: str) -> Point:
    if name == "temperature":
        return Point(name, Unit.CELSIUS, low=-20, high=99, description="Of the air in the sensor.")
    if name == "humidity":
        return Point(name, Unit.PERCENT, low=0, high=99, description="Relative, of the air in the sensor.")
    if name == "formaldehyde":
        return Point(name, Unit.MICROGRAM_PER_CUBIC_METRE, "integer", low=0, description="Of the air.")
    size = name.partition("_cf1")[0].removeprefix("pm").removeprefix("count_").replace("_", ".")
    if name.startswith("count"):
        text = f"Particles larger than {size} um in 0.1 l of air."
        return Point(name, Unit.PER_DECILITRE, "integer", low=0, description=text)
    air = "standard particles (CF = 1)" if name.endswith("_cf1") else "the air as it is"
    text = f"Particles up to {size} um, reckoned for {air}."
    return Point(name, Unit.MICROGRAM_PER_CUBIC_METRE, "integer", low=0, description=text)


class Pms5003(OwnsPort, Listener[Pms5003Config, SerialBus]):
    """Told of each frame."""

    default_stale_after_s = 10.0  # it sends at least every 2.3 s

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._names = NAMES[self.config.model]
        self._data_bytes = DATA_BYTES.get(self.config.model, 28)
        self._reader = FrameReader(LAYOUT, {})
        self._last: Values | None = None
        self._impossible = 0

    @classmethod
    def points_of(cls, config: Pms5003Config) -> tuple[Point, ...]:
        # What most people want first: mass in the air as it is.
        names = sorted(NAMES[config.model], key=lambda name: 2 if name not in MASSES else "cf1" in name)
        return tuple(_point(name) for name in names)

    @staticmethod
    def simulator(config: Pms5003Config) -> Any:
        from device_agent_drivers.simulated.pms5003 import SimulatedPms5003

        return SimulatedPms5003(config.model)

    def open(self) -> None:
        self._reader.begin(in_the_middle=True)
        self._last = None
        self.bus.discard_input()
        for command in (WAKE_UP, SPEAK_BY_ITSELF):
            self.bus.write(command + sum16(command).to_bytes(2, "big"))

    def feed(self, chunk: bytes) -> Iterator[Values]:
        """Raises WrongChip when what comes are whole frames of another model."""
        for frame in (whole[4:-2] for whole in self._reader.frames(chunk)):
            if len(frame) == REPLY_BYTES - 2:
                continue
            words = [int.from_bytes(frame[at : at + 2], "big") for at in range(0, len(frame), 2)]
            values = {name: _value(name, word) for name, word in zip(self._names, words, strict=False)}
            counts = [values[name] for name in COUNTS if name in values]
            if len(frame) != self._data_bytes - 2 or any(a < b for a, b in pairwise(counts)):
                self._refuse(len(frame))
                continue
            self._impossible = 0
            self._last = values
            yield values

    def _refuse(self, size: int) -> None:
        """Count a frame whose checksum is right and whose content is not this model's."""
        self._reader.bad += 1
        self._impossible += 1
        if self._impossible < IMPOSSIBLE_FRAMES:
            return
        self._impossible = 0
        what = f"sends frames of {size + 6} bytes instead of {self._data_bytes + 4}"
        if size == self._data_bytes - 2:
            what = (
                "counts more coarse particles than fine ones, as a PMS5003T's temperature and humidity look"
            )
        raise WrongChip(f"the sensor {what}: it is no {self.config.model.upper()}; set `model` to what it is")

    def notes(self) -> Mapping[str, int | str]:
        return self._reader.notes()

    def present(self, monotonic_s: float) -> Values | None:
        return self._last


def _value(name: str, word: int) -> float:
    """Tenths where the manual has them; the temperature is signed."""
    if name == "temperature":
        return (word - 0x10000 if word & 0x8000 else word) / 10
    return word / 10 if name == "humidity" else word
