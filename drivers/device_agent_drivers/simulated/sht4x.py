"""An SHT4x by its data sheet, without its heater."""

from device_agent.testing.chips import Nack
from device_agent_drivers.simulated.sensirion import SimulatedSensirion, with_crc

# Table 5, typical times
MEASURE_S = {b"\xfd": 0.0069, b"\xf6": 0.0037, b"\xe0": 0.0013}
SERIAL = (0x0F1E, 0x2D3C)


class SimulatedSht4x(SimulatedSensirion):
    """Quantities: temperature (Cel), humidity (%)."""

    def __init__(self, address: int = 0x44) -> None:
        super().__init__(address)

    def command(self, code: bytes) -> None:
        if code in MEASURE_S:
            self.answer(self.measurement(-6, 125), MEASURE_S[code])
        elif code == b"\x89":
            self.answer(with_crc(*SERIAL), 0)
        elif code != b"\x94":
            raise Nack
