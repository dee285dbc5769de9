"""An MPU-6050 by its register map: asleep after power-on, zeros while it sleeps, reset bit that clears."""

from device_agent.testing.chips import RegisterChip

CONFIG, GYRO_CONFIG, ACCEL_CONFIG, DATA, PWR_MGMT_1, PWR_MGMT_2 = 0x1A, 0x1B, 0x1C, 0x3B, 0x6B, 0x6C
WHO_AM_I = 0x75
RESET_S = 0.03
G = 9.80665
AXES = ("x", "y", "z")


class SimulatedMpu6050(RegisterChip):
    """Quantities: acceleration_x/_y/_z (m/s2), rotation_x/_y/_z (deg/s), temperature (Cel)."""

    def __init__(self, address: int = 0x68) -> None:
        self._reset_until_s = 0.0
        super().__init__(
            {CONFIG: bytes(3), PWR_MGMT_1: b"\x40\0", WHO_AM_I: b"\x68", DATA: bytes(14)},
            {
                "acceleration_x": 0.0,
                "acceleration_y": 0.0,
                "acceleration_z": G,
                "rotation_x": 0.0,
                "rotation_y": 0.0,
                "rotation_z": 0.0,
                "temperature": 21.5,
            },
            read_only=(WHO_AM_I, *range(DATA, DATA + 14)),
        )
        self.address = address

    def transfer(self, write: bytes, read_size: int) -> bytes:
        if self.now_s() >= self._reset_until_s:
            self[PWR_MGMT_1] &= ~0x80
        if read_size:
            self.put(DATA, self._data())
        return super().transfer(write, read_size)

    def on_write(self, register: int, value: int) -> int:
        if register == PWR_MGMT_1 and value & 0x80:
            self.reset()
            self._reset_until_s = self.now_s() + RESET_S
            return 0x80 | 0x40
        return value

    def _data(self) -> bytes:
        """Nothing while asleep or for an axis on standby; the end codes beyond the range."""
        if self[PWR_MGMT_1] & 0xC0:
            return bytes(14)
        world, off = self._quantities, self[PWR_MGMT_2]
        per_ms2 = (16384 >> (self[ACCEL_CONFIG] >> 3 & 3)) / G
        per_dps = 32768 / (250 << (self[GYRO_CONFIG] >> 3 & 3))
        raw = [
            0.0 if off >> 5 - i & 1 else _of(world[f"acceleration_{a}"]) * per_ms2 for i, a in enumerate(AXES)
        ]
        raw.append((_of(world["temperature"]) - 36.53) * 340)
        raw += [
            0.0 if off >> 2 - i & 1 else _of(world[f"rotation_{a}"]) * per_dps for i, a in enumerate(AXES)
        ]
        return b"".join(
            min(32767, max(-32768, round(value))).to_bytes(2, "big", signed=True) for value in raw
        )


def _of(value: float | str) -> float:
    return float(value)
