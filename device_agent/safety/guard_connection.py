"""The daemon's connection to its guard, and how a guard is found or begun. Messages: `device_agent.guard`."""

import asyncio
import contextlib
import fcntl
import marshal
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import structlog

import device_agent.guard
from device_agent.errors import AgentError
from device_agent.guard import PROTOCOL

log = structlog.get_logger("guard")

GUARD_VARIABLE = "DEVICE_AGENT_GUARD"
# A guard that runs answers within a millisecond; a busy machine needs longer.
ANSWER_LIMIT_S = 1.0
# One that was stopped and is woken, or a board that swaps.
WAKE_LIMIT_S = 5.0
# How long a guard that is asked to end, or started anew by its service manager, may take.
END_LIMIT_S = 2.0
BACKLOG = 8
# For the daemon alone: a guard that fed the daemon's watchdog would hide that the daemon hangs.
OURS_ALONE = frozenset({"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"})
RECEIVE_BYTES = 262_144
# fcntl(2), struct flock: type, whence, start, length, process.
_FLOCK = "hhqqi"

Message = dict[str, Any]


class GuardGone(AgentError):
    """There is no guard, or it refuses this daemon; the message says which."""


class GuardSilent(GuardGone):
    """Its socket is there, and nobody answers."""


class GuardConnection:
    """One connection. `process` is the guard itself where it is a child of this process."""

    def __init__(self, sock: socket.socket, path: Path, process: "subprocess.Popen[bytes] | None") -> None:
        sock.setblocking(False)
        self._sock = sock
        self.path = path
        self.process = process

    def fileno(self) -> int:
        return self._sock.fileno()

    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Whole or not at all, without waiting. Raises GuardGone."""
        try:
            socket.send_fds(self._sock, [marshal.dumps(message, 2)], list(fds), socket.MSG_NOSIGNAL)
        except OSError as error:
            raise GuardGone(f"the guard at {self.path} takes nothing: {error.strerror}") from error

    def drain(self) -> list[Message]:
        """What has come. Raises GuardGone when nothing more can."""
        messages: list[Message] = []
        while True:
            try:
                data = self._sock.recv(RECEIVE_BYTES)
            except BlockingIOError:
                return messages
            except OSError as error:
                raise GuardGone(f"the guard at {self.path} is gone: {error.strerror}") from error
            if not data:
                if messages:
                    return messages
                raise GuardGone(f"the guard at {self.path} has ended")
            messages.append(marshal.loads(data))

    async def answer(self, limit_s: float) -> Message:
        """The next message. Raises GuardGone when none comes in time."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(limit_s):
                data = await loop.sock_recv(self._sock, RECEIVE_BYTES)
        except (OSError, TimeoutError) as error:
            raise GuardSilent(f"the guard at {self.path} does not answer") from error
        if not data:
            raise GuardGone(f"the guard at {self.path} has ended")
        message: Message = marshal.loads(data)
        return message

    def close(self) -> None:
        self._sock.close()


async def find_or_start(
    folder: Path, hello: Message, log_style: str
) -> tuple[GuardConnection, Message | None]:
    """A link to the guard at $DEVICE_AGENT_GUARD, or to one in `folder`, begun as our child where none is.

    With it comes the welcome of a guard that was there already. Raises GuardGone, OSError.
    """
    named = os.environ.get(GUARD_VARIABLE)
    if named:
        try:
            return await _greeted(Path(named), hello, patient=True)
        except (GuardGone, OSError) as error:
            log.warning("guard_not_there", path=named, why=str(error), instead="one as a child of the daemon")
    path = folder / "guard.sock"
    with contextlib.suppress(FileNotFoundError, ConnectionRefusedError, GuardSilent):
        return await _greeted(path, hello)
    link = _started(path, log_style)
    link.send(hello)
    return link, None


