"""The guard's main thread: receives actions, watches the daemon's heartbeat, acts when it stops."""

from __future__ import annotations

import _socket
import os
import select
import time

from device_agent.guard import PROTOCOL
from device_agent.guard.bus_workers import BusWorkers, GuardAction, GuardedActuator
from device_agent.guard.daemon_socket import DaemonSocket
from device_agent.guard.log import Log
from device_agent.guard.notes import Notes, process_of
from device_agent.guard.precedence import take_precedence
from device_agent.guard.stop_watch import LOOK_S as STOP_LOOK_S
from device_agent.guard.stop_watch import StopWatch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from device_agent.guard.bus_workers import Report
    from device_agent.guard.daemon_socket import Message

# A child waits this long for the daemon that started it.
COMING_LIMIT_S = 30.0
# After an orderly stop a child tries this long to reach what the daemon could not.
FAREWELL_LIMIT_S = 10.0
# A child that outlived its daemon and holds no line waits this long for the next one, to report to it.
LINGER_S = 60.0
# How often a guard looks whether the daemon of the one before it is still there.
LOOK_S = 0.05
# Reports kept until a daemon has them: each takeover makes one or two for an actuator.
REPORT_MAX = 500
_HUNG_UP = select.POLLHUP | select.POLLERR | select.POLLNVAL


