"""What simulated Sensirion chips share: an answer is ready after its time and readable once, else a NACK."""

from typing import Any

from device_agent.testing.chips import I2cChip, Nack


def crc8(data: bytes) -> int:
    """By polynomial division over the whole message; the driver goes byte by byte."""
    bits = int.from_bytes(data, "big") << 8
    size = len(data) * 8
    bits ^= 0xFF << size
    for position in range(size + 7, 7, -1):
        if bits >> position & 1:
            bits ^= 0x131 << position - 8
    return bits


def with_crc(*words: int) -> bytes:
    return b"".join(word.to_bytes(2, "big") + bytes((crc8(word.to_bytes(2, "big")),)) for word in words)


class SimulatedSensirion(I2cChip):
    """Quantities: temperature (Cel), humidity (%)."""

    def __init__(self, address: int) -> None:
        super().__init__({"temperature": 21.5, "humidity": 45.0})
        self.address = address
        self._answer: bytes | None = None
        self._ready_s = 0.0
        self.commands: list[bytes] = []
        """What the host sent since power-on."""

    def reset(self) -> None:
        self._answer = None
        self.commands = []

    def transfer(self, write: bytes, read_size: int) -> bytes:
        if write:
            self.commands.append(write)
            self._answer = None
            self.command(write)
        return self._give(read_size) if read_size else b""

    def command(self, code: bytes) -> None:
        """Carry out one command. Raises Nack for an unknown command."""
        raise Nack

    def answer(self, data: bytes, after_s: float) -> None:
        """Have `data` ready in that time."""
        self._answer, self._ready_s = data, self.now_s() + after_s

    def measurement(self, humidity_low: float, humidity_span: float) -> bytes:
        """The present quantities as two words."""
        now: dict[str, Any] = self.quantities()
        return with_crc(
            _clamped((now["temperature"] + 45) / 175),
            _clamped((now["humidity"] - humidity_low) / humidity_span),
        )

    def _give(self, size: int) -> bytes:
        if self._answer is None or self.now_s() < self._ready_s:
            raise Nack
        data, self._answer = self._answer, None
        return data[:size].ljust(size, b"\xff")


def _clamped(share: float) -> int:
    return min(0xFFFF, max(0, round(share * 0xFFFF)))
