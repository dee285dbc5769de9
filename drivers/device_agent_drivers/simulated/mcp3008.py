"""An MCP3008 by its data sheet: bit for bit from the start bit on, wherever that stands in the frame."""

from typing import TYPE_CHECKING

from device_agent.testing.chips import Physical, SpiChip

if TYPE_CHECKING:
    from device_agent_drivers.mcp3008 import Mcp3008Config


class SimulatedMcp3008(SpiChip):
    """Quantities: ch0 to ch7, V against ground."""

    def __init__(self, config: "Mcp3008Config") -> None:
        world: dict[str, Physical] = {f"ch{number}": round(0.1 + 0.2 * number, 1) for number in range(8)}
        super().__init__(world)
        self._vref_v = config.vref_v
        self.fastest_hz = 0
        """The highest clock that the chip has seen."""

    def _volts(self, number: int) -> float:
        return float(self._quantities[f"ch{number}"])

    def _converted(self, code: int) -> int:
        number = code & 7
        volts = self._volts(number)
        if not code & 8:
            volts -= self._volts(number ^ 1)
        return max(0, min(1023, int(volts * 1024 / self._vref_v + 0.5)))

    def transfer(self, data: bytes, speed_hz: int) -> bytes:
        self.fastest_hz = max(self.fastest_hz, speed_hz)
        bits = "".join(f"{byte:08b}" for byte in data)
        start = bits.find("1")
        # DOUT is high-impedance (here pulled up) until the null bit, two clocks after the last of the code
        out = "1" * len(bits)
        if start >= 0 and len(bits) >= start + 5:
            result = f"{self._converted(int(bits[start + 1 : start + 5], 2)):010b}"
            shown = "0" + result + result[-2::-1]
            out = ("1" * (start + 6) + shown).ljust(len(bits), "0")[: len(bits)]
        return int(out, 2).to_bytes(len(data), "big")
