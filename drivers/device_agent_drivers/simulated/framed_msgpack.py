"""The far end of `framed-msgpack`: a microcontroller that sends its points each second."""

from typing import TYPE_CHECKING

from device_agent.testing.chips import Physical, SerialChip
from device_agent_drivers.configured import parser_of
from device_agent_drivers.framed_msgpack import decoded, encoded
from device_agent_drivers.frames import FRAMINGS
from device_agent_drivers.simulated.documents import dated, documents_of

if TYPE_CHECKING:
    from device_agent_drivers.framed_msgpack import FramedMsgpackConfig


class SimulatedController(SerialChip):
    """Quantities are the points, in their units; a writable one is also an output."""

    every_s = 1.0

    def __init__(self, config: "FramedMsgpackConfig") -> None:
        empty: dict[str, Physical] = {"boolean": False, "string": "", "number": 0.0, "integer": 0}
        super().__init__(
            {name: options.safe or empty[options.type] for name, options in config.points.items()}
        )
        self._points = config.points
        self._framing = FRAMINGS[config.framing]
        self._received = b""

    def outputs(self) -> dict[str, Physical]:
        return {name: value for name, value in self._quantities.items() if self._points[name].write}

    def report(self) -> bytes:
        points = self._points
        wire = {
            name: value if isinstance(value, bool) else points[name].to_wire(value)
            for name, value in dated(points, self._quantities).items()
        }
        return b"".join(encoded(document, self._framing) for document in documents_of(points, wire))

    def changed(self, quantity: str) -> None:
        self.say(self.report())

    def receive(self, data: bytes) -> None:
        *frames, self._received = (self._received + data).split(self._framing.end)
        for frame in frames:
            try:
                document = decoded(frame, self._framing)
            except ValueError:
                continue
            for name, raw in document.items():
                if name in self._points and self._points[name].write:
                    value = parser_of(self._points[name])(raw)
                    if isinstance(value, bool | int | float | str):
                        self._quantities[name] = value
            self.say(self.report())
