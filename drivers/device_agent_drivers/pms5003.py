"""Plantower PMS5003 particle sensor on a serial line of 9600 baud (data manual V2.3).

It speaks by itself, every 0.2 to 2.3 s. In the first 30 s its fan is not yet steady.
"""

from collections.abc import Iterator
from typing import Any, Literal

from device_agent.driver import DriverConfig, Listener, Point, SerialBus, Unit, Values

START = b"\x42\x4d"
DATA_BYTES = 28  # 13 words and the checksum
REPLY_BYTES = 4  # to a command: its code, its argument, the checksum
# Appendix II: it may be asleep, or in passive mode.
WAKE_UP, SPEAK_BY_ITSELF = bytes((0xE4, 0, 1)), bytes((0xE1, 0, 1))

# Appendix I, in the order of the frame
NAMES = (
    "pm1_cf1", "pm2_5_cf1", "pm10_cf1", "pm1", "pm2_5", "pm10",
    "count_0_3", "count_0_5", "count_1", "count_2_5", "count_5", "count_10",
)  # fmt: skip


class Pms5003Config(DriverConfig):
    driver: Literal["pms5003"] = "pms5003"


def _point(name: str) -> Point:
    size = name.partition("_cf1")[0].removeprefix("pm").removeprefix("count_").replace("_", ".")
    if name.startswith("count"):
        text = f"Particles larger than {size} um in 0.1 l of air."
        return Point(name, Unit.PER_DECILITRE, "integer", low=0, description=text)
    air = "standard particles (CF = 1)" if name.endswith("_cf1") else "the air as it is"
    text = f"Particles up to {size} um, reckoned for {air}."
    return Point(name, Unit.MICROGRAM_PER_CUBIC_METRE, "integer", low=0, description=text)


class Pms5003(Listener[Pms5003Config, SerialBus]):
    """Told of each frame."""

    default_stale_after_s = 10.0  # it sends at least every 2.3 s
    points = tuple(
        _point(name) for name in sorted(NAMES[:6], key=lambda name: "cf1" in name) + list(NAMES[6:])
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._rest = b""
        self._last: Values | None = None
        self.frames_bad = 0

    @classmethod
    def claims(cls, config: Pms5003Config) -> tuple[str, ...]:
        return ("port",)

    @staticmethod
    def simulator(config: Pms5003Config) -> Any:
        from device_agent_drivers.simulated.pms5003 import SimulatedPms5003

        return SimulatedPms5003()

    def open(self) -> None:
        self._rest = b""
        self._last = None
        self.bus.discard_input()
        for command in (WAKE_UP, SPEAK_BY_ITSELF):
            self.bus.write(_summed(START + command))

    def feed(self, chunk: bytes) -> Iterator[Values]:
        self._rest += chunk
        while (frame := self._frame()) is not None:
            if len(frame) == DATA_BYTES - 2:
                words = (int.from_bytes(frame[at : at + 2], "big") for at in range(0, len(frame), 2))
                self._last = dict(zip(NAMES, words, strict=False))
                yield self._last

    def present(self, monotonic_s: float) -> Values | None:
        return self._last

    def _frame(self) -> bytes | None:
        """The next whole frame's data, None until there is one.

        What is no frame loses its first byte alone: the start of a true one may lie within it.
        """
        while True:
            start = self._rest.find(START)
            if start < 0:
                self._rest = self._rest[-1:] if self._rest[-1:] == START[:1] else b""
                return None
            self._rest = self._rest[start:]
            if len(self._rest) < 4:
                return None
            size = int.from_bytes(self._rest[2:4], "big")
            if size in (DATA_BYTES, REPLY_BYTES):
                frame = self._rest[: 4 + size]
                if len(frame) < 4 + size:
                    return None
                if frame == _summed(frame[:-2]):
                    self._rest = self._rest[len(frame) :]
                    return frame[4:-2]
            self.frames_bad += 1
            self._rest = self._rest[1:]


def _summed(data: bytes) -> bytes:
    """With the sum of all bytes, in two."""
    return data + sum(data).to_bytes(2, "big")
