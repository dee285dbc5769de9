"""Simulated buses on which a chip answers when it is asked: I2C, SPI, 1-Wire."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from device_agent.driver import Actuator
from device_agent.errors import NoAnswer
from device_agent.testing.board.medium import BoardUser, Medium, Placed, as_text, corrupted, flipped
from device_agent.testing.chips import I2cChip, Nack, OneWireChip, SpiChip

if TYPE_CHECKING:
    from device_agent.testing.board.core import Board


class I2cMedium(Medium):
    """Transactions go to the chip at their address; without one they end with NACK, as on the wire."""

    kind: ClassVar[str] = "i2c"

    def __init__(self, board: "Board", name: str, placed: Mapping[str, Placed], seed: int = 0) -> None:
        super().__init__(board, name, placed, seed)
        self._by_address: dict[int, tuple[Placed, I2cChip]] = {}
        for device in self.placed.values():
            if isinstance(device.chip, I2cChip):
                self._by_address[_address(device)] = (device, device.chip)

    def transfer(self, user: BoardUser, address: int, write: bytes, read_size: int) -> bytes:
        placed, chip = self._answering(user, address)
        try:
            data = chip.transfer(write, read_size)
        except Nack:
            raise NoAnswer(f"no chip answers at address {address:#04x} on bus {self.name}") from None
        if write:
            now_s = self.board.now_s()
            if issubclass(placed.driver, Actuator) and len(write) > 1:
                self.board.record.add(
                    now_s, self.name, user.by, device=placed.name, address=address, bytes=as_text(write)
                )
            self.after(placed, now_s, user.by)
        if self.faults and data:
            if self.has("corrupt", placed.name):
                data = corrupted(data, self.chance)
            if self.has("noise", placed.name):
                data = flipped(data, self.chance)
        return data

    def present(self, user: BoardUser, address: int) -> bool:
        try:
            return self._answering(user, address)[1].present()
        except NoAnswer:
            return False

    def _answering(self, user: BoardUser, address: int) -> tuple[Placed, I2cChip]:
        found = self._by_address.get(address)
        self.enter(user, found[0].name if found else None)
        if found is None or self.has("nack", found[0].name) or self.has("unplug", found[0].name):
            raise NoAnswer(f"no chip answers at address {address:#04x} on bus {self.name}")
        return found

    def show(self) -> dict[str, Any]:
        addresses = {f"{address:#04x}": placed.name for address, (placed, _) in self._by_address.items()}
        return super().show() | {"addresses": addresses}


def _address(placed: Placed) -> int:
    address = getattr(placed.config, "address", None)
    if address is None and isinstance(placed.chip, I2cChip):
        address = placed.chip.address
    if address is None:
        raise ValueError(
            f"device {placed.name}: neither its configuration nor its simulated chip names an `address`"
        )
    return int(address)


class SpiMedium(Medium):
    """An SPI chip select; without a chip the input reads as ones."""

    kind: ClassVar[str] = "spi"

    def transfer(self, user: BoardUser, data: bytes, speed_hz: int) -> bytes:
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


T = TypeVar("T")


class OneWireMedium(Medium):
    """Sensors by their id."""

    kind: ClassVar[str] = "w1"

    def devices(self, user: BoardUser) -> list[str]:
        self.enter(user)
        return sorted(chip.device for placed, chip in self._chips() if not self.has("unplug", placed.name))

    def read(self, user: BoardUser, device: str, file: str) -> str:
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

    def write(self, user: BoardUser, device: str, file: str, text: str) -> None:
        placed, chip = self._answering(user, device)
        if not self.has("nack", placed.name):
            self._file(lambda: chip.write(file, text), device, file)
            self.after(placed, self.board.now_s(), user.by)

    def _chips(self) -> list[tuple[Placed, OneWireChip]]:
        return [(p, p.chip) for p in self.placed.values() if isinstance(p.chip, OneWireChip)]

    def _answering(self, user: BoardUser, device: str) -> tuple[Placed, OneWireChip]:
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
