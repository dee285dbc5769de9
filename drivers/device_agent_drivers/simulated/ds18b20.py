"""A DS18B20 as the kernel's w1_therm shows it: each read converts, and takes its time."""

import math

from device_agent.testing.chips import OneWireChip

POWER_ON = 85 * 16
CONVERSION_S = {9: 0.09375, 10: 0.1875, 11: 0.375, 12: 0.75}


class SimulatedDs18b20(OneWireChip):
    """Quantities: temperature (Cel). `conversions_lost`: so many reads to come show the power-on value."""

    def __init__(self, device: str | None = None) -> None:
        super().__init__({"temperature": 21.5})
        self.device = device or "28-0316a2794caf"
        self.resolution = 12
        self.conversions_lost = 0

    def reset(self) -> None:
        self.resolution = 12

    def read(self, file: str) -> tuple[str, float]:
        data = self.scratchpad()
        takes_s = CONVERSION_S[self.resolution]
        milli = int.from_bytes(data[:2], "little", signed=True) * 1000 // 16
        if file == "temperature":
            return f"{milli}\n", takes_s
        if file == "resolution":
            return f"{self.resolution}\n", 0.0
        if file != "w1_slave":
            raise FileNotFoundError(file)
        text = data.hex(" ")
        return f"{text} : crc={data[8]:02x} YES\n{text} t={milli}\n", takes_s

    def write(self, file: str, text: str) -> None:
        if file not in ("resolution", "w1_slave"):
            raise FileNotFoundError(file)
        if text.strip() in ("9", "10", "11", "12"):
            self.resolution = int(text)

    def scratchpad(self) -> bytes:
        byte_6 = None
        raw = math.floor(float(self._quantities["temperature"]) * 16 + 0.5)
        if self.conversions_lost > 0:
            self.conversions_lost -= 1
            raw, byte_6 = POWER_ON, 0x0C
        # Below the resolution the sheet calls the bits undefined.
        raw |= (1 << 12 - self.resolution) - 1
        config = (self.resolution - 9) << 5 | 0x1F
        if byte_6 is None:
            byte_6 = 0x10 - (raw & 0x0F)
        data = raw.to_bytes(2, "little", signed=True) + bytes((0x4B, 0x46, config, 0xFF, byte_6, 0x10))
        return data + bytes((_crc(data),))


def _crc(data: bytes) -> int:
    """Bit by bit as the sheet's shift register (figure 11)."""
    register = [0] * 8
    for byte in data:
        for bit in range(8):
            feedback = register[7] ^ (byte >> bit & 1)
            register = [feedback, *register[:7]]
            register[4] ^= feedback
            register[5] ^= feedback
    return sum(bit << 7 - place for place, bit in enumerate(register))
