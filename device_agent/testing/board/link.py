"""How a simulated handle reaches its board: directly, or over the Unix socket of the board.

A link is one client with what it holds. Closing it releases everything before `close` returns. On the
socket: four bytes of length, big-endian, then one msgpack value.
"""

import socket
import struct
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import msgpack

from device_agent import errors
from device_agent.errors import BusGone, BusTimeout

if TYPE_CHECKING:
    from device_agent.testing.board.core import Board

Place: TypeAlias = "Board | Path | str"
"""Where a board is: the object itself, or the path of its socket."""
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


def connect(board: Place, by: str) -> BoardLink:
    """A link to a board object, or to the one at a socket's path. Raises BusGone."""
    if isinstance(board, Path | str):
        return SocketLink(Path(board), by)
    # Whose board is in another process needs none of it.
    from device_agent.testing.board.client import LocalLink

    return LocalLink(board, by)


def answers(path: Path, limit_s: float = 0.0) -> bool:
    """Whether a board listens at `path`; waits up to `limit_s` for it."""
    deadline_s = time.monotonic() + limit_s
    while True:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(str(path))
            except OSError:
                if time.monotonic() >= deadline_s:
                    return False
            else:
                return True
        time.sleep(0.01)


def _raised(name: str) -> type[Exception]:
    kind = getattr(errors, name, ValueError)
    return kind if isinstance(kind, type) and issubclass(kind, Exception) else ValueError
