"""A PMS5003 by its manual: sends by itself or on request, answers commands, can sleep."""

from device_agent.testing.chips import Physical, SerialChip
from device_agent_drivers.pms5003 import NAMES

FIRST = {
    "pm1": 4, "pm2_5": 7, "pm10": 8, "count_0_3": 750, "count_0_5": 220, "count_1": 40,
    "formaldehyde": 12, "temperature": 22.4, "humidity": 51.3,
}  # fmt: skip
WORDS = {"pms3003": 9, "pms5003st": 17}


class SimulatedPms5003(SerialChip):
    """Quantities are the points of the driver for that model."""

    every_s = 1.0

    def __init__(self, model: str = "pms5003") -> None:
        self.names = NAMES[model]
        self.words = WORDS.get(model, 13)
        world: dict[str, Physical] = {name: FIRST.get(name.removesuffix("_cf1"), 0) for name in self.names}
        super().__init__(world)
        self.active = True
        self.asleep = False
        self._received = b""

    def reset(self) -> None:
        super().reset()
        self.active = True
        self.asleep = False

    def report(self) -> bytes:
        return self.frame() if self.active and not self.asleep else b""

    def frame(self) -> bytes:
        words = [self._word(name) for name in self.names]
        words += [0] * (self.words - len(words))
        words[-1] |= 0x9700 if self.words > len(self.names) else 0  # version and error code
        body = b"BM" + (2 * self.words + 2).to_bytes(2, "big")
        body += b"".join(word.to_bytes(2, "big") for word in words)
        return body + sum(body).to_bytes(2, "big")

    def _word(self, name: str) -> int:
        value = float(self._quantities[name])
        if name == "temperature":
            return round(value * 10) & 0xFFFF
        return min(0xFFFF, max(0, round(value * 10 if name == "humidity" else value)))

    def receive(self, data: bytes) -> None:
        self._received += data
        while len(self._received) >= 7:
            frame, rest = self._received[:7], self._received[7:]
            if frame[:2] != b"BM" or sum(frame[:5]).to_bytes(2, "big") != frame[5:]:
                self._received = self._received[1:]
                continue
            self._received = rest
            self._obey(frame[2], frame[4])

    def _obey(self, command: int, argument: int) -> None:
        if command == 0xE2:
            self.say(self.frame())
            return
        if command == 0xE1:
            self.active = bool(argument)
        elif command == 0xE4:
            self.asleep = not argument
        reply = bytes((0x42, 0x4D, 0, 4, command, argument))
        self.say(reply + sum(reply).to_bytes(2, "big"))
