"""What all simulated buses share: the far end's chips, faults, and how a call enters a bus."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from device_agent.driver import Driver, DriverConfig
from device_agent.errors import BusGone, BusTimeout
from device_agent.testing.board.faults import DEVICE_KINDS, KINDS, SLOW_S, STUCK_LIMIT_S, Fault
from device_agent.testing.chips import Chip, Physical

if TYPE_CHECKING:
    from device_agent.testing.board.core import Board


class User(Protocol):
    """Who calls: a client of the board, as the record and the media know it."""

    by: str
    generations: dict[str, int]

    def alive(self) -> bool:
        """Whether the client is still there; a stuck call is let go when it is not."""


@dataclass(slots=True)
class Placed:
    """A configured device on a bus, with its chip (None: a bare far end)."""

    name: str
    driver: type[Driver[Any, Any]]
    config: DriverConfig
    chip: Chip | None


class Medium:
    """One simulated bus. Every method is called with the board's lock held."""

    kind: ClassVar[str] = ""

    def __init__(self, board: "Board", name: str, placed: Mapping[str, Placed], seed: int = 0) -> None:
        self.board = board
        self.name = name
        self.placed = dict(placed)
        self.faults: dict[tuple[str, str | None], Fault] = {}
        self.chance = random.Random(seed)
        self.generation = 0
        """Grows with each unplugging: what was opened before is dead, even after the return."""
        self._held_back: dict[tuple[str, str], Physical] = {}
        self._outputs = {
            device.name: device.chip.outputs() for device in placed.values() if device.chip is not None
        }

    # -- faults -------------------------------------------------------------------------------------------

    def has(self, kind: str, device: str | None = None) -> bool:
        """Whether the whole bus, or this device on it, has that fault."""
        return bool(self.faults) and ((kind, None) in self.faults or (kind, device) in self.faults)

    def fault(self, kind: str, device: str | None, until_s: float | None) -> Fault | None:
        """Returns what was made, None for `replug`. Raises ValueError that names what this bus knows."""
        if kind not in KINDS[self.kind]:
            known = ", ".join(KINDS[self.kind])
            raise ValueError(f"a bus of kind {self.kind} cannot be {kind!r}; {self.name} knows: {known}")
        if device is not None and device not in self.placed:
            known = ", ".join(self.placed) or "none"
            raise ValueError(f"there is no device {device!r} on bus {self.name}; there are: {known}")
        if device is not None and kind not in DEVICE_KINDS[self.kind]:
            raise ValueError(
                f"{kind!r} befalls all of bus {self.name}, not {device} alone: leave the device out"
            )
        if kind == "replug":
            self.mend("unplug", device)
            return None
        made = self.faults[kind, device] = Fault(kind, device, until_s)
        if kind == "unplug" and device is None:
            self.generation += 1
            self.unplugged(f"bus {self.name} was unplugged")
        elif kind == "unplug" and device is not None:
            self.device_unplugged(self.placed[device])
        return made

    def mend(self, kind: str, device: str | None) -> None:
        if self.faults.pop((kind, device), None) is None:
            return
        if kind == "unplug":
            for placed in self.placed.values():
                if device in (None, placed.name):
                    self.reset(placed)
        if kind == "frozen":
            self.thaw()

    def heal(self) -> None:
        for kind, device in list(self.faults):
            self.mend(kind, device)

    def unplugged(self, reason: str) -> None:
        """The medium has just gone: whoever listens must learn it."""

    def device_unplugged(self, placed: Placed) -> None:
        """One device has just gone."""

    # -- chips --------------------------------------------------------------------------------------------

    def set(self, placed: Placed, quantity: str, value: Physical) -> None:
        """Change the world around a chip. A frozen chip sees it when it thaws."""
        chip = placed.chip
        if chip is None:
            raise ValueError(f"device {placed.name} has no simulated chip to set {quantity!r} on")
        if self.has("frozen", placed.name) and quantity in chip.quantities():
            self._held_back[placed.name, quantity] = value
            return
        chip.set(quantity, value)
        self.after(placed, self.board.now_s())

    def thaw(self) -> None:
        held_back, self._held_back = self._held_back, {}
        for (device, quantity), value in held_back.items():
            self.set(self.placed[device], quantity, value)

    def reset(self, placed: Placed) -> None:
        """The chip loses its power for a moment."""
        if placed.chip is not None:
            placed.chip.reset()
            self.after(placed, self.board.now_s(), by="reset")

    def after(self, placed: Placed, at_s: float, by: str = "stimulus") -> None:
        """A chip has changed: what it makes happen is recorded as done by `by`; media add what follows."""
        if placed.chip is None:
            return
        outputs = placed.chip.outputs()
        before = self._outputs.get(placed.name, {})
        if outputs != before:
            self._outputs[placed.name] = outputs
            for point, value in outputs.items():
                if before.get(point) != value:
                    self.board.record.add(at_s, self.name, by, device=placed.name, point=point, value=value)

    # -- calls --------------------------------------------------------------------------------------------

    def open(self, user: User) -> None:
        """Take the medium. Raises BusGone, BusHeld."""
        if self.has("unplug"):
            raise BusGone(f"bus {self.name} is unplugged")
        user.generations[self.name] = self.generation

    def enter(self, user: User, device: str | None = None) -> None:
        """Every call begins here. Raises BusGone; waits where the bus is stuck or slow."""
        self._check_there(user)
        if not self.faults:
            return
        if self.has("stuck", device):
            freed = self.board.wait(
                lambda: not self.has("stuck", device), STUCK_LIMIT_S, user.alive, real_time=True
            )
            if not freed:
                raise BusTimeout(f"bus {self.name} is stuck")
        if self.has("slow", device):
            self.board.wait(lambda: False, SLOW_S, user.alive)
        self._check_there(user)

    def _check_there(self, user: User) -> None:
        if self.has("unplug"):
            raise BusGone(f"bus {self.name} is unplugged")
        if user.generations.setdefault(self.name, self.generation) != self.generation:
            raise BusGone(f"bus {self.name} was unplugged since it was opened; open it again")

    def leave(self, user: User) -> None:
        """A client has gone: what it held is free."""

    def show(self) -> dict[str, Any]:
        """The state for `board show`."""
        return {"kind": self.kind, "faults": [_fault_shown(fault) for fault in self.faults.values()]}


def _fault_shown(fault: Fault) -> dict[str, Any]:
    shown: dict[str, Any] = {"kind": fault.kind}
    if fault.device is not None:
        shown["device"] = fault.device
    if fault.until_s is not None:
        shown["until_s"] = fault.until_s
    return shown
