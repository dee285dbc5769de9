"""A TMP117 by its data sheet: continuous and one-shot conversions, -256 degrees until the first has ended."""

from device_agent.testing.chips import RegisterChip

TEMPERATURE, CONFIGURATION, OFFSET, DEVICE_ID = 0x00, 0x01, 0x07, 0x0F
DATA_READY, SOFT_RESET, READ_ONLY = 1 << 13, 1 << 1, 0xF000
CONVERSION_S = 0.0155
AVERAGES = (1, 8, 32, 64)
CYCLE_S = (0.0155, 0.125, 0.25, 0.5, 1, 4, 8, 16)
CONTINUOUS, SHUTDOWN, ONE_SHOT = 0b00, 0b01, 0b11


class SimulatedTmp117(RegisterChip):
    """Quantity: temperature (Cel)."""

    def __init__(self, address: int = 0x48) -> None:
        self._due_s: float | None = None
        super().__init__(
            {
                TEMPERATURE: b"\x80\x00",
                CONFIGURATION: b"\x02\x20",
                0x02: b"\x60\x00",
                0x03: b"\x80\x00",
                OFFSET: b"\x00\x00",
                DEVICE_ID: b"\x01\x17",
            },
            {"temperature": 21.5},
            register_bytes=2,
            auto_increment=False,
            read_only=(TEMPERATURE, DEVICE_ID),
        )
        self.address = address

    def reset(self) -> None:
        super().reset()
        self._due_s = None  # the first conversion begins with the first access: the clock is not there yet

    def transfer(self, write: bytes, read_size: int) -> bytes:
        self._convert()
        return super().transfer(write, read_size)

    def on_write(self, register: int, value: int) -> int:
        if register != CONFIGURATION:
            return value
        if value & SOFT_RESET:
            self.reset()
            return self[CONFIGURATION]
        self._due_s = self.now_s() + self._first_s(value)
        return self[CONFIGURATION] & READ_ONLY & ~DATA_READY | value & ~READ_ONLY

    def on_read(self, register: int, value: int) -> int:
        if register in (TEMPERATURE, CONFIGURATION):
            self[CONFIGURATION] &= ~DATA_READY
        return value

    @staticmethod
    def _first_s(configuration: int) -> float:
        return CONVERSION_S * AVERAGES[configuration >> 5 & 3]

    def _convert(self) -> None:
        now_s, configuration = self.now_s(), self[CONFIGURATION]
        mode = configuration >> 10 & 3
        if self._due_s is None:
            self._due_s = now_s + self._first_s(configuration)
        if mode == SHUTDOWN or now_s < self._due_s:
            return
        raw = round(float(self._quantities["temperature"]) * 128) + self[OFFSET]
        self[TEMPERATURE] = min(0x7FFF, max(-0x8000, raw))
        if mode == ONE_SHOT:
            configuration = configuration & ~(0b11 << 10) | SHUTDOWN << 10
        self[CONFIGURATION] = configuration | DATA_READY
        self._due_s = now_s + max(CYCLE_S[configuration >> 7 & 7], self._first_s(configuration))
