"""A microcontroller that sends frames: COBS or SLIP, with a CRC-16, and a msgpack map in each.

    far end → host   {"temperature": 21.5, "lamp": false}     whenever it likes, any of its points
    host → far end   {"lamp": true}                           what is to be set

Dialects are COBS and SLIP (`framing`), each with its checksum: no frame without one is believed.

`drivers/arduino/framed_msgpack` is a sketch for the far end, ready to be filled with sensors.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import msgpack

from device_agent.driver import DriverError, Flagged, NoAnswer, SerialBus, Value
from device_agent.schema import Field
from device_agent_drivers.configured import ConfiguredListener, ConfiguredPoints, members
from device_agent_drivers.far_end import OPEN_DELAY, READY_LIMIT_S, RESET_S, OwnsPort, arrivals
from device_agent_drivers.frames import FRAMINGS, Framing


class FramedMsgpackConfig(ConfiguredPoints):
    driver: Literal["framed-msgpack"] = "framed-msgpack"
    framing: Literal["cobs", "slip"] = Field("cobs", description="How frames are told apart on the wire.")
    max_frame_bytes: int = Field(
        512, ge=16, le=65_536, description="A longer frame is noise and passed over."
    )
    open_delay_s: float = OPEN_DELAY
    ready_frame: bool = Field(
        False, description="Online only when a frame has come, so that it is known to be at work."
    )


class FramedMsgpack(OwnsPort, ConfiguredListener[FramedMsgpackConfig, SerialBus]):
    """A frame gives the points it holds; each keeps its own age."""

    example = 'points.temperature = { unit = "Cel" }'

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._framing = FRAMINGS[self.config.framing]
        self._begin()
        self.frames_bad = 0

    def _begin(self) -> None:
        self._rest = b""
        self._skipping = False
        self._last = {}
        self._sent = {}

    @staticmethod
    def simulator(config: FramedMsgpackConfig) -> Any:
        from device_agent_drivers.simulated.framed_msgpack import SimulatedController

        return SimulatedController(config)

    def open(self) -> None:
        self._begin()
        self.bus.discard_input()
        self._wait_until_ready()
        if type(self).safe_of(self.config):
            self.safe()

    def _wait_until_ready(self) -> None:
        """Raises NoAnswer when no frame came that should."""
        wanted, delay_s = self.config.ready_frame, self.config.open_delay_s
        for at_s, chunk in arrivals(self.bus, READY_LIMIT_S if wanted else delay_s):
            if list(self.feed(chunk)) and wanted and at_s > max(RESET_S, delay_s):
                return
        if wanted:
            raise NoAnswer(f"no frame came within {READY_LIMIT_S:g} s")

    def notes(self) -> Mapping[str, int | str]:
        bad = {"bad_frames": self.frames_bad} if self.frames_bad else {}
        return {**super().notes(), **bad}

    # -- in -----------------------------------------------------------------------------------------------

    def feed(self, chunk: bytes) -> Iterator[dict[str, Value | Flagged]]:
        *frames, self._rest = (self._rest + chunk).split(self._framing.end)
        limit = self.config.max_frame_bytes
        for frame in frames:
            if self._skipping or len(frame) > limit:
                self.frames_bad += not self._skipping
                self._skipping = False
            elif frame and (values := self._values(frame)):
                yield values
        if len(self._rest) > limit:
            self.frames_bad += not self._skipping
            self._skipping, self._rest = True, b""

    def _values(self, frame: bytes) -> dict[str, Value | Flagged] | None:
        try:
            document = decoded(frame, self._framing)
        except ValueError:
            self.frames_bad += 1
            return None
        return self._said(members(document, self.config.points))

    # -- out ----------------------------------------------------------------------------------------------

    def write(self, values: Mapping[str, Value]) -> dict[str, Value]:
        """All in one frame. The far end reports the new values later; here they are not known yet."""
        points = self.config.points
        wire = {n: v if isinstance(v, bool) else points[n].to_wire(v) for n, v in values.items()}
        frame = encoded(wire, self._framing)
        if len(frame) - 1 > self.config.max_frame_bytes:
            raise DriverError(
                f"{', '.join(values)}: a frame of {len(frame)} bytes is above `max_frame_bytes`"
            )
        self.bus.write(self._framing.end + frame)  # ends whatever the far end has received until now
        self._sent |= values
        return {}


# --- frames ----------------------------------------------------------------------------------------------


def encoded(document: Mapping[str, Any], framing: Framing) -> bytes:
    """One frame with its ending."""
    payload: bytes = msgpack.packb(document, use_single_float=False)
    return framing.framed(payload)


def decoded(frame: bytes, framing: Framing) -> dict[str, Any]:
    """The map in a frame without its ending. Raises ValueError for anything else."""
    try:
        # A key that is no name costs its value, not the frame.
        document = msgpack.unpackb(framing.payload(frame), strict_map_key=False)
    except (msgpack.UnpackException, RecursionError, TypeError, OverflowError) as error:
        raise ValueError(f"no msgpack: {error}") from error
    if not isinstance(document, dict):
        raise ValueError("no map")
    return document
