"""One client of a board: who it is, what it may call, and what it holds until it goes."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from device_agent.errors import BusError
from device_agent.testing.board.gpio import GpioMedium
from device_agent.testing.board.i2c import I2cMedium
from device_agent.testing.board.mailbox import Mailbox
from device_agent.testing.board.mqtt import MqttMedium
from device_agent.testing.board.serial import SerialMedium

if TYPE_CHECKING:
    from device_agent.testing.board.core import Board
    from device_agent.testing.board.medium import Medium


class Session:
    """Calls by name, so that a socket and a direct user go the same way. Used by one thread at a time."""

    def __init__(self, board: "Board", by: str, alive: Callable[[], bool] | None = None) -> None:
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
            kind, act = _BUS_OPS[op]
            if kind and medium.kind != kind:
                raise BusError(f"bus {bus} on the simulated board is of kind {medium.kind}, not {kind}")
            self._used.add(bus)
            return act(self, medium, *rest)

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

    def _input(
        self, medium: GpioMedium, line: int | str, bias: str, debounce_s: float, edges: bool
    ) -> tuple[str, bool]:
        claim = medium.input(self, line, bias, debounce_s, edges)
        self.mailbox = claim.mailbox
        return claim.id, claim.debounced

    def _listen(self, medium: SerialMedium) -> None:
        self.mailbox = medium.listen(self)

    def _subscribe(self, medium: MqttMedium, filters: list[str]) -> None:
        self.mailbox = medium.subscribe(self, filters)


def _transfer(who: Session, medium: "Medium", address: int, write: bytes, read_size: int) -> bytes:
    return cast(I2cMedium, medium).transfer(who, address, write, read_size)


# Every call of a bus: the kind it belongs to ("" for any), and what it does there.
_BUS_OPS: dict[str, tuple[str, Callable[..., Any]]] = {
    "open": ("", lambda who, medium: medium.open(who)),
    "check": ("", lambda who, medium: medium.enter(who)),
    "i2c.transfer": ("i2c", _transfer),
    "i2c.present": ("i2c", lambda who, medium, *args: medium.present(who, *args)),
    "gpio.input": ("gpio", Session._input),
    "gpio.output": ("gpio", lambda who, medium, *args: medium.output(who, *args).id),
    "gpio.attach": ("gpio", lambda who, medium, *args: medium.attach(who, *args).level),
    "gpio.write": ("gpio", lambda who, medium, *args: medium.write(who, *args)),
    "gpio.read": ("gpio", lambda who, medium, *args: medium.read(who, *args)),
    "gpio.pwm": ("gpio", lambda who, medium, *args: medium.pwm(who, *args).id),
    "gpio.pwm_write": ("gpio", lambda who, medium, *args: medium.pwm_write(who, *args)),
    "gpio.pwm_read": ("gpio", lambda who, medium, *args: medium.pwm_read(who, *args)),
    "serial.write": ("serial", lambda who, medium, *args: medium.write(who, *args)),
    "serial.read": ("serial", lambda who, medium, *args: medium.read(who, *args)),
    "serial.discard": ("serial", lambda who, medium: medium.discard_input(who)),
    "serial.listen": ("serial", Session._listen),
    "spi.transfer": ("spi", lambda who, medium, *args: medium.transfer(who, *args)),
    "w1.devices": ("w1", lambda who, medium: medium.devices(who)),
    "w1.read": ("w1", lambda who, medium, *args: medium.read(who, *args)),
    "w1.write": ("w1", lambda who, medium, *args: medium.write(who, *args)),
    "mqtt.publish": ("mqtt", lambda who, medium, *args: medium.publish(who, *args)),
    "mqtt.subscribe": ("mqtt", Session._subscribe),
}

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
