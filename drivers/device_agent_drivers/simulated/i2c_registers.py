"""The far end of `i2c-registers`: the registers that its configuration describes."""

from typing import TYPE_CHECKING

from device_agent.driver import DriverError
from device_agent.testing.chips import Physical, RegisterChip

if TYPE_CHECKING:
    from device_agent_drivers.i2c_register_map import RegisterPoint
    from device_agent_drivers.i2c_registers import I2cRegistersConfig


class SimulatedRegisters(RegisterChip):
    """Quantities are the points that cannot be written, in their units; the others are outputs."""

    def __init__(self, config: "I2cRegistersConfig") -> None:
        self._points = config.points
        registers: dict[int, bytes] = {}
        for place, data in (
            *((point.register_, bytes(point.size_bytes)) for point in config.points.values()),
            *((entry.register_, bytes(len(entry.data))) for entry in config.setup),
            *(((config.id.register_, config.id.data),) if config.id else ()),
        ):
            registers[place] = max(registers.get(place, b""), data, key=lambda data: (len(data), data))
        inputs = {name: point for name, point in config.points.items() if not point.write}
        super().__init__(
            registers,
            {name: _first_value(point) for name, point in inputs.items()},
            address_bytes=config.register_bytes,
        )
        self.address = config.address
        for name in inputs:
            self.changed(name)

    def reset(self) -> None:
        super().reset()
        for name in self._quantities:
            self.changed(name)

    def changed(self, quantity: str) -> None:
        point = self._points[quantity]
        data = self.get(point.register_, point.size_bytes)
        try:
            self.put(point.register_, point.encode(self._quantities[quantity], data))
        except DriverError as error:
            raise ValueError(str(error)) from error

    def outputs(self) -> dict[str, Physical]:
        values = {
            name: point.decode(self.get(point.register_, point.size_bytes))
            for name, point in self._points.items()
            if point.write
        }
        return {name: value for name, value in values.items() if value is not None}


def _first_value(point: "RegisterPoint") -> Physical:
    """Whatever lies within the point's range."""
    if point.type == "boolean":
        return False
    low, high = point.limits
    return min(max(point.offset, low, point.low or low), high if point.high is None else point.high)
