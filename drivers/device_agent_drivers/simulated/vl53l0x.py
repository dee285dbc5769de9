"""A VL53L0X by its public API: pages, soft reset, SPAD memory, calibrations, single ranges.

It ranges only for a host that has done all of the initialization, as the chip does.
"""

from device_agent.testing.chips import RegisterChip

START, SEQUENCE, CLEAR, READY, RESULT, BUDGET, PAGE = 0x00, 0x01, 0x0B, 0x13, 0x14, 0x71, 0xFF
SPAD_READY, SPAD_INFO, STOP, SPADS, SOFT_RESET, MODEL = 0x783, 0x792, 0x191, 0xB0, 0xBF, 0xC0
STOP_VARIABLE = 0x3C
GOOD_SPADS = bytes.fromhex("ff0f f0ff 7f3e")
BOOT_S, CALIBRATION_S, SPAD_S = 0.0012, 0.004, 0.001
MCLK_S = 38.13e-6
VALID, NO_CALIBRATION, NO_SIGNAL = 11, 3, 4
FARTHEST_MM = 2000
SPAD_COUNT = 5


class SimulatedVl53l0x(RegisterChip):
    """Quantity: distance (m); beyond 2 m there is no signal. Registers of page n are at n << 8."""

    def __init__(self, address: int = 0x29) -> None:
        self.range_status: int | None = None
        """What the chip reports of its ranges; None: the truth."""
        self._boot_s = 0.0
        self._begin_life()
        super().__init__(
            {
                SEQUENCE: b"\xff",
                MODEL: b"\xee\xaa\x10",
                STOP: bytes((STOP_VARIABLE,)),
                SPADS: GOOD_SPADS,
                0x84: b"\x11",
                SOFT_RESET: b"\x01",
                READY: b"\0",
                RESULT: bytes(12),
            },
            {"distance": 0.5},
            address_bytes=2,
            auto_increment=True,
            read_only=(*range(MODEL, MODEL + 3), *range(READY, RESULT + 12)),
        )
        self.address = address

    def _begin_life(self) -> None:
        self._calibrated: set[int] = set()
        self._may_range = False
        self._done_s: float | None = None
        self._spads_s: float | None = None

    def reset(self) -> None:
        super().reset()
        self._begin_life()

    def transfer(self, write: bytes, read_size: int) -> bytes:
        self._finish()
        if write:
            page = 0 if write[0] == PAGE else self[PAGE]
            write = bytes((page,)) + write
        return super().transfer(write, read_size)

    def on_read(self, register: int, value: int) -> int:
        if register == MODEL and (self[SOFT_RESET] == 0 or self.now_s() < self._boot_s):
            return 0
        return value

    def on_write(self, register: int, value: int) -> int:
        if register == SOFT_RESET and value & 1 and not self[SOFT_RESET]:
            self.reset()
            self._boot_s = self.now_s() + BOOT_S
        elif register == SPAD_READY and value == 0:
            self._spads_s = self.now_s() + SPAD_S
        elif register == CLEAR and value & 1:
            self[READY] = 0
        elif register == START and value & 1:
            self._start()
            return value & ~1
        elif register == STOP:
            self._may_range = value == STOP_VARIABLE
        return value

    def _start(self) -> None:
        if self[SEQUENCE] in (0x01, 0x02):
            self._done_s = self.now_s() + CALIBRATION_S
            return
        low, high = self[BUDGET + 1], self[BUDGET]
        self._done_s = self.now_s() + ((low << high) + 1) * MCLK_S

    def _finish(self) -> None:
        now_s = self.now_s()
        if self._spads_s is not None and now_s >= self._spads_s:
            self._spads_s = None
            self[SPAD_READY] = 0x10
            self[SPAD_INFO] = 0x80 | SPAD_COUNT if self[0x794] == 0x6B else 0
        if self._done_s is None or now_s < self._done_s:
            return
        self._done_s = None
        self[READY] = 0x44
        if self[SEQUENCE] in (0x01, 0x02):
            self._calibrated.add(self[SEQUENCE])
        else:
            self._range()

    def _range(self) -> None:
        millimetres = round(float(self._quantities["distance"]) * 1000)
        status = VALID
        if not self._prepared():
            status, millimetres = NO_CALIBRATION, 0
        elif millimetres > FARTHEST_MM:
            status, millimetres = NO_SIGNAL, 8190
        if self.range_status is not None:
            status = self.range_status
        self.put(RESULT, bytes((status << 3 | 1,)) + bytes(9) + millimetres.to_bytes(2, "big"))

    def _prepared(self) -> bool:
        """Tuned, five reference SPADs on, both calibrations done, stop variable restored."""
        tuned = (self[0x46], self[0x50], self[0x70], self[0x18E]) == (0x25, 0x06, 0x04, 0x01)
        spads = sum(byte.bit_count() for byte in self.get(SPADS, 6)) == SPAD_COUNT
        return tuned and spads and self._calibrated == {0x01, 0x02} and self._may_range
