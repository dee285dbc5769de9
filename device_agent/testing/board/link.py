"""How a simulated handle reaches its board: directly, or over the board's Unix socket.

A link is one client with what it holds. Closing it gives everything back before `close` returns.
"""

import os
import socket
import struct
from pathlib import Path
from typing import Any, Protocol

from device_agent import errors
from device_agent.errors import BusGone, BusTimeout
from device_agent.testing.board.core import Board
from device_agent.testing.board.mailbox import Mailbox
from device_agent.testing.board.session import Session
from device_agent.testing.board.wire import Frames

# Longer than a board keeps a stuck call; then the board process itself has stopped.
CALL_LIMIT_S = 75
CLOSE_LIMIT_S = 1

Chunks = tuple[list[Any], int]
"""What waited, and how many chunks before it were lost."""


class Link(Protocol):
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
        self._session = Session(board, by)
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
        self._frames = Frames(sock)
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
            # The board closes its side once everything is given back: after that a new claim succeeds.
            sock.shutdown(socket.SHUT_WR)
            sock.setblocking(True)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", CLOSE_LIMIT_S, 0))
            while sock.recv(1 << 16):
                pass
        except OSError:
            pass  # the board has gone already, or is stopped: there is nothing to wait for
        finally:
            sock.close()


def connect(board: Board | Path | str, by: str) -> Link:
    """A link to a board object, or to the one at a socket's path. Raises BusGone."""
    return LocalLink(board, by) if isinstance(board, Board) else SocketLink(Path(board), by)


def _raised(name: str) -> type[Exception]:
    kind = getattr(errors, name, ValueError)
    return kind if isinstance(kind, type) and issubclass(kind, Exception) else ValueError