class GuardProcess:
    """`run` until it ends. `child`: it ends when nothing is left to do, otherwise when it is asked to."""

    def __init__(self, listener: _socket.socket, log: Log, notes: Notes, *, child: bool) -> None:
        self._listener = listener
        self._log = log
        self._notes = notes
        self._process = (0, 0)
        """Of the daemon that handed over what there is."""
        self._awaits = False
        """Whether that daemon has not spoken to this guard yet."""
        self._child = child
        self._poll = select.poll()
        self._woken, self.wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        """Writing to `wake` ends a wait; a signal that came just before one has to do so."""
        self._clients: dict[int, DaemonSocket] = {}
        self._daemon: DaemonSocket | None = None
        self._timeout_s = 1.0
        self._heard_s = 0.0
        self._took_over = False
        self._calm = False
        """The daemon has said that everything is safe and nothing about to move: it may stand still."""
        self._absent_since_s = time.monotonic()
        """Since when there is no daemon."""
        self._absence = "not come yet"
        self._actuators: dict[str, GuardedActuator] = {}
        self._workers = BusWorkers(self._actuators, self._on_report)
        self._stop: StopWatch | None = None
        self._stopped = ""
        """The stop input that was pressed, until a daemon has latched it."""
        self._new_reports: list[Report] = []
        self._reports: list[Report] = []
        self._slow = ""
        """Why it may act late on a busy machine."""
        self._ending = False
        self._asked_to_end = False
        self._notify = _notifier()
        self._alive_every_s = int(os.environ.get("WATCHDOG_USEC", "0")) / 3e6
        self._handlers: dict[str, Callable[[DaemonSocket, Message, list[int]], None]] = {
            "beat": self._beat,
            "keep": self._keep,
            "lost": self._lost,
            "forget": self._forget,
            "noted": self._noted,
            "back": self._back,
            "latched": self._latched,
            "bye": self._bye,
        }

    # -- life -----------------------------------------------------------------------------------------------

    def run(self) -> None:
        for number in (self._listener.fileno(), self._woken):
            self._poll.register(number, select.POLLIN)
        self._go_on()
        self._slow = take_precedence()
        self._notify("READY=1")
        while not self._is_over():
            for fd, event in self._poll.poll(self._wait_ms()):
                self._ready(fd, event)
            self._check_stop()
            self._take_reports()
            self._check_silence()
            self._check_death()
            if self._alive_every_s:
                self._notify("WATCHDOG=1")
        self._notes.clear()
        self._log("info", "guard_ended")

    def _go_on(self) -> None:
        """Where a guard that was killed left off."""
        noted = self._notes.read()
        if noted is not None:
            self._process, actuators = noted
            for device, place, acts in actuators:
                self._actuators[device] = GuardedActuator(device, place, [GuardAction(a, -1) for a in acts])
            self._awaits = bool(actuators)
            self._check_death()

    def ask_to_end(self) -> None:
        """From a signal handler. A child outlives its daemon all the same, whoever signals both."""
        self._asked_to_end = True

    def _wait_ms(self) -> float | None:
        waits = [self._alive_every_s] if self._alive_every_s else []
        if self._daemon is not None and not self._took_over and not self._calm:
            waits.append(self._heard_s + self._timeout_s - time.monotonic())
        if self._daemon is None and self._child:
            waits.append(1.0)
        if self._awaits:
            waits.append(LOOK_S)
        if self._stop is not None:
            waits.append(STOP_LOOK_S)
        return max(0.0, min(waits)) * 1000 + 1 if waits else None

    def _is_over(self) -> bool:
        if self._ending or (self._asked_to_end and (self._daemon is None or not self._child)):
            return True
        if self._daemon is not None or not self._child:
            return False
        actuators = self._actuators.values()
        pending = any(actuator.pending for actuator in actuators)
        absent_s = time.monotonic() - self._absent_since_s
        if self._absence == "not come yet":
            return absent_s > COMING_LIMIT_S
        if self._absence == "bye":
            if any(actuator.inherited and actuator.holds for actuator in actuators):
                return False
            return not pending or absent_s > FAREWELL_LIMIT_S
        idle = not pending and not any(actuator.holds for actuator in actuators)
        return not actuators or (idle and absent_s > LINGER_S)

    def _ready(self, fd: int, event: int) -> None:
        if fd == self._listener.fileno():
            self._accept()
        elif fd == self._woken:
            os.read(fd, 4096)
        elif fd in self._clients:
            self._receive(self._clients[fd])
        elif event & _HUNG_UP:
            self._poll.unregister(fd)
            self._vanished(fd)
        # Else it is an edge of the stop input, which is looked at after each wait.

    def _vanished(self, fd: int) -> None:
        """A chip, port or board is gone; its descriptor would make it come back under another name."""
        for actuator in list(self._actuators.values()):
            if gone := [action for action in actuator.actions if action.fd == fd]:
                self._log("warning", "guard_lost_hold", device=actuator.device, why="what held it is gone")
                self._give_up(actuator, gone)

    def _give_up(self, actuator: GuardedActuator, actions: list[GuardAction]) -> None:
        """An actuator without any action left is forgotten."""
        actuator.give_up(actions)
        if not actuator.actions:
            actuator.pending = ""
            del self._actuators[actuator.device]

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
            self._watch(None)
            self._absent_since_s = time.monotonic()
            self._absence = "bye" if client.said_bye else "death"
            if not client.said_bye:
                self._take_over("the daemon has died")

    def _obey(self, client: DaemonSocket, message: Message, fds: list[int]) -> None:
        op = message["op"]
        if op == "hello":
            self._hello(client, message)
        elif op == "release":
            self._release(client, message)
        elif op == "take back":
            self._lost(client, message)
        elif op == "end":
            self._ending = True
        elif client is self._daemon and op == "moves":
            self._calm = False  # from the thread of a bus: no sign of life of the event loop
        elif client is self._daemon and op in self._handlers:
            self._heard_s = time.monotonic()
            self._handlers[op](client, message, fds)
        else:
            self._log("warning", "guard_ignored", op=str(op))
        if op != "beat":
            self._notes.write(self._process, self._actuators.values())

    # -- messages --------------------------------------------------------------------------------------

    def _hello(self, client: DaemonSocket, message: Message) -> None:
        """A daemon has connected. What an earlier one handed over is kept until this one asks for it."""
        if self._daemon not in (None, client):
            client.send({"op": "refused", "why": "another daemon is connected to this guard"})
            return
        if message["protocol"] == PROTOCOL:
            self._daemon = client
            self._process, self._awaits = client.process, False
            self._timeout_s = message["timeout_s"]
            self._heard_s = time.monotonic()
            self._took_over = self._calm = False
            for actuator in list(self._actuators.values()):
                actuator.inherited = True
                if not actuator.holds:
                    actuator.pending = ""  # the new daemon opens it at its safe value, undisturbed
                if actuator.device in message["devices"]:
                    actuator.let_go([action for action in actuator.actions if action.exclusive])
                else:
                    self._give_up(actuator, actuator.actions)
        held = list(self._actuators)
        welcome = {"held": held, "report": self._reports, "stopped": self._stopped, "slow": self._slow}
        client.send({"op": "welcome", "protocol": PROTOCOL, **welcome})

    def _beat(self, client: DaemonSocket, message: Message, fds: list[int]) -> None:
        self._calm = message.get("calm", False)
        client.send({"op": "beat", "n": message["n"]})

    def _keep(self, client: DaemonSocket, message: Message, fds: list[int]) -> None:
        """These actions make that device safe from now on; those with `fd` take one each, in order."""
        self._forget(client, message, [])
        waiting = iter(fds)
        actions = [GuardAction(data, next(waiting) if data["fd"] else -1) for data in message["acts"]]
        if actions[0].data["kind"] == "level":
            self._watch(StopWatch(message["device"], actions[0]))
            return
        self._actuators[message["device"]] = GuardedActuator(message["device"], message["place"], actions)
        for action in actions:
            if action.fd >= 0:
                self._poll.register(action.fd, 0)  # reports when its chip, port or board is gone

    def _lost(self, client: DaemonSocket, message: Message, fds: list[int] | None = None) -> None:
        """The daemon has closed the device, or could not take its lines: they are held at safe."""
        if self._stop is not None and self._stop.device == message["device"]:
            self._watch(None)
        actuator = self._actuators.get(message["device"])
        if actuator is not None:
            actuator.let_go([action for action in actuator.actions if action.exclusive])
            for action in [action for action in actuator.actions if action.hold]:
                try:
                    action.carry_out()
                except OSError as error:
                    # Without a working descriptor there is nothing to hold.
                    self._log("warning", "guard_lost_hold", device=actuator.device, why=str(error))
                    actuator.give_up([action])
        client.send({"op": "lost", "device": message["device"]})

    def _release(self, client: DaemonSocket, message: Message) -> None:
        """A daemon is about to claim the device's lines; if it cannot, they are `taken back`."""
        actuator = self._actuators.get(message["device"])
        if actuator is not None:
            actuator.pending = ""
            actuator.let_go([action for action in actuator.actions if action.hold or action.exclusive])
        client.send({"op": "released"})

    def _noted(self, client: DaemonSocket, message: Message, fds: list[int]) -> None:
        del self._reports[: message["count"]]

    def _back(self, client: DaemonSocket, message: Message, fds: list[int]) -> None:
        """The daemon has noticed: it makes everything safe itself before anything else moves."""
        self._took_over = False
        if self._stop is not None:
            self._stop.answered()
        for actuator in self._actuators.values():
            actuator.pending = ""

    def _latched(self, client: DaemonSocket, message: Message, fds: list[int]) -> None:
        """The emergency stop is in the daemon's hands."""
        self._stopped = ""

    def _bye(self, client: DaemonSocket, message: Message, fds: list[int]) -> None:
        """An orderly stop. `safe`: what is so already; lines are held on, the rest is forgotten."""
        client.said_bye = True
        self._took_over = True
        for actuator in list(self._actuators.values()):
            if actuator.device not in message["safe"]:
                actuator.make_safe("the daemon could not when it stopped")
            else:
                self._give_up(actuator, [action for action in actuator.actions if not action.hold])
        self._workers.start()

    def _forget(self, client: DaemonSocket, message: Message, fds: list[int]) -> None:
        """The device left the configuration, or other actions for it are about to come."""
        if self._stop is not None and self._stop.device == message["device"]:
            self._watch(None)
        actuator = self._actuators.pop(message["device"], None)
        if actuator is not None:
            actuator.pending = ""
            actuator.give_up(list(actuator.actions))

    # -- acting ---------------------------------------------------------------------------------------------

    def _check_silence(self) -> None:
        if self._daemon is None or self._took_over or self._calm:
            return
        if time.monotonic() - self._heard_s >= self._timeout_s:
            # Perhaps this process stood still: what has arrived meanwhile counts.
            self._receive(self._daemon)
            silent_s = time.monotonic() - self._heard_s
            waits = self._daemon is not None and not self._took_over and not self._calm
            if waits and silent_s >= self._timeout_s:
                self._take_over(f"the daemon was silent for {silent_s:.1f} s")

    def _watch(self, stop: StopWatch | None) -> None:
        before, self._stop = self._stop, stop
        if before is not None:
            self._poll.unregister(before.fileno())
            before.close()
        if stop is not None:
            self._poll.register(stop.fileno(), select.POLLIN)

    def _check_stop(self) -> None:
        if self._stop is None:
            return
        try:
            pressed = self._stop.look(self._actuators.values())
        except OSError as error:
            # Its daemon sees that too, and lets nothing move while the line cannot be read.
            self._log("warning", "guard_lost_stop_input", device=self._stop.device, why=str(error))
            self._watch(None)
            return
        self._workers.start()
        if pressed:
            self._stopped = self._stop.device
            self._log("critical", "guard_stops", why=self._stop.why)
            if self._daemon is not None:
                self._daemon.send({"op": "took", "why": self._stop.why, "stopped": self._stopped})

    def _check_death(self) -> None:
        """Of the daemon that a guard before this one has watched."""
        if self._awaits and process_of(self._process[0]) != self._process:
            self._awaits = False
            self._take_over("the daemon has died, and the guard before this one")

    def _take_over(self, why: str) -> None:
        self._took_over = True
        for actuator in self._actuators.values():
            actuator.make_safe(why)
        self._workers.start()
        self._log("critical", "guard_takes_over", why=why, devices=", ".join(self._actuators))
        if self._daemon is not None:
            self._daemon.send({"op": "took", "why": why})

    def _on_report(self, report: Report) -> None:
        """On the thread of a bus."""
        self._new_reports.append(report)
        try:
            os.write(self.wake, b"1")
        except BlockingIOError:
            return  # it is full, and wakes as it is

    def _take_reports(self) -> None:
        reports: list[Report] = []
        while self._new_reports:
            reports.append(self._new_reports.pop(0))
        for report in reports:
            level = "warning" if report["result"] == "done" else "error"
            members = {name: value for name, value in report.items() if name != "at_ms"}
            self._log(level, "guard_made_safe", **members)
        self._reports += reports
        del self._reports[:-REPORT_MAX]
        if reports and self._daemon is not None:
            self._daemon.send({"op": "report", "report": reports})


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
