"""The far end of `serial-frames`: it sends a frame whenever one of its quantities is set."""

from typing import TYPE_CHECKING

from device_agent.testing.chips import Physical, SerialChip
from device_agent_drivers.simulated.documents import dated

if TYPE_CHECKING:
    from device_agent_drivers.serial_frames import SerialFramesConfig


class SimulatedFrames(SerialChip):
    """Quantities are the points, in their units."""

    def __init__(self, config: "SerialFramesConfig") -> None:
        empty: dict[str, Physical] = {"boolean": False, "number": 0.0, "integer": 0}
        super().__init__({name: empty[options.type] for name, options in config.points.items()})
        self._config = config

    def changed(self, quantity: str) -> None:
        points = self._config.points
        quantities = dated(points, self._quantities)
        wire = {name: float(points[name].to_wire(value)) for name, value in quantities.items()}
        layout = self._config.frame
        # Who has just begun to listen believes the second one.
        self.say(layout.made(points, wire) * (1 if layout.proves_itself else 2))