async def _greeted(
    path: Path, hello: Message, *, patient: bool = False
) -> tuple[GuardConnection, Message | None]:
    """`patient`: a service manager may be starting it anew at this moment."""
    loop = asyncio.get_running_loop()
    ends_s, waits = loop.time() + END_LIMIT_S, patient
    while True:
        try:
            link = GuardConnection(_connected(path), path, None)
        except OSError:
            if not waits or loop.time() > ends_s:
                raise
            await asyncio.sleep(0.05)
            continue
        try:
            link.send(hello)
            welcome = await _welcome(link, path)
            if welcome["op"] == "refused":
                raise GuardGone(f"the guard at {path} refuses: {welcome['why']}")
            if welcome["protocol"] == PROTOCOL:
                return link, welcome
            log.warning("guard_of_another_version", path=str(path), protocol=welcome["protocol"])
            link.send({"op": "end"})
        except GuardSilent:
            link.close()
            if not patient:
                raise
            patient, ends_s = False, loop.time() + END_LIMIT_S
            continue
        except BaseException:
            link.close()
            raise
        link.close()
        if loop.time() > ends_s:
            raise GuardGone(f"the guard at {path} is of another version and does not end")
        await asyncio.sleep(0.05)


def _connected(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        sock.settimeout(ANSWER_LIMIT_S)
        sock.connect(str(path))
    except OSError:
        sock.close()
        raise
    return sock


def _started(path: Path, log_style: str) -> GuardConnection:
    """The listening socket is ours to make, so that the guard can be spoken to before it is up."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        path.unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(before)
        listener.listen(BACKLOG)
        fd = listener.fileno()
        program = Path(device_agent.guard.__file__).parent / "__main__.py"
        # As a file, without `site`: see the module.
        command = [sys.executable, "-I", "-S", str(program), "--socket", str(path), "--listen-fd", str(fd)]
        process = subprocess.Popen(
            [*command, "--log", log_style],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[fd],
            env={name: value for name, value in os.environ.items() if name not in OURS_ALONE},
            cwd="/",
            start_new_session=True,  # a terminal's Ctrl-C is for the daemon
        )
    log.info("guard_started", path=str(path), pid=process.pid)
    return GuardConnection(_connected(path), path, process)


def ask_guard(path: Path, op: str, device: str) -> None:
    """`release` a device's lines, or `take back` what was released. From any thread; returns when done."""
    try:
        with _connected(path) as sock:
            sock.send(marshal.dumps({"op": op, "device": device}, 2))
            sock.recv(RECEIVE_BYTES)
    except OSError as error:
        log.warning("guard_not_asked", device=device, op=op, why=str(error))


async def _welcome(link: GuardConnection, path: Path) -> Message:
    """The answer to `hello`. A guard that was stopped is woken, and does what it has missed; one that does
    not wake is ended. Raises GuardGone, and GuardSilent when it is out of the way."""
    try:
        return await link.answer(ANSWER_LIMIT_S)
    except GuardSilent as silent:
        pid = _guard_pid(path)
        if pid:
            log.error("guard_silent", path=str(path), pid=pid, instead="it is woken, or ended")
            os.kill(pid, signal.SIGCONT)
        try:
            return await link.answer(WAKE_LIMIT_S)
        except GuardSilent:
            if pid:
                os.kill(pid, signal.SIGKILL)
                await asyncio.to_thread(_wait_for_end, path, pid)
            raise silent from None


def _wait_for_end(path: Path, pid: int) -> None:
    ends_s = time.monotonic() + END_LIMIT_S
    while _guard_pid(path) == pid and time.monotonic() < ends_s:
        time.sleep(0.01)


def _guard_pid(path: Path) -> int:
    """The process that is the guard at this socket, by its lock; 0 if none is."""
    try:
        with open(f"{path}.lock", "rb") as file:
            asked = fcntl.fcntl(file, fcntl.F_GETLK, struct.pack(_FLOCK, fcntl.F_RDLCK, 0, 0, 0, 0))
    except OSError:
        return 0
    kind, _, _, _, pid = struct.unpack(_FLOCK, asked)
    return 0 if kind == fcntl.F_UNLCK else int(pid)
