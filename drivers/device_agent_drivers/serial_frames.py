"""Any instrument that sends binary frames by itself: a dust sensor, a radar, a battery manager.

`frame` describes the frames, and each point says where in one it stands. A frame without its end or with a
wrong checksum is counted and passed over. For instruments that answer questions there is `serial-ask`.

Dialects that it was tried with: SDS011, A01NYUB and JSN-SR04T, TFmini.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from device_agent.driver import Flagged, SerialBus, Value
from device_agent.schema import Field, model_validator
from device_agent_drivers.binary_frames import FrameFormat, FramePointOptions, FrameReader
from device_agent_drivers.configured import ConfiguredListener, ConfiguredPoints, PointName
from device_agent_drivers.far_end import OwnsPort


class SerialFramesConfig(ConfiguredPoints):
    driver: Literal["serial-frames"] = "serial-frames"
    frame: FrameFormat = Field(description="What a frame looks like.")
    points: Mapping[PointName, FramePointOptions] = Field(
        min_length=1, max_length=64, description="The device's points by name."
    )

    @model_validator(mode="after")
    def _only_read(self) -> "SerialFramesConfig":
        if written := [name for name, options in self.points.items() if options.write]:
            raise ValueError(f"point {written[0]} cannot be written: nothing is sent to this device")
        return self


class SerialFrames(OwnsPort, ConfiguredListener[SerialFramesConfig, SerialBus]):
    """Told of each frame."""

    example = """
frame = { start = "AA C0", length = 10, end = "AB", checksum = "sum8", checksum_from = 2 }
points.pm2_5 = { at = 2, code = "u16", byte_order = "little", scale = 0.1, unit = "ug/m3" }
"""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._reader = FrameReader(self.config.frame, self.config.points)

    @staticmethod
    def simulator(config: SerialFramesConfig) -> Any:
        from device_agent_drivers.simulated.serial_frames import SimulatedFrames

        return SimulatedFrames(config)

    def open(self) -> None:
        self._last = {}
        self.bus.discard_input()
        self._reader.begin(in_the_middle=True)

    def notes(self) -> Mapping[str, int | str]:
        return {**super().notes(), **self._reader.notes()}

    def feed(self, chunk: bytes) -> Iterator[dict[str, Value | Flagged]]:
        return map(self._said, self._reader.feed(chunk))

    def write(self, values: Mapping[str, Value]) -> dict[str, Value]:
        """Nothing can be set."""
        return {}
