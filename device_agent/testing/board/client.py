"""A client of a board in the board's own process: what it holds, and what it may call."""

import os
from collections.abc import Callable
from typing import Any

from device_agent.errors import BusError
from device_agent.testing.board.core import Board
from device_agent.testing.board.gpio import LineClaim
from device_agent.testing.board.link import Chunks
from device_agent.testing.board.medium import Mailbox
from device_agent.testing.board.mqtt import MqttMedium
from device_agent.testing.board.serial import SerialMedium


class BoardClient:
    """Calls by name, so that a socket and a direct user go the same way. Used by one thread at a time."""

    def __init__(self, board: Board, by: str, alive: Callable[[], bool] | None = None) -> None:
        self.by = by
        self.generations: dict[str, int] = {}
        self.mailbox: Mailbox | None = None
        self._board = board
        self._alive = alive
        self._used: set[str] = set()
        self._ended = False

    def alive(self) -> bool:
        return not self._ended and (self._alive is None or self._alive())

    def call(self, op: str, *args: Any) -> Any:
        """Raises BusError of any kind, or ValueError for what does not exist."""
        with self._board.lock:
            if op in _BOARD_OPS:
                return _BOARD_OPS[op](self._board, *args)
            if op not in _BUS_OPS:
                raise ValueError(f"a board knows no call {op!r}")
            bus, *rest = args
            medium = self._board.media.get(bus)
            if medium is None:
                raise BusError(
                    f"there is no bus {bus!r} on the simulated board; is its configuration another one?"
                )
            kind, _, name = op.rpartition(".")
            if kind and medium.kind != kind:
                raise BusError(f"bus {bus} on the simulated board is of kind {medium.kind}, not {kind}")
            self._used.add(bus)
            return self._kept(getattr(medium, name)(self, *rest))

    def _kept(self, result: Any) -> Any:
        """The answer to a call: a mailbox stays here, a claim is returned as its id."""
        if isinstance(result, Mailbox):
            self.mailbox, result = result, None
        if isinstance(result, LineClaim):
            self.mailbox, result = result.mailbox or self.mailbox, result.id
        return result

    def close(self) -> None:
        """The client has gone: everything it held is free. May be called twice."""
        self._ended = True
        with self._board.lock:
            for bus in self._used:
                medium = self._board.media[bus]
                if self.mailbox is not None and isinstance(medium, SerialMedium | MqttMedium):
                    medium.unlisten(self.mailbox)
                medium.leave(self)
            self._used.clear()
            if self.mailbox is not None:
                self.mailbox.close()


# Every call of a bus: the kind it belongs to (none: any), and the method of its medium.
_BUS_OPS = frozenset(
    {"open", "enter"}
    | {"i2c.transfer", "i2c.present", "spi.transfer", "w1.devices", "w1.read", "w1.write"}
    | {"gpio.input", "gpio.output", "gpio.hold", "gpio.attach", "gpio.write", "gpio.read"}
    | {"gpio.pwm", "gpio.pwm_write", "gpio.pwm_read"}
    | {"serial.write", "serial.read", "serial.discard_input", "serial.listen"}
    | {"mqtt.publish", "mqtt.subscribe"}
)

# What the command line does to the world around the board.
_BOARD_OPS: dict[str, Callable[..., Any]] = {
    "show": lambda board: board.show(),
    "pin": lambda board, bus, line, level: board.pin(bus, line, level),
    "set": lambda board, device, quantities: board.set(device, **quantities),
    "reset": lambda board, device: board.reset(device),
    "feed": lambda board, bus, data: board.feed(bus, data),
    "sent": lambda board, bus: board.sent(bus),
    "say": lambda board, bus, topic, payload, retain: board.say(bus, topic, payload, retain=retain),
    "published": lambda board, bus: board.published(bus),
    "fault": lambda board, bus, kind, for_s, device: board.fault(bus, kind, for_s=for_s, device=device),
    "heal": lambda board, bus: board.heal(bus),
}


class LocalLink:
    """A client in the board's own process."""

    def __init__(self, board: Board, by: str) -> None:
        self._session = BoardClient(board, by)
        self._fd = -1

    def call(self, op: str, *args: Any) -> Any:
        return self._session.call(op, *args)

    def listen(self, op: str, *args: Any) -> Any:
        return self._session.call(op, *args)

    def _mailbox(self) -> Mailbox | None:
        return self._session.mailbox

    def fileno(self) -> int:
        mailbox = self._mailbox()
        if mailbox is not None:
            return mailbox.fileno()
        if self._fd < 0:
            # In one process there is nothing to keep alive; the caller still gets a descriptor of its own.
            self._fd = os.eventfd(0, os.EFD_CLOEXEC)
        return self._fd

    def drain(self) -> Chunks:
        mailbox = self._mailbox()
        if mailbox is None:
            return [], 0
        return mailbox.drain(), mailbox.take_lost()

    def close(self) -> None:
        self._session.close()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
