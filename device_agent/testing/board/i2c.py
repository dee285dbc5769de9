"""A simulated I2C bus: chips by address."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from device_agent.driver import Actuator
from device_agent.errors import NoAnswer
from device_agent.testing.board.faults import corrupted, flipped
from device_agent.testing.board.medium import Medium, Placed, User
from device_agent.testing.board.record import as_text
from device_agent.testing.chips import I2cChip, Nack

if TYPE_CHECKING:
    from device_agent.testing.board.core import Board


class I2cMedium(Medium):
    """Transactions go to the chip at their address; nobody there is a NACK, as on the wire."""

    kind: ClassVar[str] = "i2c"

    def __init__(self, board: "Board", name: str, placed: Mapping[str, Placed], seed: int = 0) -> None:
        super().__init__(board, name, placed, seed)
        self._by_address: dict[int, tuple[Placed, I2cChip]] = {}
        for device in self.placed.values():
            if isinstance(device.chip, I2cChip):
                self._by_address[_address(device)] = (device, device.chip)

    def transfer(self, user: User, address: int, write: bytes, read_size: int) -> bytes:
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

    def present(self, user: User, address: int) -> bool:
        try:
            return self._answering(user, address)[1].present()
        except NoAnswer:
            return False

    def _answering(self, user: User, address: int) -> tuple[Placed, I2cChip]:
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
