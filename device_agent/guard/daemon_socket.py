"""The guard's end of its socket: whole messages with descriptors, from processes of the same user."""

from __future__ import annotations

import _socket
import marshal
import os
import struct

from device_agent.guard.notes import process_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Message = dict[str, Any]

# No message is larger: `keep` is refused by the daemon beyond this.
MESSAGE_MAX_BYTES = 131_072
FDS_MAX = 64
MSG_CMSG_CLOEXEC = 0x4000_0000
_BACKLOG = 8


def pack(message: Message) -> bytes:
    """`marshal`, in a form that every Python reads: it is in the interpreter, and carries bytes as they are.

    It trusts what it reads. The socket is its user's alone (mode 0600, and the peer's user is checked).
    """
    return marshal.dumps(message, 2)


def bound(path: str) -> _socket.socket:
    """A listening socket at this path, mode 0600. Raises OSError."""
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
    before = os.umask(0o177)
    try:
        sock.bind(path)
        sock.listen(_BACKLOG)
    except OSError:
        sock.close()
        raise
    finally:
        os.umask(before)
    return sock


class DaemonSocket:
    """One connection of a client; `said_bye`: its end is no reason to act."""

    def __init__(self, listener: _socket.socket) -> None:
        """Raises OSError, PermissionError for a client of another user."""
        fd, _ = listener._accept()  # type: ignore[attr-defined]
        self.sock = _socket.socket(fileno=fd)
        self.said_bye = False
        credentials = self.sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)
        pid, user, _ = struct.unpack("iII", credentials)
        if user not in (0, os.geteuid()):
            self.sock.close()
            raise PermissionError(f"a client of user {user}")
        self.process = process_of(pid)

    def fileno(self) -> int:
        return self.sock.fileno()

    def receive(self) -> tuple[Message, list[int]] | None:
        """The next message with its descriptors, None when none waits. Raises OSError, EOFError."""
        fds: list[int] = []
        try:
            data, ancillary, _, _ = self.sock.recvmsg(
                MESSAGE_MAX_BYTES, _socket.CMSG_SPACE(4 * FDS_MAX), _socket.MSG_DONTWAIT | MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return None
        for level, kind, payload in ancillary:
            if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS):
                count = len(payload) // 4
                fds += struct.unpack(f"{count}i", payload[: 4 * count])
        if not data:
            raise EOFError
        return marshal.loads(data), fds

    def send(self, message: Message) -> bool:
        """False when the client takes nothing: stopped for long, or gone."""
        try:
            self.sock.send(pack(message), _socket.MSG_DONTWAIT)
        except OSError:
            return False
        return True

    def close(self) -> None:
        self.sock.close()
