"""The control socket: the command line's way into the running daemon.

Frames: four bytes of length (big-endian), then a msgpack map. A question has `op`; the answer has `ok`, and
either `result` or `error` (`code`, `message`). Whoever may open the socket (mode 0660) is the owner.
"""

import asyncio
import contextlib
import os
import pwd
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import msgpack
import structlog

from device_agent.background import BackgroundTasks
from device_agent.errors import AgentError, Fault, Rejected

log = structlog.get_logger("control_socket")

FRAME_MAX_BYTES = 4_000_000
QUESTION_MAX_BYTES = 65_536
# A person types; a script asks a few times a second. More questions at once than this are a mistake.
QUESTIONS_MAX = 16
# Connections; when there are more, the one that has asked nothing for longest is closed.
CLIENTS_MAX = 32
# Answered however many others wait for their answers.
MAKE_SAFE = frozenset(("safe", "estop", "stop"))
ANSWER_LIMIT_S = 60.0
IDLE_LIMIT_S = 600.0

Handler = Callable[[Mapping[str, Any]], Awaitable[Any]]
# Process, user and group of the other end of a Unix socket, unix(7).
PEER = struct.Struct("3i")
_asking: ContextVar[int | None] = ContextVar("asking", default=None)


def asked_by(uid: int) -> None:
    """Whose questions are answered from here on, in this task."""
    _asking.set(uid)


def asking_user() -> str:
    """The Unix user whose question is being answered; "" for one that came by no socket."""
    uid = _asking.get()
    if uid is None:
        return ""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


class ControlSocket:
    """Serves `handlers` by op until closed."""

    def __init__(self, path: Path, handlers: Mapping[str, Handler]) -> None:
        self._path = path
        self._handlers = handlers
        self._server: asyncio.Server | None = None
        self._background = BackgroundTasks("control_socket")
        self._idle: dict[asyncio.StreamWriter, None] = {}
        """Who asks nothing now, the longest first."""
        self._questions = 0

    def check_alone(self) -> None:
        """Raises AgentError while another daemon answers here."""
        if self._path.exists() and _answers(self._path):
            raise AgentError(f"another daemon answers on {self._path}; stop it first")

    async def open(self) -> None:
        """Bind; a socket file that a dead daemon left is taken over, a living daemon's is not."""
        self.check_alone()
        self._path.unlink(missing_ok=True)
        # The umask holds between bind and chmod: nobody slips in.
        before = os.umask(0o117)
        try:
            self._server = await asyncio.start_unix_server(self._client, self._path)
        finally:
            os.umask(before)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._background.close()
            with contextlib.suppress(OSError):
                self._path.unlink()

    def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._background) >= CLIENTS_MAX:
            longest = next(iter(self._idle), writer)
            self._idle.pop(longest, None)
            longest.transport.abort()
            if longest is writer:
                return
        self._background.spawn("client", self._serve(reader, writer))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("socket")
        asked_by(PEER.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER.size))[1])
        try:
            while True:
                self._idle[writer] = None
                async with asyncio.timeout(IDLE_LIMIT_S):
                    (size,) = struct.unpack(">I", await reader.readexactly(4))
                    if size > QUESTION_MAX_BYTES:
                        return
                    frame = await reader.readexactly(size)
                self._idle.pop(writer, None)
                writer.write(_frame_of(await self._answer(frame)))
                async with asyncio.timeout(ANSWER_LIMIT_S):
                    await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, TimeoutError):
            return
        finally:
            self._idle.pop(writer, None)
            writer.close()

    async def _answer(self, frame: bytes) -> dict[str, Any]:
        self._questions += 1
        try:
            question = msgpack.unpackb(frame)
            op = question.get("op") if isinstance(question, dict) else None
            if self._questions > QUESTIONS_MAX and op not in MAKE_SAFE:
                why = f"{QUESTIONS_MAX} questions wait for their answers already"
                return _error(Fault("too_soon", why))
            return await answer(self._handlers, question)
        except (ValueError, TypeError, msgpack.UnpackException) as error:
            return _error(Fault("invalid_value", f"the question has a bad form: {error}"))
        finally:
            self._questions -= 1


async def answer(handlers: Mapping[str, Handler], question: object) -> dict[str, Any]:
    """`ok`, and `result` or `error`, whatever was asked."""
    op = str(question.get("op")) if isinstance(question, dict) else ""
    handler = handlers.get(op)
    if handler is None or not isinstance(question, dict):
        known = ", ".join(sorted(handlers))
        return _error(Fault("invalid_value", f"the daemon knows no question {op!r}; it knows: {known}"))
    try:
        async with asyncio.timeout(ANSWER_LIMIT_S):
            return {"ok": True, "result": await handler(question)}
    except Rejected as rejected:
        return _error(rejected.fault)
    except AgentError as error:
        return _error(Fault(getattr(error, "reason", "internal"), str(error)))
    except TimeoutError:
        return _error(Fault("internal", f"no answer within {ANSWER_LIMIT_S:g} s"))
    except (ValueError, TypeError, KeyError) as error:
        return _error(Fault("invalid_value", f"the question has a bad form: {error}"))


def _error(fault: Fault) -> dict[str, Any]:
    return {"ok": False, "error": fault.members()}


def _frame_of(answer: Mapping[str, Any]) -> bytes:
    """The answer, or a sentence that says why it cannot be given."""
    frame = pack(answer)
    if len(frame) <= FRAME_MAX_BYTES:
        return frame
    why = (
        f"it has {len(frame)} bytes, at most {FRAME_MAX_BYTES} are possible: ask for less, or a smaller file"
    )
    return pack(_error(Fault("internal", f"the answer cannot be carried by the control socket: {why}")))


def pack(message: Mapping[str, Any]) -> bytes:
    """A frame."""
    body = msgpack.packb(dict(message), default=str)
    return struct.pack(">I", len(body)) + bytes(body)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def ask(path: Path, question: Mapping[str, Any], limit_s: float = ANSWER_LIMIT_S) -> dict[str, Any]:
    """One question from another process (blocking). Raises OSError when no daemon answers there."""
    with socket.socket(socket.AF_UNIX) as channel:
        channel.settimeout(limit_s)
        channel.connect(str(path))
        channel.sendall(pack(question))
        (size,) = struct.unpack(">I", _exactly(channel, 4))
        if size > FRAME_MAX_BYTES:
            raise OSError(f"the daemon's answer of {size} bytes is too large")
        answer = msgpack.unpackb(_exactly(channel, size))
    if not isinstance(answer, dict):
        raise OSError("the daemon's answer has a bad form")
    return answer


def _exactly(channel: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        chunk = channel.recv(size - len(data))
        if not chunk:
            raise ConnectionError("the daemon closed the connection")
        data += chunk
    return data
