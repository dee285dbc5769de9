"""Any instrument that sends lines of text: a scale, a flow meter, a microcontroller's printout.

A line is a pattern with named groups, comma-separated columns or a JSON object; telegrams of several lines,
as electricity meters and solar chargers send them, with their checksum. What is no such line is counted and
passed over. The first line after opening, of which the start may be missing, is not believed.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from device_agent.driver import Flagged, SerialBus, Value
from device_agent_drivers.configured import ConfiguredListener
from device_agent_drivers.lines import LineOptions, LineReader


class SerialLinesConfig(LineOptions):
    driver: Literal["serial-lines"] = "serial-lines"


class SerialLines(ConfiguredListener[SerialLinesConfig, SerialBus]):
    """Reads every line that comes, whichever points are in it; writes by `command`."""

    example = """
pattern = '^W +(?P<weight>-?[0-9.]+)'
points.weight = { unit = "kg" }
"""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._reader = LineReader(self.config)
        self._templates = self.config.templates()

    @classmethod
    def claims(cls, config: SerialLinesConfig) -> tuple[str, ...]:
        return ("port",)

    @staticmethod
    def simulator(config: SerialLinesConfig) -> Any:
        from device_agent_drivers.simulated.serial_lines import SimulatedLines

        return SimulatedLines(config)

    def open(self) -> None:
        self._last = {}
        self.bus.discard_input()
        self._reader.begin(in_the_middle=True)
        if self._templates:
            self.safe()

    def notes(self) -> Mapping[str, int | str]:
        return self._reader.notes()

    def feed(self, chunk: bytes) -> Iterator[dict[str, Value | Flagged]]:
        return map(self._said, self._reader.feed(chunk))

    def write(self, values: Mapping[str, Value]) -> dict[str, Value]:
        """Sends each command that holds one of these points; lines cannot be read back."""
        known = {**type(self).safe_of(self.config), **self._sent, **values}
        for template in self._templates:
            if template.fields & set(values):
                self.bus.write(self.config.encoded(template, known))
        self._sent = known
        return {}
