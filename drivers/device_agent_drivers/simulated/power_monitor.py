"""What the simulated INA219 and INA226 share: a load with a voltage and a current through a known shunt."""

from device_agent.testing.chips import Physical, RegisterChip
from device_agent_drivers.power_monitor import PowerMonitorConfig

CONFIG, SHUNT, BUS, POWER, CURRENT, CALIBRATION = range(6)


class SimulatedPowerMonitor(RegisterChip):
    """Quantities: bus_voltage (V), current (A), shunt_voltage (mV); the last two follow each other."""

    def __init__(self, config: PowerMonitorConfig, registers: dict[int, bytes], read_only: set[int]) -> None:
        self._shunt_ohms = config.shunt_ohms
        self._done_s: float | None = None
        self.overflowed = False
        current = config.max_current_a / 4
        world: dict[str, Physical] = {
            "bus_voltage": 12.0,
            "current": current,
            "shunt_voltage": current * config.shunt_ohms * 1000,
        }
        super().__init__(registers, world, register_bytes=2, auto_increment=False, read_only=read_only)
        self.address = config.address

    def reset(self) -> None:
        super().reset()
        self._done_s = None
        self.overflowed = False

    def changed(self, quantity: str) -> None:
        if quantity == "current":
            self._quantities["shunt_voltage"] = float(self._quantities["current"]) * self._shunt_ohms * 1000
        elif quantity == "shunt_voltage":
            self._quantities["current"] = float(self._quantities["shunt_voltage"]) / self._shunt_ohms / 1000

    def transfer(self, write: bytes, read_size: int) -> bytes:
        if self._done_s is not None and self.now_s() >= self._done_s:
            self._done_s = None
            self.measure()
        return super().transfer(write, read_size)

    def begin(self, lasts_s: float) -> None:
        self._done_s = self.now_s() + lasts_s

    def measure(self) -> None:
        """One measurement is complete: the result registers follow."""
        raise NotImplementedError

    def world(self) -> tuple[float, float]:
        """Bus voltage (V) and shunt voltage (mV)."""
        return float(self._quantities["bus_voltage"]), float(self._quantities["shunt_voltage"])


def between(low: int, value: float, high: int) -> int:
    return max(low, min(high, round(value)))
