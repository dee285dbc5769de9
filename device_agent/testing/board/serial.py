"""A simulated serial port: bytes to and from the chips, or a bare far end that a test speaks for."""

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from device_agent.errors import BusHeld
from device_agent.testing.board.medium import (
    BoardUser,
    BusFault,
    Mailbox,
    Medium,
    Placed,
    as_text,
    corrupted,
    noisy,
)
from device_agent.testing.chips import SerialChip

if TYPE_CHECKING:
    from device_agent.testing.board.core import Board

# A slow reader on a real port loses bytes in silence; here the bounds are wide: losing is a test's choice.
INPUT_MAX = 1 << 20
CHUNKS_MAX = 1 << 16
SENT_KEPT = 1 << 16
# Opening the port resets a microcontroller; so long later it says what it says at its start.
BOOT_S = 0.5


class SerialMedium(Medium):
    """One port with one owner. What arrives while it is not open is lost, as in the kernel."""

    kind: ClassVar[str] = "serial"

    def __init__(self, board: "Board", name: str, placed: Mapping[str, Placed], seed: int = 0) -> None:
        super().__init__(board, name, placed, seed)
        self._owner: BoardUser | None = None
        self._input = bytearray()
        self._listener: Mailbox | None = None
        self.sent = bytearray()
        """The newest `SENT_KEPT` bytes that the host sent."""

    def fault(self, kind: str, device: str | None, until_s: float | None) -> BusFault | None:
        alone = device in self.placed and len(self.placed) == 1
        return super().fault(kind, None if alone else device, until_s)

    # -- the host's side ----------------------------------------------------------------------------------

    def open(self, user: BoardUser) -> None:
        super().open(user)
        if self._owner is not None and self._owner is not user:
            raise BusHeld(f"serial port {self.name} is held by {self._owner.by}")
        self._owner = user
        self._input.clear()
        for placed in self.placed.values():
            if isinstance(placed.chip, SerialChip) and (greeting := placed.chip.greeting()):
                self.board.at(self.board.now_s() + BOOT_S, partial(self._greet, greeting, placed.name))

    def _greet(self, greeting: bytes, device: str, due_s: float) -> None:
        self.feed(greeting, device)

    def leave(self, user: BoardUser) -> None:
        if self._owner is user:
            self._owner = None
            self._input.clear()

    def write(self, user: BoardUser, data: bytes) -> None:
        self.enter(user)
        now_s = self.board.now_s()
        self.board.record.add(now_s, self.name, user.by, bytes=as_text(data))
        self.sent += data
        del self.sent[:-SENT_KEPT]
        for placed in self.placed.values():
            if isinstance(placed.chip, SerialChip) and not self.has("unplug", placed.name):
                placed.chip.receive(data)
                self.after(placed, now_s, user.by)

    def read(self, user: BoardUser, size: int, timeout_s: float) -> bytes:
        self.enter(user)
        self.board.wait(lambda: len(self._input) >= size or self.has("unplug"), timeout_s, user.alive)
        self.enter(user)
        data = bytes(self._input[:size])
        del self._input[:size]
        return data

    def discard_input(self, user: BoardUser) -> None:
        self.enter(user)
        self._input.clear()

    def listen(self, user: BoardUser) -> Mailbox:
        self.enter(user)
        if self._listener is not None:
            raise BusHeld(f"serial port {self.name} has a listener already")
        self._listener = Mailbox(self.board.lock, CHUNKS_MAX)
        if self._input:
            self._listener.put(bytes(self._input))
            self._input.clear()
        return self._listener

    def unlisten(self, mailbox: Mailbox) -> None:
        if self._listener is mailbox:
            self._listener = None

    def unplugged(self, reason: str) -> None:
        self._owner = None
        self._input.clear()
        if self._listener is not None:
            self._listener.end(reason)
            self._listener = None
        self.board.changed.notify_all()

    # -- the far end's side -------------------------------------------------------------------------------

    def feed(self, data: bytes, device: str | None = None) -> bool:
        """Bytes from the far end; False if they are lost because the port is not open."""
        if self.has("unplug") or (self._owner is None and self._listener is None):
            return False
        if self.has("corrupt", device):
            data = corrupted(data, self.chance)
        if self.has("noise", device):
            data = noisy(data, self.chance)
        if self._listener is not None:
            self._listener.put(data)
        elif len(self._input) + len(data) <= INPUT_MAX:
            self._input += data
        self.board.changed.notify_all()
        return True

    def after(self, placed: Placed, at_s: float, by: str = "stimulus") -> None:
        super().after(placed, at_s, by)
        if not isinstance(placed.chip, SerialChip):
            return
        data = placed.chip.outgoing()
        silent = any(self.has(kind, placed.name) for kind in ("nack", "stuck", "unplug"))
        if data and not silent:
            self.feed(data, placed.name)

    def show(self) -> dict[str, Any]:
        holder = None if self._owner is None else self._owner.by
        return super().show() | {
            "holder": holder,
            "waiting_bytes": len(self._input),
            "sent": as_text(bytes(self.sent)),
        }
