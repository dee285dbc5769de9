"""A board behind a Unix socket: one thread for each client, since a call may be stuck for a minute."""

import contextlib
import select
import socket
import threading
from pathlib import Path
from typing import Any

from device_agent.errors import AgentError, BusGone, BusHeld
from device_agent.testing.board.client import BoardClient
from device_agent.testing.board.core import Board
from device_agent.testing.board.handles import GUARD
from device_agent.testing.board.link import BoardFrames, answers

STIMULUS = "stimulus"
"""How the command line names itself."""
PASSIVE = (STIMULUS, GUARD)
"""Who does not count as a user of the board: a guard that holds its lines ends with it."""

_HUNG_UP = select.POLLRDHUP | select.POLLHUP | select.POLLERR


class BoardServer:
    """Serves `board` at `path` (mode 0600) from construction until `close`."""

    def __init__(self, board: Board, path: Path) -> None:
        """Takes over a stale socket file. Raises BusHeld if another board answers there."""
        self.board = board
        self.path = path
        self._socket = _bound(path)
        self._changed = threading.Condition()
        self._clients: set[_Client] = set()
        self._users = 0
        self._used = False
        self._closed = False
        self._thread = threading.Thread(target=self._accept, name="board-accept", daemon=True)
        self._thread.start()

    def __enter__(self) -> "BoardServer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End every client, give the socket's name back. May be called twice."""
        if self._closed:
            return
        self._closed = True
        self.path.unlink(missing_ok=True)
        self._socket.shutdown(socket.SHUT_RDWR)  # `accept` fails from now on
        self._thread.join()
        self._socket.close()
        with self._changed:
            clients = list(self._clients)
        for client in clients:
            client.hang_up()
        for client in clients:
            client.thread.join()

    def wait_unused(self, first_limit_s: float) -> None:
        """Return after the last user has left, or if there was none within `first_limit_s`."""
        with self._changed:
            self._changed.wait_for(lambda: self._used, first_limit_s)
            self._changed.wait_for(lambda: self._users == 0)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            client = _Client(self, connection)
            with self._changed:
                self._clients.add(client)
            client.thread.start()

    def joined(self, by: str) -> None:
        if by not in PASSIVE:
            with self._changed:
                self._users += 1
                self._used = True
                self._changed.notify_all()

    def left(self, client: "_Client", by: str | None) -> None:
        with self._changed:
            self._clients.discard(client)
            if by is not None and by not in PASSIVE:
                self._users -= 1
            self._changed.notify_all()


class _Client:
    """One connection: calls until it listens or goes."""

    def __init__(self, server: BoardServer, connection: socket.socket) -> None:
        self._server = server
        self._socket = connection
        self._frames = BoardFrames(connection)
        self._session: BoardClient | None = None
        self.thread = threading.Thread(target=self._serve, name="board-client", daemon=True)

    def hang_up(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def _alive(self) -> bool:
        poll = select.poll()
        poll.register(self._socket, _HUNG_UP)
        return not poll.poll(0)

    def _serve(self) -> None:
        try:
            while self._answer(self._frames.receive()):
                pass
            self._push()
        except (EOFError, OSError):
            pass  # the client has gone, which is how every client ends
        finally:
            by = None if self._session is None else self._session.by
            if self._session is not None:
                self._session.close()
            self._socket.close()
            self._server.left(self, by)

    def _answer(self, call: tuple[Any, ...]) -> bool:
        """Do one call; False when the client listens from now on."""
        op, *args = call
        listens = op == "listen"
        try:
            answer = (True, self._do(*args) if listens else self._do(op, *args))
        except (AgentError, ValueError) as error:
            answer = (False, type(error).__name__, str(error))  # type: ignore[assignment]
            listens = False
        self._frames.send(answer)
        return not listens

    def _do(self, op: str, *args: Any) -> Any:
        if op == "hello":
            self._session = BoardClient(self._server.board, str(args[0]), self._alive)
            self._server.joined(self._session.by)
            return None
        if self._session is None:
            raise ValueError("the first call of a client says who it is")
        return self._session.call(op, *args)

    def _push(self) -> None:
        """Send what arrives until either side has gone."""
        mailbox = None if self._session is None else self._session.mailbox
        poll = select.poll()
        poll.register(self._socket, _HUNG_UP)
        if mailbox is not None:
            poll.register(mailbox.fileno(), select.POLLIN)
        while all(fd != self._socket.fileno() for fd, _ in poll.poll()):
            if mailbox is None:
                continue
            try:
                chunks = mailbox.drain()
            except BusGone as gone:
                self._frames.send(str(gone))
                poll.unregister(mailbox.fileno())
                mailbox = None
                continue
            if chunks:
                self._frames.send((chunks, mailbox.take_lost()))


def _bound(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _bind(sock, path)
    except BaseException:
        sock.close()
        raise
    return sock


def _bind(sock: socket.socket, path: Path) -> None:
    try:
        sock.bind(str(path))
    except OSError as error:
        if answers(path):
            raise BusHeld(
                f"a simulated board answers at {path} already; stop it, or choose another path"
            ) from None
        if not path.is_socket():
            raise BusGone(f"no socket can be made at {path}: {error.strerror or error}") from None
        # Left behind by a board that was killed.
        path.unlink()
        sock.bind(str(path))
    path.chmod(0o600)
    sock.listen(64)
