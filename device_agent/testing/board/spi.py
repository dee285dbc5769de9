"""A simulated chip select: one chip, or nobody."""

from typing import ClassVar

from device_agent.driver import Actuator
from device_agent.testing.board.faults import corrupted, flipped
from device_agent.testing.board.medium import Medium, Placed, User
from device_agent.testing.board.record import as_text
from device_agent.testing.chips import SpiChip


class SpiMedium(Medium):
    """What nobody drives reads as ones."""

    kind: ClassVar[str] = "spi"

    def transfer(self, user: User, data: bytes, speed_hz: int) -> bytes:
        chips = ((placed, placed.chip) for placed in self.placed.values())
        found = next(((placed, chip) for placed, chip in chips if isinstance(chip, SpiChip)), None)
        self.enter(user, found[0].name if found else None)
        if found is None or self._silent(found[0]):
            return b"\xff" * len(data)
        placed, chip = found
        answer = chip.transfer(data, speed_hz)
        now_s = self.board.now_s()
        if issubclass(placed.driver, Actuator):
            self.board.record.add(now_s, self.name, user.by, device=placed.name, bytes=as_text(data))
        self.after(placed, now_s, user.by)
        if self.has("corrupt", placed.name):
            answer = corrupted(answer, self.chance)
        if self.has("noise", placed.name):
            answer = flipped(answer, self.chance)
        return answer

    def _silent(self, placed: Placed) -> bool:
        return self.has("nack", placed.name) or self.has("unplug", placed.name)
