"""A BH1750FVI by its technical note: one-time and continuous measurements, MTreg, a ceiling at full scale."""

from device_agent.testing.chips import I2cChip, Nack

FULL_SCALE = 0xFFFF
# By the last bits of the command: half lux a count in mode 2; typical times
COUNTS = {0b00: 1.2, 0b01: 2.4, 0b11: 1.2}
SECONDS = {0b00: 0.120, 0b01: 0.120, 0b11: 0.016}


class SimulatedBh1750(I2cChip):
    """Quantity: illuminance (lx)."""

    def __init__(self, address: int = 0x23) -> None:
        super().__init__({"illuminance": 320.0})
        self.address = address
        self.reset()

    def reset(self) -> None:
        self.powered = False
        self.mtreg = 69
        self._data = 0
        self._mode: int | None = None
        self._once = False
        self._done_s = 0.0

    def transfer(self, write: bytes, read_size: int) -> bytes:
        self._finish()
        for command in write:
            self._command(command)
        return self._data.to_bytes(2, "big")[:read_size].ljust(read_size, b"\xff") if read_size else b""

    def _command(self, command: int) -> None:
        if command in (0x00, 0x01):
            self.powered = command == 0x01
            self._mode = None
        elif command == 0x07:
            self._data = 0 if self.powered else self._data
        elif command >> 3 == 0b01000:
            self.mtreg = self.mtreg & 0x1F | (command & 0b111) << 5
        elif command >> 5 == 0b011:
            self.mtreg = self.mtreg & 0xE0 | command & 0x1F
        elif command >> 4 in (1, 2) and command & 0xF in COUNTS:
            self.powered, self._mode, self._once = True, command & 0xF, command >> 4 == 2
            self._done_s = self.now_s() + self._period_s()
        else:
            raise Nack

    def _period_s(self) -> float:
        return 0.0 if self._mode is None else SECONDS[self._mode] * self.mtreg / 69

    def _finish(self) -> None:
        if self._mode is None or self.now_s() < self._done_s:
            return
        counts = float(self._quantities["illuminance"]) * COUNTS[self._mode] * self.mtreg / 69
        self._data = min(FULL_SCALE, max(0, round(counts)))
        if self._once:
            self.powered, self._mode = False, None
        else:
            self._done_s = self.now_s() + self._period_s()
