"""Simulated 1-Wire: sensors as the kernel lists them. A silent one has its folder still, and empty files."""

from collections.abc import Callable
from typing import ClassVar, TypeVar

from device_agent.errors import NoAnswer
from device_agent.testing.board.medium import Medium, Placed, User
from device_agent.testing.chips import OneWireChip

T = TypeVar("T")


class OneWireMedium(Medium):
    """Sensors by their id."""

    kind: ClassVar[str] = "w1"

    def devices(self, user: User) -> list[str]:
        self.enter(user)
        return sorted(chip.device for placed, chip in self._chips() if not self.has("unplug", placed.name))

    def read(self, user: User, device: str, file: str) -> str:
        placed, chip = self._answering(user, device)
        if self.has("nack", placed.name):
            return ""
        text, takes_s = self._file(lambda: chip.read(file), device, file)
        if takes_s > 0:
            self.board.wait(lambda: False, takes_s, user.alive)
            self._answering(user, device)
        noisy = self.has("noise", placed.name) and self.chance.random() < 0.5
        # The kernel sees the wrong checksum itself, and says so.
        return text.replace(" YES", " NO") if noisy or self.has("corrupt", placed.name) else text

    def write(self, user: User, device: str, file: str, text: str) -> None:
        placed, chip = self._answering(user, device)
        if not self.has("nack", placed.name):
            self._file(lambda: chip.write(file, text), device, file)
            self.after(placed, self.board.now_s(), user.by)

    def _chips(self) -> list[tuple[Placed, OneWireChip]]:
        return [(p, p.chip) for p in self.placed.values() if isinstance(p.chip, OneWireChip)]

    def _answering(self, user: User, device: str) -> tuple[Placed, OneWireChip]:
        found = next(((p, chip) for p, chip in self._chips() if chip.device == device), None)
        self.enter(user, found[0].name if found else None)
        if found is None or self.has("unplug", found[0].name):
            raise NoAnswer(f"there is no sensor {device} on bus {self.name}")
        return found

    def _file(self, use: Callable[[], T], device: str, file: str) -> T:
        try:
            return use()
        except FileNotFoundError:
            raise NoAnswer(f"sensor {device} on bus {self.name} has no file {file!r}") from None
