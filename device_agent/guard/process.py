"""The guard's main thread: learns what to do, listens to the daemon's heartbeat, acts when it stops."""

from __future__ import annotations

import _socket
import os
import select
import time

from device_agent.guard import PROTOCOL
from device_agent.guard.crew import Crew, Entry, Part
from device_agent.guard.daemon_socket import DaemonSocket
from device_agent.guard.log import Log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from device_agent.guard.crew import Outcome
    from device_agent.guard.daemon_socket import Message

# A child waits this long for the daemon that started it.
COMING_LIMIT_S = 30.0
# After an orderly stop a child tries this long to reach what the daemon could not.
FAREWELL_LIMIT_S = 10.0
# A child that outlived its daemon and holds no line waits this long for the next one, to tell it what it did.
LINGER_S = 60.0
# What is kept to be told: each takeover has an entry or two for an actuator.
REPORT_MAX = 500
_HUNG_UP = select.POLLHUP | select.POLLERR | select.POLLNVAL


class Guard:
    """`run` is its life. `child`: it ends with its work; otherwise it stays until it is asked to end."""

    def __init__(self, listener: _socket.socket, log: Log, *, child: bool) -> None:
        self._listener = listener
        self._log = log
        self._child = child
        self._poll = select.poll()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._clients: dict[int, DaemonSocket] = {}
        self._daemon: DaemonSocket | None = None
        self._timeout_s = 1.0
        self._heard_s = 0.0
        self._taken = False
        self._parted_s = time.monotonic()
        """Since when there is no daemon."""
        self._parting = "not come yet"
        self._entries: dict[str, Entry] = {}
        self._crew = Crew(self._entries, self._tell)
        self._outcomes: list[Outcome] = []
        self._report: list[Outcome] = []
        self._ending = False
        self._asked_to_end = False
        self._notify = _notifier()
        self._alive_every_s = int(os.environ.get("WATCHDOG_USEC", "0")) / 3e6
        self._daemons_ops: dict[str, Callable[[DaemonSocket, Message, list[int]], None]] = {
            "beat": self._beat,
            "keep": self._keep,
            "lost": self._lost,
            "forget": self._forget,
            "noted": self._noted,
            "back": self._back,
            "bye": self._bye,
        }

    # -- life -----------------------------------------------------------------------------------------------

    def run(self) -> None:
        for number in (self._listener.fileno(), self._wake):
            self._poll.register(number, select.POLLIN)
        self._notify("READY=1")
        while not self._over():
            for fd, event in self._poll.poll(self._wait_ms()):
                self._ready(fd, event)
            self._take_outcomes()
            self._check_silence()
            if self._alive_every_s:
                self._notify("WATCHDOG=1")
        self._log("info", "guard_ended")

    def ask_to_end(self) -> None:
        """From a signal handler. A child outlives its daemon all the same, whoever signals both."""
        self._asked_to_end = True
        os.eventfd_write(self._wake, 1)

    def _wait_ms(self) -> float | None:
        waits = [self._alive_every_s] if self._alive_every_s else []
        if self._daemon is not None and not self._taken:
            waits.append(self._heard_s + self._timeout_s - time.monotonic())
        if self._daemon is None and self._child:
            waits.append(1.0)
        return max(0.0, min(waits)) * 1000 + 1 if waits else None

    def _over(self) -> bool:
        if self._ending or (self._asked_to_end and (self._daemon is None or not self._child)):
            return True
        if self._daemon is not None or not self._child:
            return False
        entries = self._entries.values()
        pending = any(entry.pending for entry in entries)
        parted_s = time.monotonic() - self._parted_s
        if self._parting == "not come yet":
            return parted_s > COMING_LIMIT_S
        if self._parting == "bye":
            return not pending or parted_s > FAREWELL_LIMIT_S
        idle = not pending and not any(entry.holds for entry in entries)
        return not entries or (idle and parted_s > LINGER_S)

    def _ready(self, fd: int, event: int) -> None:
        if fd == self._listener.fileno():
            self._accept()
        elif fd == self._wake:
            os.eventfd_read(self._wake)
        elif fd in self._clients:
            self._receive(self._clients[fd])
        elif event & _HUNG_UP:
            self._poll.unregister(fd)
            self._vanished(fd)

    def _vanished(self, fd: int) -> None:
        """A chip, port or board is gone; its descriptor would make it come back under another name."""
        for entry in list(self._entries.values()):
            if any(part.fd == fd for part in entry.parts):
                self._log("warning", "guard_lost_hold", device=entry.device, why="what held it is gone")
                entry.give_up([part for part in entry.parts if part.fd == fd])
                if not entry.parts:
                    entry.pending = ""
                    del self._entries[entry.device]

    # -- clients --------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        try:
            client = DaemonSocket(self._listener)
        except OSError as error:
            self._log("warning", "guard_refused_client", why=str(error))
            return
        self._clients[client.fileno()] = client
        self._poll.register(client.fileno(), select.POLLIN)

    def _receive(self, client: DaemonSocket) -> None:
        try:
            while (received := client.receive()) is not None:
                self._obey(client, *received)
        except (OSError, EOFError):
            self._left(client)

    def _left(self, client: DaemonSocket) -> None:
        self._poll.unregister(client.fileno())
        del self._clients[client.fileno()]
        client.close()
        if client is self._daemon:
            self._daemon = None
            self._parted_s = time.monotonic()
            self._parting = "bye" if client.said_bye else "death"
            if not client.said_bye:
                self._take_over("the daemon has died")

    def _obey(self, client: DaemonSocket, message: Message, fds: list[int]) -> None:
        op = message["op"]
        if op == "hello":
            self._hello(client, message)
        elif op == "release":
            self._release(client, message)
        elif op == "end":
            self._ending = True
        elif client is self._daemon and op in self._daemons_ops:
            self._heard_s = time.monotonic()
            self._daemons_ops[op](client, message, fds)
        else:
            self._log("warning", "guard_ignored", op=str(op))

    # -- what they say --------------------------------------------------------------------------------------

    def _hello(self, client: DaemonSocket, message: Message) -> None:
        """A daemon has come. What another one handed over before is kept until this one asks for it."""
        if self._daemon not in (None, client):
            client.send({"op": "refused", "why": "another daemon is connected to this guard"})
            return
        if message["protocol"] == PROTOCOL:
            self._daemon = client
            self._timeout_s = message["timeout_s"]
            self._heard_s = time.monotonic()
            self._taken = False
            for entry in list(self._entries.values()):
                # The new daemon opens every actuator at its safe value, undisturbed.
                entry.pending = ""
                unknown = entry.device not in message["devices"]
                entry.give_up([part for part in entry.parts if unknown or part.exclusive])
                if not entry.parts:
                    del self._entries[entry.device]
        held = list(self._entries)
        client.send({"op": "welcome", "protocol": PROTOCOL, "held": held, "report": self._report})

    def _beat(self, client: DaemonSocket, message: Message, fds: list[int]) -> None:
        client.send({"op": "beat", "n": message["n"]})

    def _keep(self, client: DaemonSocket, message: Message, fds: list[int]) -> None:
        """From now on this is the way to safe of that device; acts with `fd` take one each, in order."""
        self._forget(client, message, [])
        waiting = iter(fds)
        parts = [Part(act, next(waiting) if act["fd"] else -1) for act in message["acts"]]
        self._entries[message["device"]] = Entry(message["device"], message["place"], parts)
        for part in parts:
            if part.fd >= 0:
                self._poll.register(part.fd, 0)  # tells when what it belongs to is gone

    def _lost(self, client: DaemonSocket, message: Message, fds: list[int]) -> None:
        """The daemon has closed the device: its lines would be left as they are, so they go to safe."""
        entry = self._entries.get(message["device"])
        if entry is not None:
            entry.give_up([part for part in entry.parts if part.exclusive])
            for part in [part for part in entry.parts if part.hold]:
                try:
                    part.carry_out()
                except OSError as error:
                    # Without a working descriptor there is nothing to hold.
                    self._log("warning", "guard_lost_hold", device=entry.device, why=str(error))
                    entry.give_up([part])
        client.send({"op": "lost", "device": message["device"]})

    def _release(self, client: DaemonSocket, message: Message) -> None:
        """A daemon is about to claim the device's lines."""
        entry = self._entries.get(message["device"])
        if entry is not None:
            entry.pending = ""
            entry.give_up([part for part in entry.parts if part.hold or part.exclusive])
        client.send({"op": "released"})

    def _noted(self, client: DaemonSocket, message: Message, fds: list[int]) -> None:
        del self._report[: message["count"]]

    def _back(self, client: DaemonSocket, message: Message, fds: list[int]) -> None:
        """The daemon has noticed: it makes everything safe itself before anything else moves."""
        self._taken = False
        for entry in self._entries.values():
            entry.pending = ""

    def _bye(self, client: DaemonSocket, message: Message, fds: list[int]) -> None:
        """An orderly stop. `safe`: what is so already; lines are held on, the rest is forgotten."""
        client.said_bye = True
        self._taken = True
        for entry in list(self._entries.values()):
            if entry.device not in message["safe"]:
                self._go_safe(entry, "the daemon could not when it stopped")
            else:
                entry.give_up([part for part in entry.parts if not part.hold])
                if not entry.parts:
                    del self._entries[entry.device]
        self._crew.start()

    def _forget(self, client: DaemonSocket, message: Message, fds: list[int]) -> None:
        """The device is configured no more, or another way to safe is about to come."""
        entry = self._entries.pop(message["device"], None)
        if entry is not None:
            entry.pending = ""
            entry.give_up(list(entry.parts))

    # -- acting ---------------------------------------------------------------------------------------------

    def _check_silence(self) -> None:
        if self._daemon is None or self._taken:
            return
        if time.monotonic() - self._heard_s >= self._timeout_s:
            # Perhaps it was this process that stood still: what has come meanwhile counts.
            self._receive(self._daemon)
            silent_s = time.monotonic() - self._heard_s
            if self._daemon is not None and not self._taken and silent_s >= self._timeout_s:
                self._take_over(f"the daemon was silent for {silent_s:.1f} s")

    def _take_over(self, why: str) -> None:
        self._taken = True
        for entry in self._entries.values():
            self._go_safe(entry, why)
        self._crew.start()
        self._log("critical", "guard_takes_over", why=why, devices=", ".join(self._entries))
        if self._daemon is not None:
            self._daemon.send({"op": "took", "why": why})

    def _go_safe(self, entry: Entry, why: str) -> None:
        entry.failed = False
        entry.pending = why

    def _tell(self, outcome: Outcome) -> None:
        """From a thread of the crew."""
        self._outcomes.append(outcome)
        os.eventfd_write(self._wake, 1)

    def _take_outcomes(self) -> None:
        news: list[Outcome] = []
        while self._outcomes:
            news.append(self._outcomes.pop(0))
        for outcome in news:
            level = "warning" if outcome["result"] == "done" else "error"
            told = {name: value for name, value in outcome.items() if name != "at_ms"}
            self._log(level, "guard_made_safe", **told)
        self._report += news
        del self._report[:-REPORT_MAX]
        if news and self._daemon is not None:
            self._daemon.send({"op": "report", "report": news})


def _notifier() -> Callable[[str], None]:
    """Tells the service manager; does nothing where none listens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return lambda message: None
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)

    def notify(message: str) -> None:
        try:
            sock.sendto(message.encode(), "\0" + address[1:] if address.startswith("@") else address)
        except OSError:
            return

    return notify
