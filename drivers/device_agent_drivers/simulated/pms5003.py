"""A PMS5003 by its manual: sends by itself or on request, answers commands, can sleep."""

from device_agent.testing.chips import Physical, SerialChip
from device_agent_drivers.pms5003 import NAMES

DATA_FIRST = {"pm1": 4, "pm2_5": 7, "pm10": 8, "count_0_3": 750, "count_0_5": 220, "count_1": 40}


class SimulatedPms5003(SerialChip):
    """Quantities are the driver's points."""

    every_s = 1.0

    def __init__(self) -> None:
        world: dict[str, Physical] = {}
        for name in NAMES:
            world[name] = DATA_FIRST.get(name.removesuffix("_cf1"), 0)
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
        words = [min(0xFFFF, max(0, round(float(self._quantities[name])))) for name in NAMES]
        body = b"BM\x00\x1c" + b"".join(word.to_bytes(2, "big") for word in words) + b"\x97\x00"
        return body + sum(body).to_bytes(2, "big")

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
