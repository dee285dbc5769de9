"""An SHT3x by its data sheet, without alerts; in periodic mode it takes nothing but a break."""

from device_agent.testing.chips import Nack
from device_agent_drivers.simulated.sensirion import SimulatedSensirion, with_crc

# Table 4, typical times
MEASURE_S = {b"\x24\x00": 0.0125, b"\x24\x0b": 0.0045, b"\x24\x16": 0.0025}
PERIODIC = frozenset((0x20, 0x21, 0x22, 0x23, 0x27, 0x2B))
POWER_ON = 0x8010  # alert pending, reset detected
HEATER = 1 << 13


class SimulatedSht3x(SimulatedSensirion):
    """Quantities: temperature (Cel), humidity (%)."""

    def __init__(self, address: int = 0x44) -> None:
        super().__init__(address)
        self.status = POWER_ON
        self.periodic = False

    def reset(self) -> None:
        super().reset()
        self.status = POWER_ON
        self.periodic = False

    def command(self, code: bytes) -> None:
        if code == b"\x30\x93":
            self.periodic = False
        elif self.periodic and code != b"\xe0\x00":
            raise Nack
        elif code in MEASURE_S:
            self.answer(self.measurement(0, 100), MEASURE_S[code])
        elif code == b"\xf3\x2d":
            self.answer(with_crc(self.status), 0)
        elif code == b"\x30\x41":
            self.status &= HEATER
        elif code == b"\x30\xa2":
            self.status = POWER_ON
        elif code in (b"\x30\x6d", b"\x30\x66"):
            self.status = self.status & ~HEATER | (HEATER if code[1] == 0x6D else 0)
        elif code[0] in PERIODIC:
            self.periodic = True
        else:
            raise Nack
