"""How a simulated handle reaches its board: directly, or over the Unix socket of the board.

A link is one client with what it holds. Closing it releases everything before `close` returns. On the
socket: four bytes of length, big-endian, then one msgpack value.
"""

import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import msgpack

from device_agent import errors
from device_agent.errors import BusError, BusGone, BusTimeout
from device_agent.testing.board.core import Board
from device_agent.testing.board.gpio import LineClaim
from device_agent.testing.board.medium import Mailbox
from device_agent.testing.board.mqtt import MqttMedium
from device_agent.testing.board.serial import SerialMedium

_LENGTH = struct.Struct(">I")
RECEIVE_SIZE = 1 << 16


def framed(value: Any) -> bytes:
    """One value as it goes over the socket."""
    body: bytes = msgpack.packb(value)
    return _LENGTH.pack(len(body)) + body


class BoardFrames:
    """Whole values over a stream socket. `receive` blocks as the socket does."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._buffer = bytearray()

    def send(self, value: Any) -> None:
        self.sock.sendall(framed(value))

    def receive(self) -> Any:
        """The next value. Raises EOFError when the other side has gone."""
        while True:
            whole, value = self.take()
            if whole:
                return value
            self.fill()

    def fill(self) -> None:
        """One `recv` into the buffer. Raises EOFError, or what the socket raises."""
        data = self.sock.recv(RECEIVE_SIZE)
        if not data:
            raise EOFError
        self._buffer += data

    def take(self) -> tuple[bool, Any]:
        """A value that is here already; (False, None) if none is whole yet."""
        if len(self._buffer) < _LENGTH.size:
            return False, None
        end = _LENGTH.size + _LENGTH.unpack_from(self._buffer)[0]
        if len(self._buffer) < end:
            return False, None
        value = msgpack.unpackb(bytes(self._buffer[_LENGTH.size : end]), use_list=False, strict_map_key=False)
        del self._buffer[:end]
        return True, value


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


# Longer than a board keeps a stuck call; then the board process itself has stopped.
CALL_LIMIT_S = 75
CLOSE_LIMIT_S = 1

Chunks = tuple[list[Any], int]
"""What waited, and how many chunks before it were lost."""


class BoardLink(Protocol):
    """One client of a board."""

    def call(self, op: str, *args: Any) -> Any:
        """Raises what the board raised, or BusGone when no board is there."""

    def listen(self, op: str, *args: Any) -> Any:
        """Like `call`; from then on this link is a source, and takes no further calls."""

    def fileno(self) -> int:
        """A listening link's is readable while chunks wait; any link's keeps its claims while open."""

    def drain(self) -> Chunks:
        """What a listening link has got. Raises BusGone when nothing more can come."""

    def close(self) -> None: ...


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


class SocketLink:
    """A client over the board's socket. A duplicate of its descriptor in another process keeps it alive."""

    def __init__(self, path: Path, by: str) -> None:
        """Raises BusGone when no board answers there."""
        self._path = path
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # The kernel's own limits: a blocking socket with them needs no poll before each recv.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", CALL_LIMIT_S, 0))
        try:
            sock.connect(str(path))
        except OSError as error:
            sock.close()
            raise BusGone(
                f"no simulated board answers at {path} ({error.strerror or error}); start one with "
                "`device-agent board run`"
            ) from None
        self._frames = BoardFrames(sock)
        self._closed = False
        self.call("hello", by)

    def call(self, op: str, *args: Any) -> Any:
        if self._closed:
            raise BusGone(f"the connection to the simulated board at {self._path} is closed")
        try:
            self._frames.send((op, *args))
            ok, *answer = self._frames.receive()
        except BlockingIOError:
            raise BusTimeout(
                f"the simulated board at {self._path} did not answer in {CALL_LIMIT_S} s"
            ) from None
        except (OSError, EOFError):
            raise BusGone(f"the simulated board at {self._path} has gone") from None
        if ok:
            return answer[0]
        name, message = answer
        raise _raised(name)(message)

    def listen(self, op: str, *args: Any) -> Any:
        answer = self.call("listen", op, *args)
        self._frames.sock.setblocking(False)
        return answer

    def fileno(self) -> int:
        return self._frames.sock.fileno()

    def drain(self) -> Chunks:
        if self._closed:
            return [], 0
        chunks: list[Any] = []
        lost = 0
        try:
            while True:
                whole, frame = self._frames.take()
                if not whole:
                    self._frames.fill()
                    continue
                if isinstance(frame, str):
                    raise BusGone(frame)
                lost += frame[1]
                chunks.extend(frame[0])
        except BlockingIOError:
            return chunks, lost
        except BusGone:
            raise  # it is an OSError too, and says what has gone
        except (OSError, EOFError):
            if chunks:
                return chunks, lost
            raise BusGone(f"the simulated board at {self._path} has gone") from None

    def detach(self) -> int:
        """Give the connection away: its descriptor, which is the caller's from now on."""
        self._closed = True
        return self._frames.sock.detach()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        sock = self._frames.sock
        try:
            # The board closes its side once everything is released: after that a new claim succeeds.
            sock.shutdown(socket.SHUT_WR)
            sock.setblocking(True)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", CLOSE_LIMIT_S, 0))
            while sock.recv(1 << 16):
                pass
        except OSError:
            pass  # the board has gone already, or is stopped: there is nothing to wait for
        finally:
            sock.close()


def connect(board: Board | Path | str, by: str) -> BoardLink:
    """A link to a board object, or to the one at a socket's path. Raises BusGone."""
    return LocalLink(board, by) if isinstance(board, Board) else SocketLink(Path(board), by)


def _raised(name: str) -> type[Exception]:
    kind = getattr(errors, name, ValueError)
    return kind if isinstance(kind, type) and issubclass(kind, Exception) else ValueError
